//! Stores sessions.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::{ExposeSecret as _, SecretSlice};
use sqlx::{Acquire as _, PgConnection};

use crate::{
    archive::{Archive, Error, writer::lock_rooms},
    encryption::{Origin, Session, is_better},
};

/// How many sessions one transaction stores.
const PORTION: usize = 500;
/// The most copies of a session whose keys contradict each other. Only somebody who forges them makes more than two.
const MOST_COPIES: usize = 8;

/// How many sessions were stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ImportedSessions {
    /// Sessions that the archive did not have, or had with a key that contradicts this one.
    pub(crate) new: usize,
    /// Sessions that now reach further back.
    pub(crate) better: usize,
    /// Sessions that the archive has already, as good or better.
    pub(crate) known: usize,
    /// Copies beyond [`MOST_COPIES`] that contradict each other. They were not stored.
    pub(crate) refused: usize,
    /// Sessions of rooms that were erased. They were not stored.
    pub(crate) erased: usize,
    /// Sessions with messages in the archive that are now to be decrypted.
    pub(crate) queued: i64,
}

/// A session's room and id.
type Name = (String, String);

/// A copy of a session.
struct Copy {
    key: SecretSlice<u8>,
    sha256: Vec<u8>,
    is_stored: bool,
}

impl Archive {
    /// Stores sessions, and queues those that have messages in the archive. Needs no lease: it changes nothing that the
    /// writer reads or writes, but rows of the queue, under the locks of the rooms.
    pub(crate) async fn import_sessions(
        &self,
        mut sessions: Vec<Session>,
        origin: Origin,
    ) -> Result<ImportedSessions, Error> {
        let mut imported = ImportedSessions::default();
        // So that rooms are locked in ascending order.
        sessions.sort_by(|a, b| (&a.room_id, &a.session_id).cmp(&(&b.room_id, &b.session_id)));
        while !sessions.is_empty() {
            let rest = sessions.split_off(sessions.len().min(PORTION));
            let portion = std::mem::replace(&mut sessions, rest);
            self.import_portion(portion, origin, &mut imported).await?;
        }
        Ok(imported)
    }

    async fn import_portion(
        &self,
        mut sessions: Vec<Session>,
        origin: Origin,
        imported: &mut ImportedSessions,
    ) -> Result<(), Error> {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        let erased = erased(&mut transaction, &sessions).await?;
        let before = sessions.len();
        sessions.retain(|session| !erased.contains(&session.room_id));
        imported.erased += before - sessions.len();
        let names: BTreeSet<Name> =
            sessions.iter().map(|it| (it.room_id.clone(), it.session_id.clone())).collect();
        let rooms: BTreeSet<&str> = names.iter().map(|(room_id, _)| room_id.as_str()).collect();
        lock_rooms(&mut transaction, &rooms.into_iter().collect::<Vec<_>>()).await?;
        let stored = stored(&mut transaction, &names).await?;
        // To compare two keys takes some hashes.
        let compared = tokio::task::spawn_blocking(move || Changes::of(sessions, stored)).await;
        let changes = compared.map_err(|_| sqlx::Error::WorkerCrashed)?;
        changes.write(&mut transaction, origin).await?;
        imported.queued += changes.queue(&mut transaction).await?;
        transaction.commit().await?;
        imported.new += changes.count.new;
        imported.better += changes.count.better;
        imported.known += changes.count.known;
        imported.refused += changes.count.refused;
        Ok(())
    }
}

/// The erased ones of the sessions' rooms.
async fn erased(connection: &mut PgConnection, sessions: &[Session]) -> Result<Vec<String>, Error> {
    let room_ids: Vec<String> = sessions.iter().map(|session| session.room_id.clone()).collect();
    let erased = sqlx::query_scalar!(
        r#"select room_id as "room_id!" from archive.erasures where room_id = any($1)"#,
        &room_ids
    );
    Ok(erased.fetch_all(connection).await?)
}

async fn stored(
    connection: &mut PgConnection,
    names: &BTreeSet<Name>,
) -> Result<BTreeMap<Name, Vec<Copy>>, Error> {
    let (room_ids, session_ids): (Vec<String>, Vec<String>) = names.iter().cloned().unzip();
    let rows = sqlx::query!(
        "select s.room_id, s.session_id, s.key_sha256, s.session_key
         from unnest($1::text[], $2::text[]) as asked (room_id, session_id)
         join archive.megolm_sessions s on s.room_id = asked.room_id and s.session_id = asked.session_id",
        &room_ids,
        &session_ids
    )
    .fetch_all(connection)
    .await?;
    let mut stored: BTreeMap<Name, Vec<Copy>> = BTreeMap::new();
    for row in rows {
        let copy = Copy { key: row.session_key.into(), sha256: row.key_sha256, is_stored: true };
        stored.entry((row.room_id, row.session_id)).or_default().push(copy);
    }
    Ok(stored)
}

