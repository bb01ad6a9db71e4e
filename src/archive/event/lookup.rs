//! Looks up which events of a response are stored already, before it is stored.

use foldhash::{HashMap, HashMapExt as _, HashSet};
use sqlx::PgConnection;

use crate::{
    archive::{
        Error, Walk, WalkKind,
        timeline::position::{Below, Place},
    },
    matrix::{Event, Uncommon, redact},
};

/// For more than this many events, all waiting redactions of a room are read, instead of looking them up by their
/// targets.
const MANY: usize = 500;
/// Unless there are more waiting redactions than this.
const FEW_WAITING: usize = 2000;

/// A stored event.
#[derive(Clone, Debug)]
pub(in crate::archive) struct Known {
    pub(in crate::archive) position: Option<i64>,
    pub(in crate::archive) has_prev_content: bool,
    pub(in crate::archive) stable_sha256: Vec<u8>,
}

/// Stored events by id.
pub(in crate::archive) type KnownEvents = HashMap<String, Known>;

/// Known redactions of some events: target → redaction.
pub(in crate::archive) type Redactions = HashMap<String, String>;

/// The result of a look-up.
#[derive(Debug, Default)]
pub(in crate::archive) struct Lookup {
    /// The stored ones among the events and the targets of redactions among the events.
    pub(in crate::archive) known: KnownEvents,
    /// The recorded redactions of the events, and of the events that they edit or whose content they repeat. It may
    /// contain others.
    pub(in crate::archive) redactions: Redactions,
    /// Messages of which an edit is stored, but not the message itself. It may contain others.
    pub(in crate::archive) waiting_edits: HashSet<String>,
    /// The neighbour below the requested position.
    pub(in crate::archive) below: Option<Below>,
}

impl Lookup {
    /// Records that `events` are stored now, without positions.
    pub(in crate::archive) fn note_unplaced(&mut self, events: &[&Event]) {
        for event in events {
            let stored = self.known.entry(event.event_id.clone()).or_insert_with(|| Known {
                position: None,
                has_prev_content: false,
                stable_sha256: event.stable_sha256.to_vec(),
            });
            stored.has_prev_content |= event.prev_content.is_some();
        }
    }
}

/// Which events of a page are looked up before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::archive) enum LookupScope {
    All,
    /// All events. Most are expected just below `upper`, where an earlier walk has placed them.
    NearPosition,
    /// Only state events and the targets of redactions. A first walk meets only new events, except state that the
    /// bootstrap or `/sync` has reported. If another event is stored after all, the table's key refuses it.
    State,
}

impl LookupScope {
    /// The scope that is probably sufficient for the next page of `walk`.
    pub(in crate::archive) fn before(walk: &Walk) -> Self {
        match walk.kind {
            WalkKind::GapKnown | WalkKind::GapRecheck | WalkKind::Rewalk | WalkKind::Operator => {
                Self::NearPosition
            }
            WalkKind::History | WalkKind::GapSince | WalkKind::GapWhole if walk.is_fresh() => Self::State,
            WalkKind::History | WalkKind::GapSince | WalkKind::GapWhole => Self::All,
        }
    }

    fn includes(self, event: &Event) -> bool {
        self != Self::State || event.state_key.is_some() || event.event_type == "m.room.redaction"
    }
}

