//! The archive by itself: whether each row fits its hash, and whether the tables agree with each other.

use futures_util::TryStreamExt as _;
use serde_json::{Number, Value};

use super::Finding;
use crate::{
    archive::{Archive, Error},
    matrix::{
        self,
        json::{Json, Text},
        redact,
        stable_hash::{self, Columns},
    },
};

/// A row of `archive.events`.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) room_id: String,
    pub(crate) event_id: String,
    pub(crate) event_type: String,
    pub(crate) sender: String,
    pub(crate) state_key: Option<String>,
    pub(crate) origin_server_ts: Option<i64>,
    pub(crate) content: String,
    pub(crate) redacts: Option<String>,
    pub(crate) redacted_by: Option<String>,
    pub(crate) relates_to: Option<String>,
    pub(crate) rel_type: Option<String>,
    pub(crate) raw: Option<Vec<u8>>,
    pub(crate) stable_sha256: Vec<u8>,
    pub(crate) room_version: Option<String>,
}

impl Archive {
    /// What contradicts itself in these rooms; see `archive.inconsistencies`. `found` gets each with its room.
    pub(crate) async fn find_inconsistencies(
        &self,
        room_ids: Option<&[String]>,
        mut found: impl FnMut(&str, Finding),
    ) -> Result<(), Error> {
        let mut rows = sqlx::query!(
            r#"select room_id as "room_id!", kind as "kind!", event_id, detail from archive.inconsistencies($1)"#,
            room_ids
        )
        .fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            found(&row.room_id, Finding { kind: row.kind, event_id: row.event_id, detail: row.detail });
        }
        Ok(())
    }

    /// A time as PostgreSQL reads it, in milliseconds since 1970.
    pub(crate) async fn milliseconds(&self, time: Option<&str>) -> Result<Option<i64>, Error> {
        let time =
            sqlx::query_scalar!("select (extract(epoch from $1::text::timestamptz) * 1000)::bigint", time);
        Ok(time.fetch_one(&self.pool).await?)
    }

    /// Compares each event of these rooms with its hash, and its columns with its content. `checked` gets each room
    /// and, if something is wrong with the event, what. `since`: only events that were sent then or later, in milliseconds
    /// since 1970.
    pub(crate) async fn check_events(
        &self,
        room_ids: Option<&[String]>,
        since: Option<i64>,
        mut checked: impl FnMut(&str, Option<Finding>),
    ) -> Result<(), Error> {
        let mut rows = sqlx::query_as!(
            Row,
            r#"select e.room_id as "room_id!", e.event_id as "event_id!", e.type as "event_type!",
                      e.sender as "sender!", e.state_key, e.origin_server_ts,
                      e.content::text as "content!", e.redacts, e.redacted_by, e.relates_to, e.rel_type, e.raw,
                      e.stable_sha256 as "stable_sha256!", r.room_version as "room_version?"
               from archive.events e
               left join archive.rooms r on r.room_id = e.room_id
               where ($1::text[] is null or e.room_id = any($1))
                 and ($2::bigint is null or e.origin_server_ts >= $2 or e.origin_server_ts is null)"#,
            room_ids,
            since
        )
        .fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            let kind = row.wrong();
            checked(&row.room_id, kind.map(|kind| Finding::new(kind, &row.event_id, None)));
        }
        Ok(())
    }
}

