//! The archive's own device, and the to-device events that it receives.
//!
//! All of it changes in the transaction that moves `since`: the homeserver deletes a to-device event once it was asked with
//! the next `since`.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;

use super::sessions::store_sessions;
use crate::{
    archive::{Archive, Error, Writer},
    encryption::{Brought, Device, DeviceKey, OlmSession, OlmSessions, Session, ToDeviceEvent, Withheld},
    matrix::ServedDevice,
};

/// The most notices of one sender about withheld keys of a room that are kept.
const MOST_WITHHELD: i64 = 1000;
/// The most keys of one sender that are kept of rooms that the archive does not have. It may have them later, so the keys
/// are of use. But everybody can send such keys, for rooms that do not exist, too.
const MOST_OF_OTHER_ROOMS: i64 = 10_000;

/// The device of this process's access token, where `encryption.device` is set.
#[derive(Debug)]
pub(crate) struct OwnDevice {
    /// The account.
    pub(crate) user_id: String,
    /// The device.
    pub(crate) device_id: String,
    /// Encrypts what is secret of it.
    pub(crate) key: DeviceKey,
}

/// The public keys of the archive's own device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicKeys {
    /// The device.
    pub(crate) device_id: String,
    /// The key that signs for it, in base64.
    pub(crate) ed25519: String,
    /// The key by which others address it, in base64.
    pub(crate) curve25519: String,
}

impl PublicKeys {
    /// Those that are stored. `None`: the archive has no device.
    pub(in crate::archive) async fn stored(connection: &mut PgConnection) -> Result<Option<Self>, Error> {
        let keys = sqlx::query_as!(Self, "select device_id, ed25519, curve25519 from archive.devices");
        Ok(keys.fetch_optional(connection).await?)
    }

    /// Whether the homeserver has these keys.
    pub(crate) fn are_those_of(&self, served: &ServedDevice) -> bool {
        served.key("ed25519", &self.device_id) == Some(&self.ed25519)
            && served.key("curve25519", &self.device_id) == Some(&self.curve25519)
    }
}

impl Archive {
    /// The public keys of the archive's own device. `None`: it has none.
    pub(crate) async fn device_keys(&self) -> Result<Option<PublicKeys>, Error> {
        PublicKeys::stored(&mut *self.pool.acquire().await?).await
    }
}

impl Writer {
    /// Stores a new device instead of the one before. Keys that were sent to that one, and come now, are lost.
    pub(crate) async fn add_device(&self, own: &OwnDevice) -> Result<(), Error> {
        let device = Device::new(&own.user_id, &own.device_id);
        let mut transaction = self.begin().await?;
        sqlx::query!("delete from archive.devices").execute(&mut *transaction).await?;
        sqlx::query!("delete from archive.olm_sessions").execute(&mut *transaction).await?;
        sqlx::query!(
            "insert into archive.devices (device_id, ed25519, curve25519, account) values ($1, $2, $3, $4)",
            own.device_id,
            device.ed25519(),
            device.curve25519(),
            device.pickle(&own.key)
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    /// Makes the one-time and fallback keys that the homeserver lacks, and returns the body of the request that
    /// publishes them. `None`: there is nothing to publish. The keys are stored first, because somebody may use them as
    /// soon as they are published.
    ///
    /// # Errors
    /// [`Error::Device`] if the stored keys cannot be decrypted.
    pub(crate) async fn replenish_keys(
        &self,
        own: &OwnDevice,
        on_server: u64,
        has_fallback: bool,
    ) -> Result<Option<serde_json::Value>, Error> {
        let mut transaction = self.begin().await?;
        let (mut device, is_published) = load(&mut transaction, own).await?;
        device.replenish(on_server, has_fallback);
        if is_published && !device.has_unpublished_keys() {
            transaction.undo(None).await;
            return Ok(None);
        }
        save(&mut transaction, own, &device).await?;
        transaction.commit().await?;
        Ok(Some(device.upload(!is_published)))
    }

    /// Notes whether the homeserver has the device's keys.
    pub(crate) async fn note_device_published(&self, is_published: bool) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        sqlx::query!("update archive.devices set is_published = $1 where is_published <> $1", is_published)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }

    /// Notes that the homeserver has all keys of the last [`replenish_keys`](Self::replenish_keys).
    pub(crate) async fn keys_published(&self, own: &OwnDevice) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        let (mut device, _) = load(&mut transaction, own).await?;
        device.mark_published();
        save(&mut transaction, own, &device).await?;
        sqlx::query!("update archive.devices set is_published = true").execute(&mut *transaction).await?;
        transaction.commit().await
    }