/// Looks up `events`, which must be [distinct](crate::archive::event::row::distinct), and the neighbour below
/// `upper`, in one round trip. The transaction must hold the room's lock.
pub(in crate::archive) async fn look_up(
    connection: &mut PgConnection,
    room_id: &str,
    events: &[&Event],
    which: LookupScope,
    upper: Option<i64>,
) -> Result<Lookup, Error> {
    if events.is_empty() {
        return Ok(Lookup::default());
    }
    let is_many = events.len() > MANY;
    let ids = || events.iter().map(|event| event.event_id.as_str());
    let originals = events.iter().filter_map(|event| redact::edited(event));
    let replaced = events.iter().filter_map(|event| event.replaced());
    let included = events.iter().filter(|event| which.includes(event));
    let asked = Asked {
        events: included.flat_map(|event| concerned(event)).collect(),
        unstored: replaced.chain(originals).chain(ids().filter(|_| !is_many)).collect(),
        most_waiting: if is_many { FEW_WAITING } else { 0 },
        most_near: if which == LookupScope::NearPosition { events.len() } else { 0 },
    };
    let row = look_up_row(&mut *connection, room_id, &asked, upper).await?;
    let mut redactions: Redactions = row.waiting_targets.into_iter().zip(row.waiting_redactions).collect();
    if is_many && redactions.len() >= FEW_WAITING {
        let ids: Vec<&str> = ids().collect();
        redactions = recorded(connection, room_id, &ids).await?;
    }
    redactions.extend(row.targets.into_iter().zip(row.redactions));
    let mut known = KnownEvents::with_capacity(row.event_ids.len());
    let stored = row.event_ids.into_iter().zip(row.positions).zip(row.have_prev_content);
    for (((event_id, position), has_prev_content), (stable_sha256, redaction)) in
        stored.zip(row.stable_sha256.into_iter().zip(row.known_redactions))
    {
        redactions.extend(redaction.map(|redaction| (event_id.clone(), redaction)));
        known.insert(event_id, Known { position, has_prev_content, stable_sha256 });
    }
    let below = upper.map(|upper| Below { upper, position: row.below });
    let mut waiting_edits: HashSet<String> = row.waiting_edits.into_iter().collect();
    if waiting_edits.len() >= FEW_WAITING {
        waiting_edits = edited_among(connection, room_id, &ids().collect::<Vec<_>>()).await?;
    }
    Ok(Lookup { known, redactions, waiting_edits, below })
}

/// Those of these messages for which an edit waits.
async fn edited_among(
    connection: &mut PgConnection,
    room_id: &str,
    event_ids: &[&str],
) -> Result<HashSet<String>, Error> {
    let edited = sqlx::query_scalar!(
        "select message_id from archive.waiting_edits where room_id = $1 and message_id = any($2)",
        room_id,
        event_ids as &[&str]
    );
    Ok(edited.fetch_all(connection).await?.into_iter().collect())
}

/// What is looked up about the events of a page.
struct Asked<'e> {
    /// Ids of events that may be stored.
    events: Vec<&'e str>,
    /// Ids of events of which only the redactions are needed.
    unstored: Vec<&'e str>,
    /// How many of the room's waiting redactions are read at most.
    most_waiting: usize,
    /// How many events are read below the position at most.
    most_near: usize,
}

/// The result: arrays of the stored events, of redactions of events that are not stored, and of waiting redactions.
struct LookupRow {
    event_ids: Vec<String>,
    positions: Vec<Option<i64>>,
    have_prev_content: Vec<bool>,
    stable_sha256: Vec<Vec<u8>>,
    known_redactions: Vec<Option<String>>,
    targets: Vec<String>,
    redactions: Vec<String>,
    waiting_targets: Vec<String>,
    waiting_redactions: Vec<String>,
    waiting_edits: Vec<String>,
    below: Option<i64>,
}