impl Row {
    /// What is wrong with the row.
    pub(crate) fn wrong(&self) -> Option<&'static str> {
        if let Some(raw) = &self.raw {
            return self.wrong_with_raw(raw);
        }
        let content = Json::parse(&self.content);
        let (relates_to, rel_type) = matrix::relation(&content);
        if (relates_to, rel_type) != (self.relates_to.clone(), self.rel_type.clone())
            && !self.may_keep_relation()
        {
            return Some("relation differs from the content");
        }
        if self.redacted_by.is_some() && self.event_type != "m.room.create" && !self.is_pruned() {
            return Some("redacted content is still there");
        }
        if self.fits_hash(content) { None } else { Some("hash does not fit the event") }
    }

    /// Of a redaction that was itself redacted, or that was erased, the archive still knows the target, but the event
    /// does not name it.
    fn fits_hash(&self, content: Json<'_>) -> bool {
        let redacts = self.redacts.as_deref();
        self.is_hash_of(redacts, content.clone())
            || (redacts.is_some() && self.is_hash_of(None, content))
            || self.redacted_hash_fits()
    }

    /// Whether the stored hash is that of the columns with this target and this content.
    fn is_hash_of(&self, redacts: Option<&str>, content: Json<'_>) -> bool {
        let columns = Columns {
            event_id: &self.event_id,
            origin_server_ts: self.origin_server_ts,
            sender: &self.sender,
            state_key: self.state_key.as_deref(),
            event_type: &self.event_type,
            redacts,
        };
        stable_hash::of_columns(&self.room_id, &columns, content)[..] == self.stable_sha256
    }

    /// The hash of a pruned event is computed from its content as other programs write it: 1.50 as 1.5.
    fn redacted_hash_fits(&self) -> bool {
        let Ok(content) = serde_json::from_str::<Value>(&self.content) else { return false };
        self.is_hash_of(None, Json::parse(&content.to_string()))
    }

    /// An edit that was redacted with its message, or whose sender was erased, keeps its relation.
    fn may_keep_relation(&self) -> bool {
        self.redacted_by.is_some() || (self.rel_type.as_deref() == Some("m.replace") && self.is_pruned())
    }

    fn is_pruned(&self) -> bool {
        if !redact::knows(self.room_version.as_deref()) {
            // The server's own pruned copy may have kept something.
            return true;
        }
        let pruned = redact::content(self.room_version.as_deref(), &self.event_type, &self.content);
        canonical(&pruned) == canonical(&self.content)
    }

    /// The exact bytes were kept, and the columns are a readable copy.
    fn wrong_with_raw(&self, raw: &[u8]) -> Option<&'static str> {
        let unreadable = Some("the exact bytes are no event");
        let Ok(raw) = serde_json::from_slice::<Box<serde_json::value::RawValue>>(raw) else {
            return unreadable;
        };
        let Ok(event) = matrix::parse_event(&self.room_id, &raw) else { return unreadable };
        if event.stable_sha256[..] != self.stable_sha256 {
            return Some("hash does not fit the event");
        }
        let uncommon = event.uncommon();
        let is_copy = event.event_id == self.event_id
            && event.event_type == self.event_type
            && event.sender == self.sender
            && event.state_key == self.state_key
            && event.origin_server_ts == self.origin_server_ts
            && (self.redacted_by.is_some()
                || (&uncommon.relates_to, &uncommon.rel_type) == (&self.relates_to, &self.rel_type))
            && is_same_jsonb(&event.content, &self.content);
        (!is_copy).then_some("readable copy differs from the exact bytes")
    }
}

/// The most digits of a `numeric` before and after the point (PostgreSQL manual, "Numeric Types").
const MOST_DIGITS: [usize; 2] = [131_072, 16_383];

/// Whether PostgreSQL can store a JSON value, such as one that it has written itself, as `jsonb` without a change.
pub(crate) fn is_storable(json: &Json<'_>) -> bool {
    let is_kept = |text: &Text<'_>| text.as_str().is_some_and(|text| !text.contains('\0'));
    match json {
        Json::Object(members) => members.iter().all(|(name, value)| is_kept(name) && is_storable(value)),
        Json::Array(items) => items.iter().all(is_storable),
        Json::String(text) => is_kept(text),
        Json::Number(token) => {
            let (whole, fraction) = token.split_once('.').unwrap_or((token, ""));
            let digits = [whole.trim_start_matches('-').len(), fraction.len()];
            digits <= MOST_DIGITS && digits[1] <= MOST_DIGITS[1] && !token.contains(['e', 'E'])
        }
        Json::Literal(_) => true,
        Json::Deep(_) => false,
    }
}

fn canonical(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    Json::parse(json).write_canonical(&mut text);
    text
}

/// Whether `jsonb` makes the same of both: of equal names the last counts, and numbers are compared by their value.
fn is_same_jsonb(one: &str, other: &str) -> bool {
    match (serde_json::from_str(one), serde_json::from_str(other)) {
        (Ok(one), Ok(other)) => is_same(&one, &other),
        (one, other) => one.is_err() && other.is_err(),
    }
}

fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, one)| other.get(name).is_some_and(|other| is_same(one, other)))
        }
        (Value::Number(one), Value::Number(other)) => {
            // PostgreSQL writes 1E+2 as 100, and -0 as 0.
            one == other || (is_short(one) && is_short(other) && one.as_f64() == other.as_f64())
        }
        _ => one == other,
    }
}

/// Whether a floating-point number has all digits of a number.
fn is_short(number: &Number) -> bool {
    number.as_f64().is_some_and(|value| value.abs() < 9_007_199_254_740_992.0)
}
