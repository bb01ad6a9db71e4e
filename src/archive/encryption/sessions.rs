//! Stores sessions.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::AddAssign,
};

use secrecy::{ExposeSecret as _, SecretSlice};
use sqlx::{Acquire as _, PgConnection};

use crate::{
    archive::{Archive, Error, writer::lock_rooms},
    encryption::{Origin, Session, is_better},
};

/// How many sessions one transaction stores.
const PORTION: usize = 500;
/// The most copies of a session whose keys contradict each other. Only somebody who forges them makes more than two. What
/// the sender's device has sent is signed, and does not count.
const MOST_COPIES: usize = 8;
/// The most users who have sent the same session to the archive's own device. More than one means that somebody passes on
/// what another one has made.
const MOST_SENDERS: usize = 8;

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

/// A copy of a session, as it is stored or will be.
struct Copy {
    first_index: i64,
    key: SecretSlice<u8>,
    sha256: Vec<u8>,
    origin: Origin,
    senders: Vec<String>,
    sender_key: Option<String>,
    sender_ed25519: Option<String>,
    is_stored: bool,
}

impl Copy {
    fn of(session: &Session) -> Self {
        Self {
            first_index: i64::from(session.first_index()),
            key: session.key(),
            sha256: session.key_sha256().to_vec(),
            origin: session.origin,
            senders: session.sender.iter().cloned().collect(),
            sender_key: session.sender_key.clone(),
            sender_ed25519: session.sender_ed25519.clone(),
            is_stored: false,
        }
    }

    /// Whether this one, of the same ratchet, says more of who made it than `other` does.
    fn is_trusted_more_than(&self, other: &Self) -> bool {
        let is_new = |sender| !other.senders.contains(sender) && other.senders.len() < MOST_SENDERS;
        self.origin > other.origin || self.senders.iter().any(is_new)
    }

    /// One copy of two of the same ratchet: the key that reaches further back, and what is known of who made it.
    fn merge(self, other: Self) -> Self {
        let (further, nearer) =
            if self.first_index <= other.first_index { (self, other) } else { (other, self) };
        let mut senders = further.senders.clone();
        senders.extend(nearer.senders.iter().filter(|sender| !further.senders.contains(sender)).cloned());
        senders.truncate(MOST_SENDERS);
        let trusted = if nearer.origin > further.origin { &nearer } else { &further };
        let (origin, sender_key, sender_ed25519) =
            (trusted.origin, trusted.sender_key.clone(), trusted.sender_ed25519.clone());
        Self { origin, senders, sender_key, sender_ed25519, is_stored: false, ..further }
    }
}

impl Archive {
    /// Stores sessions, and queues those that have messages in the archive. Needs no lease: it changes nothing that the
    /// writer reads or writes, but rows of the queue, under the locks of the rooms.
    pub(crate) async fn import_sessions(
        &self,
        mut sessions: Vec<Session>,
    ) -> Result<ImportedSessions, Error> {
        let mut imported = ImportedSessions::default();
        // So that rooms are locked in ascending order.
        sessions.sort_by(|a, b| (&a.room_id, &a.session_id).cmp(&(&b.room_id, &b.session_id)));
        while !sessions.is_empty() {
            let rest = sessions.split_off(sessions.len().min(PORTION));
            let portion = std::mem::replace(&mut sessions, rest);
            let mut connection = self.pool.acquire().await?;
            let mut transaction = connection.begin().await?;
            let stored = store_sessions(&mut transaction, portion, &[]).await?;
            transaction.commit().await?;
            imported += stored;
        }
        Ok(imported)
    }
}

impl AddAssign for ImportedSessions {
    fn add_assign(&mut self, other: Self) {
        self.new += other.new;
        self.better += other.better;
        self.known += other.known;
        self.refused += other.refused;
        self.erased += other.erased;
        self.queued += other.queued;
    }
}

/// Stores sessions in a transaction, after it has locked their rooms and `also_locked`.
pub(super) async fn store_sessions(
    connection: &mut PgConnection,
    mut sessions: Vec<Session>,
    also_locked: &[&str],
) -> Result<ImportedSessions, Error> {
    let erased = erased(connection, &sessions).await?;
    let before = sessions.len();
    sessions.retain(|session| !erased.contains(&session.room_id));
    let left_out = before - sessions.len();
    let names: BTreeSet<Name> =
        sessions.iter().map(|it| (it.room_id.clone(), it.session_id.clone())).collect();
    let mut rooms: BTreeSet<&str> = names.iter().map(|(room_id, _)| room_id.as_str()).collect();
    rooms.extend(also_locked);
    lock_rooms(connection, &rooms.into_iter().collect::<Vec<_>>()).await?;
    let stored = stored(connection, &names).await?;
    // To compare two keys takes some hashes.
    let compared = tokio::task::spawn_blocking(move || Changes::of(sessions, stored)).await;
    let changes = compared.map_err(|_| sqlx::Error::WorkerCrashed)?;
    changes.write(connection).await?;
    let queued = changes.queue(connection).await?;
    Ok(ImportedSessions { erased: left_out, queued, ..changes.count })
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
        "select s.room_id, s.session_id, s.first_index, s.key_sha256, s.session_key, s.origin, s.senders, s.sender_key,
                s.sender_ed25519
         from unnest($1::text[], $2::text[]) as asked (room_id, session_id)
         join archive.megolm_sessions s on s.room_id = asked.room_id and s.session_id = asked.session_id",
        &room_ids,
        &session_ids
    )
    .fetch_all(connection)
    .await?;
    let mut stored: BTreeMap<Name, Vec<Copy>> = BTreeMap::new();
    for row in rows {
        let copy = Copy {
            first_index: row.first_index,
            key: row.session_key.into(),
            sha256: row.key_sha256,
            origin: Origin::from_word(&row.origin),
            senders: row.senders,
            sender_key: row.sender_key,
            sender_ed25519: row.sender_ed25519,
            is_stored: true,
        };
        stored.entry((row.room_id, row.session_id)).or_default().push(copy);
    }
    Ok(stored)
}