/// Lateral with a limit: one look-up in the primary key for each id, whatever the statistics are. With `= any($2)`, in
/// a room without statistics, PostgreSQL reads the whole room and compares each event with each id. Events near `upper`
/// are read by position at a third of the cost. `not in` makes PostgreSQL combine both with a hash, whatever the
/// statistics are. The result has arrays, which cost a tenth of as many rows. An event with `redacted_by` was redacted
/// in the transaction that stored the later of the two. Of several redactions the first counts. Waiting ones are
/// ordered so that the first comes last.
async fn look_up_row(
    connection: &mut PgConnection,
    room_id: &str,
    asked: &Asked<'_>,
    upper: Option<i64>,
) -> Result<LookupRow, Error> {
    let row = sqlx::query_as!(
        LookupRow,
        r#"with near as materialized (
               select e.event_id, e.position, e.prev_content is not null as has_prev_content, e.stable_sha256, e.redacted_by
               from archive.events e
               where e.room_id = $1 and e.position < $5
               order by e.position desc
               limit $6
           )
           select known.event_ids as "event_ids!", known.positions as "positions!: Vec<Option<i64>>",
                  known.have_prev_content as "have_prev_content!", known.stable_sha256 as "stable_sha256!",
                  known.redactions as "known_redactions!: Vec<Option<String>>",
                  unstored.targets as "targets!", unstored.redactions as "redactions!",
                  waiting.targets as "waiting_targets!", waiting.redactions as "waiting_redactions!",
                  array(select w.message_id from archive.waiting_edits w where w.room_id = $1 limit $7) as "waiting_edits!",
                  (select e.position from archive.events e
                   where e.room_id = $1 and e.position < $5
                   order by e.position desc limit 1) as below
           from (
               select coalesce(array_agg(stored.event_id), '{}') as event_ids,
                      coalesce(array_agg(stored.position), '{}') as positions,
                      coalesce(array_agg(stored.has_prev_content), '{}') as have_prev_content,
                      coalesce(array_agg(stored.stable_sha256), '{}') as stable_sha256,
                      coalesce(array_agg(case when stored.redacted_by is not null then
                          (select r.redaction_event_id from archive.redactions r
                           where r.room_id = $1 and r.target_event_id = stored.event_id and r.state <> 'refused'
                           order by r.recorded_at, r.redaction_event_id limit 1)
                      end), '{}') as redactions
               from (
                   select * from near where event_id = any($2)
                   union all
                   select elsewhere.*
                   from unnest($2::text[]) as asked (event_id)
                   cross join lateral (
                       select e.event_id, e.position, e.prev_content is not null, e.stable_sha256, e.redacted_by
                       from archive.events e
                       where e.room_id = $1 and e.event_id = asked.event_id
                       limit 1
                   ) as elsewhere
                   where asked.event_id not in (select event_id from near)
               ) as stored
           ) as known
           cross join (
               select coalesce(array_agg(link.target_event_id), '{}') as targets,
                      coalesce(array_agg(link.redaction_event_id), '{}') as redactions
               from unnest($3::text[]) as asked (event_id)
               cross join lateral (
                   select r.target_event_id, r.redaction_event_id from archive.redactions r
                   where r.room_id = $1 and r.target_event_id = asked.event_id and r.state <> 'refused'
                   order by r.recorded_at, r.redaction_event_id
                   limit 1
               ) as link
           ) as unstored
           cross join (
               select coalesce(array_agg(few.target_event_id), '{}') as targets,
                      coalesce(array_agg(few.redaction_event_id), '{}') as redactions
               from (
                   select target_event_id, redaction_event_id from archive.redactions
                   where room_id = $1 and state = 'pending'
                   order by recorded_at desc, redaction_event_id desc
                   limit $4
               ) as few
           ) as waiting"#,
        room_id,
        &asked.events as &[&str],
        &asked.unstored as &[&str],
        i64::try_from(asked.most_waiting).unwrap_or(i64::MAX),
        upper,
        i64::try_from(asked.most_near).unwrap_or(i64::MAX),
        i64::try_from(FEW_WAITING).unwrap_or(i64::MAX)
    );
    Ok(row.fetch_one(connection).await?)
}

