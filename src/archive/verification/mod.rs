//! What `backscroll verify` reads in the archive. Nothing here changes an event, its state or a checkpoint; only
//! `verify --repair` [derives](Writer::derive_anew) anew what follows from the events, and records its results.

mod evidence;
mod offline;
mod record;
mod repair;
mod walked;

pub(in crate::archive) use self::repair::derive_anew;
pub(crate) use self::walked::{Extra, Listed, Running, StoredCopy, moved};
pub(crate) use self::{
    offline::{Row, is_storable},
    record::Recorded,
    repair::DERIVED,
};

#[expect(unused_imports, reason = "for the documentation")]
use super::Writer;
use super::{Archive, Error, room};

/// A room to verify.
#[derive(Clone, Debug)]
pub(crate) struct VerifiedRoom {
    pub(crate) room_id: String,
    /// The name that a client shows.
    pub(crate) name: Option<String>,
    pub(crate) room_version: Option<String>,
    /// Number of archived events.
    pub(crate) event_count: i64,
    /// `complete`, if the create event was reached; see `archive.rooms`.
    pub(crate) history_state: String,
    /// Gaps that are not filled, and walks that are not done.
    pub(crate) unfinished: i64,
    /// Whether the room's history may be hidden from somebody who was not in the room all the time.
    pub(crate) may_hide_history: bool,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Finding {
    /// What is wrong, in a few words; the same for all findings of its kind.
    pub(crate) kind: String,
    /// The event concerned.
    pub(crate) event_id: Option<String>,
    /// More about it. Never content.
    pub(crate) detail: Option<String>,
}

impl Finding {
    pub(crate) fn new(kind: &str, event_id: &str, detail: Option<String>) -> Self {
        Self { kind: kind.to_owned(), event_id: Some(event_id.to_owned()), detail }
    }
}

impl VerifiedRoom {
    /// A room that has events, but is not among the rooms.
    pub(crate) fn unknown(room_id: &str) -> Self {
        Self {
            room_id: room_id.to_owned(),
            name: None,
            room_version: None,
            event_count: 0,
            history_state: String::new(),
            unfinished: 0,
            may_hide_history: false,
        }
    }
}

impl Archive {
    /// These rooms, or all that are archived.
    ///
    /// # Errors
    /// [`Error::NoSuchRoom`] for the first that the archive does not have.
    pub(crate) async fn rooms_to_verify(&self, room_ids: &[String]) -> Result<Vec<VerifiedRoom>, Error> {
        let all = room_ids.is_empty();
        let rooms = sqlx::query_as!(
            VerifiedRoom,
            r#"select r.room_id, v.name, r.room_version, r.event_count, r.history_state,
                      (select count(*) from archive.gaps g where g.room_id = r.room_id and g.state <> 'closed')
                      + (select count(*) from archive.walks w
                         where w.room_id = r.room_id and w.state <> 'done' and w.kind <> 'rewalk') as "unfinished!",
                      exists (select from archive.events e
                              where e.room_id = r.room_id and e.type = 'm.room.history_visibility' and e.state_key = ''
                                and e.content ->> 'history_visibility' in ('joined', 'invited')) as "may_hide_history!"
               from archive.rooms r
               left join public.rooms v on v.room_id = r.room_id
               where r.room_id = any($1) or ($2 and r.event_count > 0)
               order by r.event_count desc, r.room_id"#,
            room_ids,
            all
        )
        .fetch_all(&self.pool)
        .await?;
        room::all_found(rooms, room_ids, |room| &room.room_id)
    }
}