    /// Notes how many one-time keys the homeserver has.
    pub(crate) async fn note_one_time_keys(&self, count: u64) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        sqlx::query!(
            "update archive.devices set one_time_keys = $1 where one_time_keys is distinct from $1",
            i64::try_from(count).unwrap_or(i64::MAX)
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }
}

/// Stores what to-device events bring, in the transaction that moves `since`, after it has locked the rooms of the keys and
/// `also_locked`. What cannot be used is counted and left out: the homeserver has it no more, and there is nobody to ask.
/// Returns whether sessions were queued.
///
/// # Errors
/// [`Error::Device`] if the stored keys of the device cannot be decrypted, besides errors of the database.
pub(in crate::archive) async fn receive(
    connection: &mut PgConnection,
    own: &OwnDevice,
    events: &[String],
    also_locked: &[&str],
) -> Result<bool, Error> {
    let mut received = Incoming::default();
    let (mut device, _) = load(connection, own).await?;
    for raw in events {
        received.take(connection, own, &mut device, raw).await?;
    }
    if received.has_used_device {
        save(connection, own, &device).await?;
        save_sessions(connection, own, received.olm).await?;
    }
    for (reason, event_count) in received.unusable {
        tracing::warn!(event_count, "to-device events cannot be used: {reason}");
    }
    for withheld in &received.withheld {
        keep_withheld(connection, withheld).await?;
    }
    let mut sessions = received.sessions;
    leave_out_surplus(connection, &mut sessions).await?;
    if sessions.is_empty() {
        return Ok(false);
    }
    let stored = store_sessions(connection, sessions, also_locked).await?;
    Ok(stored.queued > 0)
}

/// Leaves out keys of rooms that the archive does not have, from senders of whom it has [`MOST_OF_OTHER_ROOMS`].
async fn leave_out_surplus(connection: &mut PgConnection, sessions: &mut Vec<Session>) -> Result<(), Error> {
    let rooms: Vec<String> = sessions.iter().map(|session| session.room_id.clone()).collect();
    let known = sqlx::query_scalar!("select room_id from archive.rooms where room_id = any($1)", &rooms);
    let known: BTreeSet<String> = known.fetch_all(&mut *connection).await?.into_iter().collect();
    let is_of_other_room = |session: &Session| !known.contains(&session.room_id);
    let senders: BTreeSet<String> =
        sessions.iter().filter(|it| is_of_other_room(it)).filter_map(|it| it.sender.clone()).collect();
    let mut surplus = BTreeSet::new();
    // One by one: a distributed database takes no subquery for each of several values.
    for sender in senders {
        let kept = sqlx::query_scalar!(
            r#"select count(*) as "kept!" from (
                   select 1 from archive.megolm_sessions s
                   where s.senders @> array[$1::text]
                     and not exists (select from archive.rooms r where r.room_id = s.room_id)
                   limit $2) as kept"#,
            sender,
            MOST_OF_OTHER_ROOMS
        );
        if kept.fetch_one(&mut *connection).await? >= MOST_OF_OTHER_ROOMS {
            surplus.insert(sender);
        }
    }
    if surplus.is_empty() {
        return Ok(());
    }
    let before = sessions.len();
    sessions.retain(|session| {
        !is_of_other_room(session) || session.sender.as_ref().is_none_or(|sender| !surplus.contains(sender))
    });
    if sessions.len() < before {
        let key_count = before - sessions.len();
        tracing::warn!(
            key_count,
            "left out keys of rooms that are not archived: their sender has sent too many"
        );
    }
    Ok(())
}

/// What was read of to-device events, before it is stored.
#[derive(Default)]
struct Incoming {
    sessions: Vec<Session>,
    withheld: Vec<Withheld>,
    unusable: BTreeMap<&'static str, usize>,
    /// The Olm sessions of each device that has sent a message.
    olm: BTreeMap<String, OlmSessions>,
    has_used_device: bool,
}

