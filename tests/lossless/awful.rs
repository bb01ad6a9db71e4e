//! Events that no server should send.

use crate::support::homeserver::{ALICE, Json};

/// Where an event must end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Event,
    Quarantine,
}

/// An event, and what is awful about it.
pub(crate) struct Awful {
    pub(crate) what: String,
    pub(crate) id: String,
    pub(crate) json: String,
    pub(crate) fate: Fate,
}

/// An event's members, to be spoilt; the last of a name counts.
struct Members(Vec<(&'static str, String)>);

impl Members {
    fn new(id: &str) -> Self {
        let quoted = |text: &str| Json::of(text).write();
        Self(vec![
            ("type", quoted("m.room.message")),
            ("sender", quoted(ALICE)),
            ("event_id", quoted(id)),
            ("origin_server_ts", "1700000000000".to_owned()),
            ("content", r#"{"msgtype":"m.text","body":"plain"}"#.to_owned()),
        ])
    }

    fn with(mut self, name: &'static str, json: impl Into<String>) -> Self {
        let json = json.into();
        match self.0.iter_mut().find(|(other, _)| *other == name) {
            Some((_, value)) => *value = json,
            None => self.0.push((name, json)),
        }
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.0.retain(|(other, _)| *other != name);
        self
    }

    fn twice(mut self, name: &'static str, json: &str) -> Self {
        self.0.push((name, json.to_owned()));
        self
    }

    fn json(&self) -> String {
        let members: Vec<_> = self.0.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    }
}

fn text(text: &str) -> String {
    Json::of(text).write()
}

/// Letters that PostgreSQL cannot compress: an index entry takes only short text.
fn random_letters(count: usize) -> String {
    let mut random = fastrand::Rng::with_seed(7);
    (0..count).map(|_| random.alphanumeric()).collect()
}

fn nested(depth: usize) -> String {
    format!(r#"{{"deep":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1))
}

type Spoil = Box<dyn Fn(Members) -> Members>;

/// Content, by what is awful about it.
fn contents() -> Vec<(&'static str, String)> {
    let body = |body: &str| format!(r#"{{"msgtype":"m.text","body":"{body}"}}"#);
    let number = |token: &str| format!(r#"{{"body":"number","n":{token}}}"#);
    let relation = |relation: &str| format!(r#"{{"body":"related","m.relates_to":{relation}}}"#);
    vec![
        ("NUL in a body", body(r"a\u0000b")),
        ("nothing but NUL", body(r"\u0000")),
        ("an escaped backslash before u0000", body(r"a\\u0000b")),
        ("NUL in a key", r#"{"body":"x","k\u0000y":1}"#.to_owned()),
        ("NUL in a key deep down", r#"{"body":"x","a":[{"b":{"k\u0000y":"\u0000"}}]}"#.to_owned()),
        ("a lone high surrogate", body(r"a\ud800b")),
        ("a lone low surrogate", body(r"a\udfffb")),
        ("surrogates the wrong way round", body(r"\udc00\ud800")),
        ("a lone surrogate in a key", r#"{"body":"x","\ud800":1}"#.to_owned()),
        ("a pair of surrogates", body(r"\ud83d\ude00")),
        ("control characters", body(r"\u0001\u001b[31m\u007f\u0085\r\n\t\b\f")),
        ("U+202E", body("abc\u{202e}cba")),
        ("U+F8FE, which escapes", body("a\u{f8fe}0b\u{f8fe}")),
        ("a noncharacter", body("\u{ffff}\u{10ffff}\u{fffd}")),
        ("an escaped slash and letter", body(r"\/\u0041")),
        ("-0", number("-0")),
        ("-0.0", number("-0.0")),
        ("0.0", number("0.0")),
        ("1.50", number("1.50")),
        ("1e20", number("1e20")),
        ("1E+2", number("1E+2")),
        ("1e-7", number("1e-7")),
        ("1e400", number("1e400")),
        ("-1e400", number("-1e400")),
        ("1e130000", number("1e130000")),
        ("1e200000", number("1e200000")),
        ("1e-200000", number("1e-200000")),
        ("1e99999999999999999999", number("1e99999999999999999999")),
        ("thirty digits", number("123456789012345678901234567890")),
        ("minus thirty digits", number("-123456789012345678901234567890")),
        ("thirty digits and a fraction", number("123456789012345678901234567890.1234567890")),
        ("five thousand digits", number(&"7".repeat(5000))),
        ("twenty thousand decimals", number(&format!("0.{}", "3".repeat(20_000)))),
        ("2^53 + 1", number("9007199254740993")),
        ("2^64", number("18446744073709551616")),
        ("a duplicate key", r#"{"body":"first","body":"second"}"#.to_owned()),
        ("a duplicate key deep down", r#"{"body":"x","a":{"b":1,"b":{"c":2}}}"#.to_owned()),
        ("a duplicate key by escapes", r#"{"body":"x","a":1,"\u0061":2}"#.to_owned()),
        ("an empty key", r#"{"body":"x","":0}"#.to_owned()),
        ("depth 99", nested(99)),
        ("depth 100", nested(100)),
        ("depth 101", nested(101)),
        ("depth 127", nested(127)),
        ("depth 128", nested(128)),
        ("depth 5000", nested(5000)),
        ("a body that is a number", r#"{"msgtype":7,"body":8}"#.to_owned()),
        ("a body that is an object", r#"{"msgtype":"m.text","body":{"a":[]}}"#.to_owned()),
        ("content that is a string", r#""text""#.to_owned()),
        ("content that is an array", "[1,2]".to_owned()),
        ("content that is null", "null".to_owned()),
        ("content that is a number", "1e400".to_owned()),
        ("relates_to that is a string", relation(r#""$x""#)),
        ("relates_to that is an array", relation(r#"["$x"]"#)),
        ("relates_to that is null", relation("null")),
        ("relates_to with mistyped members", relation(r#"{"event_id":7,"rel_type":{},"key":[]}"#)),
        (
            "relates_to an enormous event id",
            relation(&format!(r#"{{"event_id":"${}","rel_type":"m.replace"}}"#, "x".repeat(10_000))),
        ),
        (
            "an enormous rel_type",
            relation(&format!(r#"{{"event_id":"$x","rel_type":"{}"}}"#, "m".repeat(10_000))),
        ),
        ("NUL in a relation", relation(r#"{"event_id":"$\u0000","rel_type":"m.\u0000"}"#)),
        (
            "an edit with mistyped new content",
            r#"{"body":"x","m.new_content":7,"m.relates_to":{"rel_type":"m.replace","event_id":"$x"}}"#
                .to_owned(),
        ),
        ("spaces", "{ \"body\" :\t\"x\" ,\n\"a\" : [ 1 , 2 ] }".to_owned()),
    ]
}

fn spoil(change: impl Fn(Members) -> Members + 'static) -> Spoil {
    Box::new(change)
}

fn with(name: &'static str, json: &str) -> Spoil {
    let json = json.to_owned();
    spoil(move |members| members.with(name, json.clone()))
}

fn without(name: &'static str) -> Spoil {
    spoil(move |members| members.without(name))
}

/// Ids that are too long for an index of the database.
fn long_ids() -> Vec<(&'static str, Fate, Spoil)> {
    use Fate::Quarantine;
    vec![
        (
            "an event id of 10,000 random letters",
            Quarantine,
            with("event_id", &text(&random_letters(10_000))),
        ),
        (
            "a long id within what cannot be an event",
            Quarantine,
            with("type", &format!(r#"{{"event_id":"${}"}}"#, random_letters(10_000))),
        ),
    ]
}

/// Other members, by what is awful about them.
fn members() -> Vec<(&'static str, Fate, Spoil)> {
    use Fate::{Event, Quarantine};
    vec![
        ("no content", Event, without("content")),
        ("no time", Event, without("origin_server_ts")),
        ("a negative time", Event, with("origin_server_ts", "-1")),
        ("the least time", Event, with("origin_server_ts", "-9223372036854775808")),
        ("2^53 - 1 as time", Event, with("origin_server_ts", "9007199254740991")),
        ("2^63 - 1 as time", Event, with("origin_server_ts", "9223372036854775807")),
        ("2^63 as time", Event, with("origin_server_ts", "9223372036854775808")),
        ("a whole float as time", Event, with("origin_server_ts", "1700000000000.0")),
        ("a fraction as time", Event, with("origin_server_ts", "1.5")),
        ("-0 as time", Event, with("origin_server_ts", "-0")),
        ("1e400 as time", Event, with("origin_server_ts", "1e400")),
        ("a string as time", Event, with("origin_server_ts", r#""1700000000000""#)),
        ("null as time", Event, with("origin_server_ts", "null")),
        ("an object as time", Event, with("origin_server_ts", "{}")),
        ("no sender", Quarantine, without("sender")),
        ("a sender that is a number", Quarantine, with("sender", "7")),
        ("a sender that is null", Quarantine, with("sender", "null")),
        ("an empty sender", Event, with("sender", r#""""#)),
        ("a historical sender", Event, with("sender", &text("@A b/É#?:model.test"))),
        ("NUL in a sender", Event, with("sender", r#""@a\u0000:model.test""#)),
        ("no type", Quarantine, without("type")),
        ("a type that is an array", Quarantine, with("type", "[]")),
        ("an empty type", Event, with("type", r#""""#)),
        ("a space as type", Event, with("type", r#"" ""#)),
        ("NUL in a type", Event, with("type", r#""a\u0000b""#)),
        ("a lone surrogate in a type", Event, with("type", r#""a\ud800b""#)),
        ("a type with separators", Event, with("type", &text("com.example/slash?x#y é"))),
        ("a type of 1020 bytes", Event, with("type", &text(&"😀".repeat(255)))),
        ("a type of 10,000 bytes", Quarantine, with("type", &text(&"t".repeat(10_000)))),
        ("an empty state key", Event, with("state_key", r#""""#)),
        ("NUL in a state key", Event, with("state_key", r#""a\u0000""#)),
        ("a state key of 255 emoji", Event, with("state_key", &text(&"😀".repeat(255)))),
        ("a state key of 10,000 characters", Quarantine, with("state_key", &text(&"k".repeat(10_000)))),
        ("a state key that is null", Event, with("state_key", "null")),
        ("a state key that is a number", Quarantine, with("state_key", "1")),
        (
            "unknown members",
            Event,
            spoil(|members| {
                members.with("com.example", r#"{"a":1e400,"b":"\u0000"}"#).with("hashes", r#"{"sha256":"x"}"#)
            }),
        ),
        (
            "a top-level duplicate",
            Event,
            spoil(|members| members.twice("content", r#"{"body":"the last counts"}"#)),
        ),
        ("a duplicate sender", Event, spoil(|members| members.twice("sender", r#""@other:model.test""#))),
        ("redacts that is a number", Event, with("redacts", "7")),
        ("redacts in a message", Event, with("redacts", r#""$x""#)),
        ("unsigned that is a string", Event, with("unsigned", r#""x""#)),
        (
            "unsigned with mistyped members",
            Event,
            with(
                "unsigned",
                r#"{"age":"old","prev_content":7,"replaces_state":{},
                    "redacted_because":"x","redacted_by":9}"#,
            ),
        ),
        (
            "prev_content that jsonb cannot hold",
            Event,
            spoil(|members| {
                members.with("state_key", r#""awful""#).with(
                    "unsigned",
                    r#"{"replaces_state":"$gone","prev_content":{"a":"\u0000","b":1e400,"c":"\ud800"}}"#,
                )
            }),
        ),
        ("another room's id", Quarantine, with("room_id", r#""!another:model.test""#)),
        ("a room id that is a number", Quarantine, with("room_id", "7")),
        ("a redaction of nothing", Event, with("type", r#""m.room.redaction""#)),
        (
            "a redaction of an enormous id",
            Event,
            spoil(|members| {
                members
                    .with("type", r#""m.room.redaction""#)
                    .with("redacts", text(&format!("${}", "x".repeat(10_000))))
            }),
        ),
    ]
}

/// All of them, each with an id of its own; those about ids last.
pub(crate) fn events(room: &str) -> Vec<Awful> {
    let mut all = Vec::new();
    for (what, content) in contents() {
        let id = format!("$awful{}:model.test", all.len());
        let json = Members::new(&id).with("content", content).json();
        all.push(Awful { what: what.to_owned(), id, json, fate: Fate::Event });
    }
    for (what, fate, spoil) in members().into_iter().chain(long_ids()) {
        let id = format!("$awful{}:model.test", all.len());
        let json = spoil(Members::new(&id)).json();
        all.push(Awful { what: what.to_owned(), id, json, fate });
    }
    let own = Members::new("$own:model.test").with("room_id", text(room)).json();
    all.push(Awful {
        what: "its own room's id".to_owned(),
        id: "$own:model.test".to_owned(),
        json: own,
        fate: Fate::Event,
    });
    for (length, fate) in [
        (1, Fate::Event),
        (255, Fate::Event),
        (256, Fate::Quarantine),
        (10_000, Fate::Quarantine),
        (0, Fate::Quarantine),
    ] {
        let id = "$".repeat(length.min(1)) + &"i".repeat(length.saturating_sub(1));
        let json = Members::new(&id).with("content", format!(r#"{{"length":{length}}}"#)).json();
        all.push(Awful { what: format!("an id of {length} bytes"), id, json, fate });
    }
    for (what, id) in [("no id", "null"), ("an id that is an object", "{}")] {
        let json = Members::new("").with("event_id", id).json();
        all.push(Awful { what: what.to_owned(), id: what.to_owned(), json, fate: Fate::Quarantine });
    }
    // The archive's text for an id with NUL.
    let json = Members::new("").with("event_id", r#""$a\u0000b""#).json();
    all.push(Awful {
        what: "NUL in an id".to_owned(),
        id: "$a\u{f8fe}0b".to_owned(),
        json,
        fate: Fate::Event,
    });
    for (what, json) in
        [("a number for an event", "7"), ("null for an event", "null"), ("an array for an event", "[]")]
    {
        all.push(Awful {
            what: what.to_owned(),
            id: what.to_owned(),
            json: json.to_owned(),
            fate: Fate::Quarantine,
        });
    }
    all
}