/// What sessions change in the table.
struct Changes {
    /// New rows.
    rows: Vec<(Name, Copy)>,
    /// Stored rows that these replace, by their keys' hashes.
    replaced: Vec<(Name, Vec<u8>)>,
    count: ImportedSessions,
}

impl Changes {
    fn of(sessions: Vec<Session>, mut copies: BTreeMap<Name, Vec<Copy>>) -> Self {
        let mut changes = Self { rows: Vec::new(), replaced: Vec::new(), count: ImportedSessions::default() };
        for session in sessions {
            let name = (session.room_id.clone(), session.session_id.clone());
            changes.add(session, copies.entry(name.clone()).or_default(), &name);
        }
        for (name, copies) in copies {
            let new = copies.into_iter().filter(|copy| !copy.is_stored);
            changes.rows.extend(new.map(|copy| (name.clone(), copy)));
        }
        changes
    }

    fn add(&mut self, mut session: Session, copies: &mut Vec<Copy>, name: &Name) {
        let new = Copy::of(&session);
        let same = copies.iter().enumerate().find_map(|(place, copy)| {
            let is_better =
                if copy.sha256 == new.sha256 { Some(false) } else { is_better(&mut session, &copy.key) };
            Some((place, is_better?))
        });
        let Some((place, is_better)) = same else {
            let is_forgeable = |copy: &&Copy| copy.origin != Origin::Device;
            if copies.iter().filter(is_forgeable).count() >= MOST_COPIES && is_forgeable(&&new) {
                self.count.refused += 1;
            } else {
                self.count.new += 1;
                copies.push(new);
            }
            return;
        };
        if !is_better && !new.is_trusted_more_than(&copies[place]) {
            self.count.known += 1;
            return;
        }
        self.count.better += 1;
        let old = copies.swap_remove(place);
        if old.is_stored {
            self.replaced.push((name.clone(), old.sha256.clone()));
        }
        copies.push(old.merge(new));
    }

    async fn write(&self, connection: &mut PgConnection) -> Result<(), Error> {
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
        let named = |of: fn(&Name) -> String| self.rows.iter().map(|(name, _)| of(name)).collect::<Vec<_>>();
        let optional = |of: fn(&Copy) -> Option<String>| {
            self.rows.iter().map(|(_, copy)| of(copy)).collect::<Vec<Option<String>>>()
        };
        let keys: Vec<Vec<u8>> =
            self.rows.iter().map(|(_, copy)| copy.key.expose_secret().to_vec()).collect();
        sqlx::query!(
            r#"insert into archive.megolm_sessions
                   (room_id, session_id, first_index, session_key, key_sha256, sender_key, sender_ed25519, origin, senders)
               select n.room_id, n.session_id, n.first_index, n.session_key, n.key_sha256, n.sender_key, n.sender_ed25519,
                      n.origin, string_to_array(n.senders, E'\n')
               from unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::bytea[], $6::text[], $7::text[],
                           $8::text[], $9::text[])
                   as n (room_id, session_id, first_index, session_key, key_sha256, sender_key, sender_ed25519, origin,
                         senders)
               on conflict do nothing"#,
            &named(|(room_id, _)| room_id.clone()),
            &named(|(_, session_id)| session_id.clone()),
            &self.rows.iter().map(|(_, copy)| copy.first_index).collect::<Vec<_>>(),
            &keys,
            &self.rows.iter().map(|(_, copy)| copy.sha256.clone()).collect::<Vec<_>>(),
            &optional(|copy| copy.sender_key.clone()) as &[Option<String>],
            &optional(|copy| copy.sender_ed25519.clone()) as &[Option<String>],
            &self.rows.iter().map(|(_, copy)| copy.origin.as_str().to_owned()).collect::<Vec<_>>(),
            // A user id has no line break.
            &self.rows.iter().map(|(_, copy)| copy.senders.join("\n")).collect::<Vec<_>>()
        )
        .execute(connection)
        .await?;
        Ok(())
    }

    /// Queues the sessions of the new rows. What could not be read with the keys before is tried anew, and so is what was
    /// read with a session that is trusted otherwise now.
    async fn queue(&self, connection: &mut PgConnection) -> Result<i64, Error> {
        let mut rooms: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for ((room_id, session_id), _) in &self.rows {
            rooms.entry(room_id).or_default().push(session_id.clone());
        }
        let mut queued = 0;
        for (room_id, session_ids) in rooms {
            let tried_anew = sqlx::query_scalar!(
                "delete from archive.decrypted_events d using archive.megolm_sessions s
                 where d.room_id = $1 and d.session_id = any($2) and d.state <> 'redacted'
                   and s.room_id = $1 and s.session_id = d.session_id
                   and (d.state in ('no key', 'bad') or s.origin <> d.trust)
                 returning d.event_id",
                room_id,
                &session_ids
            )
            .fetch_all(&mut *connection)
            .await?;
            super::decrypt::settle(connection, room_id, &tried_anew).await?;
            queued += super::decrypt::queue(connection, room_id, &session_ids).await?;
        }
        Ok(queued)
    }
}