impl Incoming {
    async fn take(
        &mut self,
        connection: &mut PgConnection,
        own: &OwnDevice,
        device: &mut Device,
        raw: &str,
    ) -> Result<(), Error> {
        let Some(event) = ToDeviceEvent::parse(raw) else {
            self.note(Brought::Unusable("they are no events"));
            return Ok(());
        };
        let brought = match event.message(device) {
            None => event.read_clear(),
            Some(Err(reason)) => Brought::Unusable(reason),
            Some(Ok(message)) => {
                let sender_key = message.sender_key();
                if !self.olm.contains_key(&sender_key) {
                    self.olm.insert(sender_key.clone(), load_sessions(connection, own, &sender_key).await?);
                }
                self.has_used_device = true;
                let sessions = self.olm.entry(sender_key).or_default();
                device.receive(&message, sessions)
            }
        };
        self.note(brought);
        Ok(())
    }

    fn note(&mut self, brought: Brought) {
        match brought {
            Brought::Session(session) => self.sessions.push(*session),
            Brought::Withheld(withheld) => self.withheld.push(withheld),
            Brought::Nothing => {}
            Brought::Unusable(reason) => *self.unusable.entry(reason).or_default() += 1,
        }
    }
}

/// The device, and whether the homeserver has its keys. The row is locked.
async fn load(connection: &mut PgConnection, own: &OwnDevice) -> Result<(Device, bool), Error> {
    let row = sqlx::query!(
        "select account, is_published from archive.devices where device_id = $1 for update",
        own.device_id
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else {
        return Err(Error::Device("its keys are gone from the database; start Backscroll again".to_owned()));
    };
    let device = Device::open(&own.user_id, &own.device_id, &row.account, &own.key);
    Ok((device.ok_or_else(wrong_device_key)?, row.is_published))
}

/// The device's keys were encrypted with another key.
pub(crate) fn wrong_device_key() -> Error {
    Error::Device(
        "its keys in the database were encrypted with another key than the one that is configured; restore that key \
         (`device.key` in data_dir, or the credential `device_key`), or give Backscroll an access token of a new \
         device (`backscroll login`), which then gets keys of its own"
            .to_owned(),
    )
}

async fn save(connection: &mut PgConnection, own: &OwnDevice, device: &Device) -> Result<(), Error> {
    sqlx::query!(
        "update archive.devices set account = $2 where device_id = $1",
        device.device_id(),
        device.pickle(&own.key)
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn load_sessions(
    connection: &mut PgConnection,
    own: &OwnDevice,
    sender_key: &str,
) -> Result<OlmSessions, Error> {
    let pickles = sqlx::query_scalar!(
        "select session from archive.olm_sessions where sender_key = $1 order by used_at desc, session_id",
        sender_key
    )
    .fetch_all(connection)
    .await?;
    Ok(OlmSessions::new(pickles.iter().filter_map(|pickle| OlmSession::open(pickle, &own.key)).collect()))
}

async fn save_sessions(
    connection: &mut PgConnection,
    own: &OwnDevice,
    olm: BTreeMap<String, OlmSessions>,
) -> Result<(), Error> {
    for (sender_key, mut sessions) in olm {
        let surplus: Vec<String> =
            sessions.take_surplus().iter().map(|session| session.session_id().to_owned()).collect();
        for session in sessions.changed() {
            sqlx::query!(
                "insert into archive.olm_sessions (sender_key, session_id, session, used_at)
                 values ($1, $2, $3, clock_timestamp())
                 on conflict (sender_key, session_id) do update
                     set session = excluded.session, used_at = excluded.used_at",
                sender_key,
                session.session_id(),
                session.pickle(&own.key)
            )
            .execute(&mut *connection)
            .await?;
        }
        sqlx::query!(
            "delete from archive.olm_sessions where sender_key = $1 and session_id = any($2)",
            sender_key,
            &surplus
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Keeps a notice about a room of the archive.
async fn keep_withheld(connection: &mut PgConnection, withheld: &Withheld) -> Result<(), Error> {
    sqlx::query!(
        "insert into archive.withheld_sessions (room_id, session_id, sender, reason)
         select $1, $2, $3, $4
         where exists (select from archive.rooms r where r.room_id = $1)
           and (select count(*) from archive.withheld_sessions w where w.room_id = $1 and w.sender = $3) < $5
         on conflict (room_id, session_id, sender) do update set reason = excluded.reason, told_at = excluded.told_at",
        withheld.room_id,
        withheld.session_id,
        withheld.sender,
        withheld.reason,
        MOST_WITHHELD
    )
    .execute(connection)
    .await?;
    Ok(())
}