/// Looks up all events of several rooms in a response, as [`look_up`] does for one room. The transaction must hold
/// the rooms' locks.
pub(in crate::archive) async fn look_up_rooms<'e>(
    connection: &mut PgConnection,
    events: impl Iterator<Item = (&'e str, &'e Event)>,
) -> Result<HashMap<String, Lookup>, Error> {
    let (mut room_ids, mut event_ids) = (Vec::new(), Vec::new());
    let (mut stored_rooms, mut stored_events) = (Vec::new(), Vec::new());
    for (room_id, event) in events {
        let concerned = concerned(event).map(|event_id| (event_id, true));
        let originals = event.replaced().into_iter().chain(redact::edited(event));
        for (event_id, may_be_stored) in concerned.chain(originals.map(|event_id| (event_id, false))) {
            room_ids.push(room_id);
            event_ids.push(event_id);
            if may_be_stored {
                stored_rooms.push(room_id);
                stored_events.push(event_id);
            }
        }
    }
    let mut found: HashMap<String, Lookup> = HashMap::new();
    if room_ids.is_empty() {
        return Ok(found);
    }
    let stored = sqlx::query!(
        r#"select room_id as "room_id!", event_id as "event_id!", position,
                  has_prev_content as "has_prev_content!", stable_sha256 as "stable_sha256!"
           from archive.stored_of($1, $2)"#,
        &stored_rooms as &[&str],
        &stored_events as &[&str]
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in stored {
        let Lookup { known, .. } = found.entry(row.room_id).or_default();
        let (position, has_prev_content) = (row.position, row.has_prev_content);
        known.insert(row.event_id, Known { position, has_prev_content, stable_sha256: row.stable_sha256 });
    }
    let redactions = sqlx::query!(
        r#"select room_id as "room_id!", target_event_id as "target_event_id!",
                  redaction_event_id as "redaction_event_id!"
           from archive.redactions_of($1, $2)"#,
        &room_ids as &[&str],
        &event_ids as &[&str]
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in redactions {
        let Lookup { redactions, .. } = found.entry(row.room_id).or_default();
        redactions.insert(row.target_event_id, row.redaction_event_id);
    }
    let edited = sqlx::query!(
        r#"select room_id as "room_id!", event_id as "event_id!" from archive.awaited_of($1, $2)"#,
        &room_ids as &[&str],
        &event_ids as &[&str]
    )
    .fetch_all(connection)
    .await?;
    for row in edited {
        found.entry(row.room_id).or_default().waiting_edits.insert(row.event_id);
    }
    Ok(found)
}

/// An event's id and, if it is a redaction, the ids of its target from both places that may name it.
fn concerned(event: &Event) -> impl Iterator<Item = &str> {
    let Uncommon { redacts, content_redacts, .. } = event.uncommon();
    let targets = [redacts.as_deref(), content_redacts.as_deref()];
    let is_redaction = event.event_type == "m.room.redaction";
    let targets = targets.into_iter().flatten().filter(move |_| is_redaction);
    std::iter::once(event.event_id.as_str()).chain(targets)
}

/// The places of `events` as a walk sees them.
pub(in crate::archive) fn places(events: &[&Event], known: &KnownEvents) -> Vec<Place> {
    let position = |event: &Event| known.get(&event.event_id).and_then(|known| known.position);
    events.iter().map(|event| position(event).map_or(Place::Unplaced, Place::At)).collect()
}

/// The recorded redactions of these events. Of several the first counts.
pub(in crate::archive) async fn recorded(
    connection: &mut PgConnection,
    room_id: &str,
    event_ids: &[&str],
) -> Result<Redactions, Error> {
    if event_ids.is_empty() {
        return Ok(Redactions::new());
    }
    // Lateral with a limit, for the same reason as in `lookup::look_up`.
    let links = sqlx::query!(
        "select link.target_event_id, link.redaction_event_id
         from unnest($2::text[]) as asked (event_id)
         cross join lateral (
             select r.target_event_id, r.redaction_event_id
             from archive.redactions r
             where r.room_id = $1 and r.target_event_id = asked.event_id and r.state <> 'refused'
             order by r.recorded_at, r.redaction_event_id
             limit 1
         ) as link",
        room_id,
        event_ids as &[&str]
    )
    .fetch_all(connection)
    .await?;
    Ok(links.into_iter().map(|link| (link.target_event_id, link.redaction_event_id)).collect())
}
