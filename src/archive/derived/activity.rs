//! Counts what each sender has sent in each room on each day.

use foldhash::HashMap;
use sqlx::PgConnection;

use crate::{
    archive::{Error, room::Room},
    matrix::{Event, json::Json},
};

/// The types of messages, as in `archive.is_message`.
const MESSAGES: &[&str] = &[
    "m.room.message",
    "m.room.encrypted",
    "m.sticker",
    "m.poll.start",
    "org.matrix.msc3381.poll.start",
    "m.poll.end",
    "org.matrix.msc3381.poll.end",
    "m.location",
    "org.matrix.msc3488.location",
];
/// The types that are no message, whatever their content.
const NO_MESSAGES: &[&str] = &[
    "m.reaction",
    "m.room.redaction",
    "m.poll.response",
    "org.matrix.msc3381.poll.response",
    "m.beacon",
    "org.matrix.msc3672.beacon",
];
/// The members of a content with a text, for types that a client does not know (MSC1767).
const TEXTS: &[&str] = &["m.text", "org.matrix.msc1767.text", "m.message", "org.matrix.msc1767.message"];
/// Those of them that were strings before they were arrays.
const STRINGS: &[&str] = &["m.text", "org.matrix.msc1767.text"];
/// The range of times that PostgreSQL can represent, as in `archive.sent_at`, in milliseconds since 1970.
const TIMES: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=9_007_199_254_740_991;
const DAY_MS: i64 = 86_400_000;

/// What an event is counted as. It must agree with `archive.activity_kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Message,
    Edit,
    Reaction,
}

impl Kind {
    fn of(event: &Event) -> Option<Self> {
        let uncommon = event.uncommon();
        if event.state_key.is_some() || uncommon.redacted_by.is_some() {
            return None;
        }
        let rel_type = uncommon.rel_type.as_deref().filter(|_| uncommon.relates_to.is_some());
        let event_type = event.event_type.as_str();
        match rel_type {
            Some("m.replace") => Some(Self::Edit),
            Some("m.annotation") if event_type == "m.reaction" => Some(Self::Reaction),
            _ if MESSAGES.contains(&event_type) => Some(Self::Message),
            _ if NO_MESSAGES.contains(&event_type) => None,
            _ => has_text(&event.content).then_some(Self::Message),
        }
    }
}

fn has_text(content: &str) -> bool {
    TEXTS.iter().any(|name| content.contains(name)) && {
        let content = Json::parse(content);
        TEXTS.iter().any(|name| match content.get(name) {
            Some(Json::Array(_)) => true,
            Some(Json::String(_)) => STRINGS.contains(name),
            _ => false,
        })
    }
}

/// The day of an event in UTC, counted from 1970, of its `origin_server_ts`. `None`: the time is unknown, or PostgreSQL
/// cannot represent it.
pub(in crate::archive) fn day_of(origin_server_ts: Option<i64>) -> Option<i64> {
    origin_server_ts.filter(|ts| TIMES.contains(ts)).map(|ts| ts.div_euclid(DAY_MS))
}

fn day(event: &Event) -> Option<i32> {
    day_of(event.origin_server_ts).and_then(|day| i32::try_from(day).ok())
}

/// A room, a day and a sender.
type Key = (String, Option<i32>, String);

/// Changes of the counts.
#[derive(Debug, Default)]
pub(super) struct Activity(HashMap<Key, [i32; 3]>);

impl Activity {
    pub(super) fn add(&mut self, room: &Room, event: &Event) {
        self.count(room, event, 1);
    }

    pub(super) fn subtract(&mut self, room: &Room, event: &Event) {
        self.count(room, event, -1);
    }

    fn count(&mut self, room: &Room, event: &Event, by: i32) {
        if let Some(kind) = Kind::of(event) {
            let key = (room.room_id.clone(), day(event), event.sender.clone());
            self.0.entry(key).or_default()[kind as usize] += by;
        }
    }

    pub(super) async fn write(self, connection: &mut PgConnection) -> Result<(), Error> {
        let mut changes: Vec<(Key, [i32; 3])> =
            self.0.into_iter().filter(|(_, counts)| *counts != [0; 3]).collect();
        if changes.is_empty() {
            return Ok(());
        }
        // In the order of the table's key, which is the order of its pages.
        changes.sort_unstable();
        let column =
            |kind: Kind| changes.iter().map(|(_, counts)| counts[kind as usize]).collect::<Vec<i32>>();
        let room_ids: Vec<&str> = changes.iter().map(|((room_id, ..), _)| room_id.as_str()).collect();
        let days: Vec<Option<i32>> = changes.iter().map(|((_, day, _), _)| *day).collect();
        let senders: Vec<&str> = changes.iter().map(|((.., sender), _)| sender.as_str()).collect();
        sqlx::query!(
            "with counted as (
                 insert into archive.activity as a (room_id, day, sender, messages, edits, reactions)
                 select c.room_id, coalesce(date '1970-01-01' + c.day, '-infinity'), c.sender, c.messages, c.edits, c.reactions
                 from unnest($1::text[], $2::int[], $3::text[], $4::int[], $5::int[], $6::int[])
                     as c (room_id, day, sender, messages, edits, reactions)
                 on conflict (room_id, day, sender) do update
                     set messages = a.messages + excluded.messages, edits = a.edits + excluded.edits,
                         reactions = a.reactions + excluded.reactions)
             update archive.rooms r set message_count = r.message_count + c.messages
             from (select room_id, sum(messages)::bigint as messages from unnest($1::text[], $4::int[]) as c (room_id, messages)
                   group by room_id having sum(messages) <> 0) c
             where r.room_id = c.room_id",
            &room_ids as &[&str],
            days.as_slice() as &[Option<i32>],
            &senders as &[&str],
            &column(Kind::Message),
            &column(Kind::Edit),
            &column(Kind::Reaction)
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Counts a sender's events in a room anew, after all of them have changed.
pub(in crate::archive) async fn recount(
    connection: &mut PgConnection,
    room_id: &str,
    sender: &str,
) -> Result<(), Error> {
    sqlx::query!("select archive.recount_activity($1, $2)", room_id, sender).execute(connection).await?;
    Ok(())
}