/// What sessions change in the table.
struct Changes {
    /// New rows: the session, its first index, its key, and the hash of that.
    rows: Vec<(Session, Vec<u8>)>,
    /// Stored rows that better ones replace.
    replaced: Vec<(Name, Vec<u8>)>,
    count: ImportedSessions,
}

impl Changes {
    fn of(sessions: Vec<Session>, mut copies: BTreeMap<Name, Vec<Copy>>) -> Self {
        let mut changes = Self { rows: Vec::new(), replaced: Vec::new(), count: ImportedSessions::default() };
        for session in sessions {
            let name = (session.room_id.clone(), session.session_id.clone());
            changes.add(session, &name, copies.entry(name.clone()).or_default());
        }
        changes
    }

    fn add(&mut self, mut session: Session, name: &Name, copies: &mut Vec<Copy>) {
        let sha256 = session.key_sha256().to_vec();
        if copies.iter().any(|copy| copy.sha256 == sha256) {
            self.count.known += 1;
            return;
        }
        let compared: Vec<Option<bool>> =
            copies.iter().map(|copy| is_better(&mut session, &copy.key)).collect();
        if compared.contains(&Some(false)) {
            self.count.known += 1;
            return;
        }
        let worse = compared.iter().position(|better| *better == Some(true));
        if worse.is_none() && copies.len() >= MOST_COPIES {
            self.count.refused += 1;
            return;
        }
        match worse.map(|place| copies.swap_remove(place)) {
            Some(copy) if copy.is_stored => self.replaced.push((name.clone(), copy.sha256)),
            // It came in the same portion.
            Some(copy) => self.rows.retain(|(_, sha256)| *sha256 != copy.sha256),
            None => {}
        }
        *(if worse.is_some() { &mut self.count.better } else { &mut self.count.new }) += 1;
        copies.push(Copy { key: session.key(), sha256: sha256.clone(), is_stored: false });
        self.rows.push((session, sha256));
    }

    async fn write(&self, connection: &mut PgConnection, origin: Origin) -> Result<(), Error> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let old = |of: fn(&(Name, Vec<u8>)) -> String| self.replaced.iter().map(of).collect::<Vec<_>>();
        sqlx::query!(
            "delete from archive.megolm_sessions s
             using unnest($1::text[], $2::text[], $3::bytea[]) as old (room_id, session_id, key_sha256)
             where s.room_id = old.room_id and s.session_id = old.session_id and s.key_sha256 = old.key_sha256",
            &old(|((room_id, _), _)| room_id.clone()),
            &old(|((_, session_id), _)| session_id.clone()),
            &self.replaced.iter().map(|(_, sha256)| sha256.clone()).collect::<Vec<_>>()
        )
        .execute(&mut *connection)
        .await?;
        let new = |of: fn(&Session) -> String| self.rows.iter().map(|(it, _)| of(it)).collect::<Vec<_>>();
        let claimed = |of: fn(&Session) -> Option<String>| {
            self.rows.iter().map(|(it, _)| of(it)).collect::<Vec<Option<String>>>()
        };
        let keys: Vec<Vec<u8>> =
            self.rows.iter().map(|(session, _)| session.key().expose_secret().to_vec()).collect();
        sqlx::query!(
            "insert into archive.megolm_sessions
                 (room_id, session_id, first_index, session_key, key_sha256, sender_key, sender_ed25519, origin)
             select n.*, $8
             from unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::bytea[], $6::text[], $7::text[]) as n
             on conflict do nothing",
            &new(|session| session.room_id.clone()),
            &new(|session| session.session_id.clone()),
            &self.rows.iter().map(|(session, _)| i64::from(session.first_index())).collect::<Vec<_>>(),
            &keys,
            &self.rows.iter().map(|(_, sha256)| sha256.clone()).collect::<Vec<_>>(),
            &claimed(|session| session.sender_key.clone()) as &[Option<String>],
            &claimed(|session| session.sender_ed25519.clone()) as &[Option<String>],
            origin.as_str()
        )
        .execute(connection)
        .await?;
        Ok(())
    }

    /// Queues the sessions of the new rows. What could not be read with the keys before is tried anew.
    async fn queue(&self, connection: &mut PgConnection) -> Result<i64, Error> {
        let mut rooms: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (session, _) in &self.rows {
            rooms.entry(&session.room_id).or_default().push(session.session_id.clone());
        }
        let mut queued = 0;
        for (room_id, session_ids) in rooms {
            sqlx::query!(
                "delete from archive.decrypted_events
                 where room_id = $1 and session_id = any($2) and state in ('no key', 'bad')",
                room_id,
                &session_ids
            )
            .execute(&mut *connection)
            .await?;
            queued += super::decrypt::queue(connection, room_id, &session_ids).await?;
        }
        Ok(queued)
    }
}
