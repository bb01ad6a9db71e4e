//! Rooms made of nothing but a seed: event `index` of a room is the same in every run, and none is kept in memory.
//!
//! The mix is that of a talkative public room: 5 % state (joins and changes of profile), 6 % with a relation (reactions,
//! edits, threads, replies), 0.5 % redactions; 590 bytes an event on the wire.

use std::fmt::Write as _;

/// What all rooms are made from.
const SEED: u64 = 0x6261_636b_7363_726f;
/// Ways to be a member; the rest of the senders differ by number.
const USERS: u64 = 400;
/// 2024-01-01, in milliseconds.
const FIRST_TS: u64 = 1_704_067_200_000;
/// Events that every room begins with.
const BEGINNING: u64 = 5;

/// A room of a given length.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Room {
    /// Distinguishes rooms.
    pub(crate) number: u64,
    /// Events in it.
    pub(crate) events: u64,
    /// Bytes that each message's body is filled up to; 0: as people write.
    pub(crate) body_bytes: usize,
    /// Who joins right after the beginning.
    pub(crate) members: u64,
}

/// `SplitMix64`, as `java.util.SplittableRandom` has it: good enough to look random, and a few instructions.
struct Dice(u64);

impl Dice {
    fn new(parts: [u64; 3]) -> Self {
        let mut dice = Self(SEED);
        for part in parts {
            dice.0 ^= part;
            dice.0 = dice.next();
        }
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

const WORDS: [&str; 32] = [
    "the",
    "of",
    "room",
    "server",
    "I",
    "think",
    "that",
    "we",
    "should",
    "not",
    "merge",
    "before",
    "Friday",
    "because",
    "naïve",
    "tests",
    "are",
    "slow",
    "today",
    "and",
    "nobody",
    "knows",
    "why",
    "überhaupt",
    "see",
    "https://example.org/issue",
    "again",
    "maybe",
    "restart",
    "it",
    "👍",
    "please",
];

impl Room {
    /// Its id.
    pub(crate) fn room_id(&self) -> String {
        format!("!replay{:06}:bench.test", self.number)
    }

    /// The number of the room with that id.
    pub(crate) fn number_of(room_id: &str) -> Option<u64> {
        room_id.strip_prefix("!replay")?.strip_suffix(":bench.test")?.parse().ok()
    }

    fn dice(&self, index: u64, purpose: u64) -> Dice {
        Dice::new([self.number, index, purpose])
    }

    /// The id of event `index`: 43 characters without padding, as room versions 4 and later have it.
    pub(crate) fn event_id(&self, index: u64) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut dice = self.dice(index, 0);
        let mut id = String::with_capacity(44);
        id.push('$');
        while id.len() < 44 {
            let mut bits = dice.next();
            for _ in 0..10.min(44 - id.len()) {
                id.push(char::from(ALPHABET[usize::try_from(bits % 64).unwrap_or_default()]));
                bits >>= 6;
            }
        }
        id
    }

    /// Whether event `index` is a redaction, and of which earlier event.
    fn redacts(&self, index: u64) -> Option<u64> {
        let mut dice = self.dice(index, 1);
        (index >= 2 * BEGINNING + self.members && dice.below(200) == 0)
            .then(|| BEGINNING + dice.below(index - BEGINNING))
    }

    fn user(number: u64) -> String {
        format!("@user{number:04}:server{:02}.test", number % 40)
    }

    /// Appends event `index` as `/messages` serves it.
    pub(crate) fn write_event(&self, index: u64, out: &mut String) {
        let mut dice = self.dice(index, 2);
        let is_member = (BEGINNING..BEGINNING + self.members).contains(&index);
        let sender = match index {
            0..BEGINNING => Self::user(0),
            _ if is_member => format!("@member{index:06}:server{:02}.test", index % 40),
            _ => Self::user(dice.below(USERS)),
        };
        let (event_id, room_id) = (self.event_id(index), self.room_id());
        let ts = FIRST_TS + index * 7_000 + dice.below(5_000);
        let age = 90_000_000 + dice.below(1_000_000);
        let mut unsigned = format!(r#"{{"membership":"join","age":{age}"#);
        let _ = write!(out, r#"{{"type":""#);
        let mut state_key = None;
        if let Some(target) = self.redacts(index) {
            let target = self.event_id(target);
            let _ = write!(
                out,
                r#"m.room.redaction","redacts":"{target}","content":{{"reason":"spam","redacts":"{target}"}}"#
            );
        } else if index < BEGINNING {
            state_key = Some(String::new());
            let _ = write!(out, "{}", self.beginning(index, &mut state_key));
        } else if is_member {
            state_key = Some(sender.clone());
            let _ = write!(
                out,
                r#"m.room.member","content":{{"membership":"join","displayname":"Member {index}","avatar_url":null}}"#
            );
        } else {
            match dice.below(100) {
                0..5 => {
                    state_key = Some(sender.clone());
                    let (name, earlier) = (dice.below(1 << 20), dice.below(1 << 20));
                    let member = |name: u64| {
                        format!(
                            r#"{{"membership":"join","displayname":"User {name}","avatar_url":"mxc://server.test/{name:024}"}}"#
                        )
                    };
                    let _ = write!(out, r#"m.room.member","content":{}"#, member(name));
                    let _ = write!(
                        unsigned,
                        r#","replaces_state":"{}","prev_content":{},"prev_sender":"{sender}""#,
                        self.event_id(u64::MAX - index),
                        member(earlier)
                    );
                }
                kind => self.write_message(index, kind, &mut dice, out),
            }
        }
        let _ = write!(out, r#","room_id":"{room_id}","sender":"{sender}""#);
        if let Some(state_key) = state_key {
            let _ = write!(out, r#","state_key":"{state_key}""#);
        }
        let _ = write!(
            out,
            r#","origin_server_ts":{ts},"unsigned":{unsigned}}},"event_id":"{event_id}","user_id":"{sender}","age":{age}}}"#
        );
    }

    /// Appends type and content of a reaction, an edit, an answer in a thread or a message, by a `kind` from 5 to 99.
    fn write_message(&self, index: u64, kind: u64, dice: &mut Dice, out: &mut String) {
        match kind {
            5..8 => {
                let target = self.event_id(index - 1 - dice.below(index.min(30)));
                let _ = write!(
                    out,
                    r#"m.reaction","content":{{"m.relates_to":{{"rel_type":"m.annotation","event_id":"{target}","key":"👍"}}}}"#
                );
            }
            8..9 => {
                let target = self.event_id(index - 1 - dice.below(index.min(30)));
                let mut text = String::new();
                self.text(dice, &mut text);
                let _ = write!(
                    out,
                    r#"m.room.message","content":{{"msgtype":"m.text","body":"* {text}","m.new_content":{{"msgtype":"m.text","body":"{text}"}},"m.relates_to":{{"rel_type":"m.replace","event_id":"{target}"}}}}"#
                );
            }
            9..11 => {
                let target = self.event_id(index - 1 - dice.below(index.min(300)));
                let mut text = String::new();
                self.text(dice, &mut text);
                let _ = write!(
                    out,
                    r#"m.room.message","content":{{"msgtype":"m.text","body":"{text}","m.relates_to":{{"rel_type":"m.thread","event_id":"{target}","is_falling_back":true,"m.in_reply_to":{{"event_id":"{target}"}}}}}}"#
                );
            }
            kind => {
                out.push_str(r#"m.room.message","content":{"msgtype":"m.text","body":""#);
                let start = out.len();
                self.text(dice, out);
                if kind < 40 {
                    let text = out[start..].to_owned();
                    let _ = write!(
                        out,
                        r#"","format":"org.matrix.custom.html","formatted_body":"<p>{text} <em>{}</em></p>"#,
                        WORDS[usize::try_from(kind % 32).unwrap_or_default()]
                    );
                }
                out.push_str(r#"","m.mentions":{}}"#);
            }
        }
    }

    fn text(&self, dice: &mut Dice, out: &mut String) {
        let start = out.len();
        let words = 4 + dice.below(24);
        for word in 0..words {
            if word > 0 {
                out.push(' ');
            }
            out.push_str(WORDS[usize::try_from(dice.below(32)).unwrap_or_default()]);
        }
        while out.len() - start < self.body_bytes {
            out.push_str(" and so on, at great length, as nobody should write into a chat room");
        }
    }

    fn beginning(&self, index: u64, state_key: &mut Option<String>) -> String {
        let creator = Self::user(0);
        match index {
            0 => format!(r#"m.room.create","content":{{"room_version":"10","creator":"{creator}"}}"#),
            1 => {
                *state_key = Some(creator);
                r#"m.room.member","content":{"membership":"join","displayname":"Creator"}"#.to_owned()
            }
            2 => format!(
                r#"m.room.power_levels","content":{{"users":{{"{creator}":100}},"users_default":0,"ban":50,"redact":50}}"#
            ),
            3 => r#"m.room.join_rules","content":{"join_rule":"public"}"#.to_owned(),
            _ => format!(r#"m.room.name","content":{{"name":"Replayed room {}"}}"#, self.number),
        }
    }

    /// The state that a bootstrap reports: that of the room's beginning, and who has joined then.
    pub(crate) fn state(&self) -> String {
        let mut state = String::from("[");
        for index in 0..(BEGINNING + self.members).min(self.events) {
            if index > 0 {
                state.push(',');
            }
            self.write_event(index, &mut state);
        }
        state.push(']');
        state
    }
}
