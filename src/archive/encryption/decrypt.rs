//! Decrypts what is queued, and stores the results.

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;

use crate::{
    archive::{Archive, Error, Writer, writer::lock_room},
    encryption::{Batch, Decryption, EncryptedEvent, Plaintext, SessionCopy},
};

/// How many sessions are looked at together.
const SESSIONS: i64 = 20;
/// The most live messages that the transaction which stores them decrypts. The others follow behind the writer.
const LIVE: i64 = 100;
/// A session that has failed so often stays queued until it, or a message of it, comes again.
const MOST_TRIES: i32 = 5;

/// Sessions of one room that the queue has next.
#[derive(Clone, Debug)]
pub(crate) struct QueuedSessions {
    room_id: String,
    session_ids: Vec<String>,
    /// When each was queued, in microseconds since 1970.
    queued_at: Vec<i64>,
}

/// What is stored of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Decrypted {
    /// Events that were looked at.
    pub(crate) events: usize,
    /// Those of them that can be read.
    pub(crate) readable: usize,
}

/// An event with its result.
type Outcome = (EncryptedEvent, Decryption);

/// Queues those of these sessions that are known and have messages, and returns how many. The transaction must hold the
/// lock of the room, if the archive has it.
pub(in crate::archive) async fn queue(
    connection: &mut PgConnection,
    room_id: &str,
    session_ids: &[String],
) -> Result<i64, Error> {
    let queued =
        sqlx::query_scalar!(r#"select archive.queue_decryption($1, $2) as "queued!""#, room_id, session_ids);
    Ok(queued.fetch_one(connection).await?)
}

/// Decrypts the newest messages of these sessions in the transaction that has stored them. The transaction must hold
/// the room's lock.
pub(in crate::archive) async fn decrypt_live(
    connection: &mut PgConnection,
    room_id: &str,
    session_ids: &[String],
) -> Result<(), Error> {
    let batch = read(connection, room_id, session_ids, LIVE).await?;
    let is_all = batch.events.len() < usize::try_from(LIVE).unwrap_or_default();
    let results = decrypt(batch).await?;
    store(connection, room_id, results).await?;
    if is_all {
        sqlx::query!(
            "delete from archive.decryption_queue where room_id = $1 and session_id = any($2)",
            room_id,
            session_ids
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Removes what these events of a room say, because they were redacted.
pub(in crate::archive) async fn forget(
    connection: &mut PgConnection,
    room_id: &str,
    event_ids: &[String],
) -> Result<(), Error> {
    sqlx::query!("select archive.forget_decrypted($1, $2)", room_id, event_ids).execute(connection).await?;
    Ok(())
}

/// Removes the results of these events of a room, because they have other content now.
pub(in crate::archive) async fn reset(
    connection: &mut PgConnection,
    room_id: &str,
    event_ids: &[String],
) -> Result<(), Error> {
    sqlx::query!(
        "delete from archive.decrypted_events where room_id = $1 and event_id = any($2)",
        room_id,
        event_ids
    )
    .execute(&mut *connection)
    .await?;
    settle(connection, room_id, event_ids).await
}

/// Brings up to date what is kept for readers, after the results of these events have changed.
pub(in crate::archive) async fn settle(
    connection: &mut PgConnection,
    room_id: &str,
    event_ids: &[String],
) -> Result<(), Error> {
    sqlx::query!("select archive.settle_decrypted($1, $2)", room_id, event_ids).execute(connection).await?;
    Ok(())
}

impl Archive {
    /// The sessions whose newest message is the newest, all of one room.
    pub(crate) async fn queued_sessions(&self) -> Result<Option<QueuedSessions>, Error> {
        let rows = sqlx::query!(
            r#"with next as (
                   select q.room_id, q.tries from archive.decryption_queue q where q.tries < $2
                     and exists (select from archive.rooms r where r.room_id = q.room_id)
                   order by q.tries, q.newest_at desc nulls last limit 1)
               select q.room_id, q.session_id, (extract(epoch from q.queued_at) * 1000000)::bigint as "queued_at!"
               from next join archive.decryption_queue q on q.room_id = next.room_id and q.tries = next.tries
               order by q.newest_at desc nulls last limit $1"#,
            SESSIONS,
            MOST_TRIES
        )
        .fetch_all(&self.pool)
        .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let room_id = first.room_id.clone();
        let (session_ids, queued_at) = rows.into_iter().map(|row| (row.session_id, row.queued_at)).unzip();
        Ok(Some(QueuedSessions { room_id, session_ids, queued_at }))
    }
}

impl Writer {
    /// Queues all sessions with messages that were not looked at: after an import or a restore, and what has failed.
    pub(crate) async fn queue_undecrypted(&self) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        sqlx::query!(
            "insert into archive.decryption_queue (room_id, session_id)
             select s.room_id, s.session_id from archive.megolm_sessions s
             where exists (
                 select from archive.events e
                 where e.room_id = s.room_id and archive.megolm_session(e.content) = s.session_id
                   and e.type = 'm.room.encrypted' and e.state_key is null and e.redacted_by is null
                   and e.content -> 'ciphertext' is not null
                   and not exists (select from archive.decrypted_events d
                                   where d.room_id = e.room_id and d.event_id = e.event_id))
             group by s.room_id, s.session_id order by s.room_id, s.session_id
             on conflict (room_id, session_id) do update set tries = 0"
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    /// Decrypts up to `limit` messages of these sessions, newest first, and takes the sessions from the queue if that
    /// were all.
    pub(crate) async fn decrypt(&self, queued: &QueuedSessions, limit: i64) -> Result<Decrypted, Error> {
        let room_id = queued.room_id.as_str();
        let batch = {
            let mut connection = self.archive().pool.acquire().await?;
            read(&mut connection, room_id, &queued.session_ids, limit).await?
        };
        let is_all = batch.events.len() < usize::try_from(limit).unwrap_or_default();
        // Outside of the transaction, so that the room is not locked meanwhile.
        let results = decrypt(batch).await?;
        let mut transaction = self.begin().await?;
        lock_room(&mut transaction, room_id).await?;
        let (decrypted, range) = store(&mut transaction, room_id, results).await?;
        if let Some((lower, upper)) = range {
            sqlx::query!(
                "insert into archive.search_queue (room_id, lower, upper) values ($1, $2, $3)",
                room_id,
                lower,
                upper
            )
            .execute(&mut *transaction)
            .await?;
        }
        if is_all {
            // The difference of two times is immutable, which a distributed database asks for.
            sqlx::query!(
                "delete from archive.decryption_queue q
                 using unnest($2::text[], $3::bigint[]) as done (session_id, queued_at)
                 where q.room_id = $1 and q.session_id = done.session_id
                   and (extract(epoch from q.queued_at - timestamptz '1970-01-01 00:00:00+00') * 1000000)::bigint
                     = done.queued_at",
                room_id,
                &queued.session_ids,
                &queued.queued_at
            )
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(decrypted)
    }

    /// Puts off sessions that [`decrypt`](Self::decrypt) has failed with.
    pub(crate) async fn put_off_decryption(&self, failed: &QueuedSessions) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        sqlx::query!(
            "update archive.decryption_queue set tries = tries + 1 where room_id = $1 and session_id = any($2)",
            failed.room_id,
            &failed.session_ids
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }
}

/// The newest messages of these sessions that were not looked at, and all copies of the sessions.
async fn read(
    connection: &mut PgConnection,
    room_id: &str,
    session_ids: &[String],
    limit: i64,
) -> Result<Batch, Error> {
    let copies = sqlx::query!(
        "select session_id, session_key, origin, senders from archive.megolm_sessions
         where room_id = $1 and session_id = any($2) order by session_id, first_index, key_sha256",
        room_id,
        session_ids
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut sessions: BTreeMap<String, Vec<SessionCopy>> = BTreeMap::new();
    for row in copies {
        let copy = SessionCopy { key: row.session_key.into(), origin: row.origin, senders: row.senders };
        sessions.entry(row.session_id).or_default().push(copy);
    }
    let events = sqlx::query_as!(
        EncryptedEvent,
        r#"select e.event_id, e.sender, archive.megolm_session(e.content) as "session_id!", e.content::text as "content!"
           from archive.events e
           where e.room_id = $1 and archive.megolm_session(e.content) = any($2)
             and e.type = 'm.room.encrypted' and e.state_key is null and e.redacted_by is null and e.content -> 'ciphertext' is not null
             and not exists (select from archive.decrypted_events d where d.room_id = $1 and d.event_id = e.event_id)
           order by e.position desc nulls last, e.event_id
           limit $3"#,
        room_id,
        &sessions.keys().cloned().collect::<Vec<_>>(),
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(Batch { room_id: room_id.to_owned(), sessions, events })
}

async fn decrypt(batch: Batch) -> Result<Vec<Outcome>, Error> {
    if batch.events.is_empty() {
        return Ok(Vec::new());
    }
    let decrypted = tokio::task::spawn_blocking(move || batch.decrypt()).await;
    Ok(decrypted.map_err(|_| sqlx::Error::WorkerCrashed)?)
}

/// Who has a number of a session.
#[derive(Debug)]
struct Claim {
    event_id: String,
    position: Option<i64>,
    /// The place among the results; `None`: a stored event.
    result: Option<usize>,
    is_redacted: bool,
}

impl Claim {
    /// Of several events with the same number, the first in the room's order is what was sent, and the others repeat
    /// it. One that was redacted stays the first.
    fn order(&self) -> (bool, bool, Option<i64>, &str) {
        (!self.is_redacted, self.position.is_none(), self.position, &self.event_id)
    }
}

/// Stores results, of events that are still what they were. The transaction must hold the room's lock. Returns the
/// range of positions that can be read now.
async fn store(
    connection: &mut PgConnection,
    room_id: &str,
    mut results: Vec<Outcome>,
) -> Result<(Decrypted, Option<(i64, i64)>), Error> {
    if results.is_empty() {
        return Ok((Decrypted::default(), None));
    }
    let positions = positions(connection, room_id, &results).await?;
    results.retain(|(event, _)| positions.contains_key(&event.event_id));
    let refuted = settle_repetitions(connection, room_id, &mut results, &positions).await?;
    if !refuted.is_empty() {
        refute(connection, room_id, &refuted).await?;
    }
    insert(connection, room_id, &results).await?;
    let changed = results.iter().map(|(event, _)| &event.event_id).chain(refuted.iter().map(|(id, _)| id));
    settle(connection, room_id, &changed.cloned().collect::<Vec<_>>()).await?;
    queue_edited(connection, room_id, &results).await?;
    let readable = results.iter().filter(|(_, result)| matches!(result, Decryption::Ok(_)));
    let readable: Vec<_> = readable.map(|(event, _)| positions[&event.event_id]).collect();
    let placed = readable.iter().flatten();
    let range = placed.clone().min().copied().zip(placed.max().copied());
    Ok((Decrypted { events: results.len(), readable: readable.len() }, range))
}

/// The positions of those events that were not redacted, changed or decrypted meanwhile.
async fn positions(
    connection: &mut PgConnection,
    room_id: &str,
    results: &[Outcome],
) -> Result<HashMap<String, Option<i64>>, Error> {
    let event_ids: Vec<String> = results.iter().map(|(event, _)| event.event_id.clone()).collect();
    let session_ids: Vec<String> = results.iter().map(|(event, _)| event.session_id.clone()).collect();
    let rows = sqlx::query!(
        r#"select event.event_id as "event_id!", event.position
           from unnest($2::text[], $3::text[]) as asked (event_id, session_id)
           cross join lateral (
               select e.event_id, e.position from archive.events e
               where e.room_id = $1 and e.event_id = asked.event_id and e.type = 'm.room.encrypted'
                 and e.redacted_by is null and archive.megolm_session(e.content) = asked.session_id
                 and not exists (select from archive.decrypted_events d where d.room_id = $1 and d.event_id = e.event_id)
               limit 1) event"#,
        room_id,
        &event_ids,
        &session_ids
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.event_id, row.position)).collect())
}

/// Makes results bad that repeat a message. Returns the stored events that do, because the message came before them.
async fn settle_repetitions(
    connection: &mut PgConnection,
    room_id: &str,
    results: &mut [Outcome],
    positions: &HashMap<String, Option<i64>>,
) -> Result<Vec<(String, String)>, Error> {
    let mut claims: BTreeMap<(String, i64), Vec<Claim>> = BTreeMap::new();
    for (place, (event, result)) in results.iter().enumerate() {
        if let Decryption::Ok(Plaintext { index, .. }) = result {
            let claim = Claim {
                event_id: event.event_id.clone(),
                position: positions[&event.event_id],
                result: Some(place),
                is_redacted: false,
            };
            claims.entry((event.session_id.clone(), i64::from(*index))).or_default().push(claim);
        }
    }
    let (session_ids, indices): (Vec<String>, Vec<i64>) = claims.keys().cloned().unzip();
    let stored = sqlx::query!(
        r#"select d.session_id as "session_id!", d.message_index as "message_index!", d.event_id as "event_id!",
                  d.state = 'redacted' as "is_redacted!", e.position
           from unnest($2::text[], $3::bigint[]) as asked (session_id, message_index)
           join archive.decrypted_events d
               on d.room_id = $1 and d.session_id = asked.session_id and d.message_index = asked.message_index
              and d.state in ('ok', 'redacted')
           join archive.events e on e.room_id = $1 and e.event_id = d.event_id"#,
        room_id,
        &session_ids,
        &indices
    )
    .fetch_all(connection)
    .await?;
    for row in stored {
        let claim = Claim {
            event_id: row.event_id,
            position: row.position,
            result: None,
            is_redacted: row.is_redacted,
        };
        claims.entry((row.session_id, row.message_index)).or_default().push(claim);
    }
    let mut refuted = Vec::new();
    for ((_, index), mut same) in claims {
        same.sort_by(|a, b| a.order().cmp(&b.order()));
        let first = same[0].event_id.clone();
        let reason = format!("it repeats message {index} of its session, which is the event {first}");
        for claim in same.into_iter().skip(1) {
            match claim.result {
                Some(place) => results[place].1 = Decryption::Bad(reason.clone()),
                None => refuted.push((claim.event_id, reason.clone())),
            }
        }
    }
    Ok(refuted)
}

/// Queues the messages whose edits can be read now for the search.
async fn queue_edited(
    connection: &mut PgConnection,
    room_id: &str,
    results: &[Outcome],
) -> Result<(), Error> {
    let event_ids: Vec<String> = results.iter().map(|(event, _)| event.event_id.clone()).collect();
    sqlx::query!(
        "insert into archive.search_queue (room_id, lower, upper, is_live)
         select distinct e.room_id, m.position, m.position, true
         from unnest($2::text[]) as decrypted (event_id)
         join archive.events e on e.room_id = $1 and e.event_id = decrypted.event_id and e.rel_type = 'm.replace'
         join archive.events m on m.room_id = $1 and m.event_id = e.relates_to
         where m.position is not null",
        room_id,
        &event_ids
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes stored events unreadable.
async fn refute(
    connection: &mut PgConnection,
    room_id: &str,
    refuted: &[(String, String)],
) -> Result<(), Error> {
    let (event_ids, reasons): (Vec<String>, Vec<String>) = refuted.iter().cloned().unzip();
    sqlx::query!("select archive.forget_searched_events($1, $2)", room_id, &event_ids)
        .execute(&mut *connection)
        .await?;
    sqlx::query!(
        "update archive.decrypted_events d
         set state = 'bad', reason = refuted.reason, type = null, content = null, edited_content = null, raw = null,
             message_index = null
         from unnest($2::text[], $3::text[]) as refuted (event_id, reason)
         where d.room_id = $1 and d.event_id = refuted.event_id",
        room_id,
        &event_ids,
        &reasons
    )
    .execute(connection)
    .await?;
    Ok(())
}

#[derive(Default)]
struct Columns {
    event_ids: Vec<String>,
    session_ids: Vec<String>,
    states: Vec<&'static str>,
    reasons: Vec<Option<String>>,
    indices: Vec<Option<i64>>,
    trusts: Vec<Option<String>>,
    types: Vec<Option<String>>,
    contents: Vec<Option<String>>,
    raws: Vec<Option<Vec<u8>>>,
}

impl Columns {
    fn of(results: &[Outcome]) -> Self {
        let mut columns = Self::default();
        for (event, result) in results {
            columns.event_ids.push(event.event_id.clone());
            columns.session_ids.push(event.session_id.clone());
            let (state, reason, plain) = match result {
                Decryption::Ok(plain) => ("ok", None, Some(plain)),
                Decryption::NoKey(reason) => ("no key", Some(reason.clone()), None),
                Decryption::Bad(reason) => ("bad", Some(reason.clone()), None),
            };
            columns.states.push(state);
            columns.reasons.push(reason);
            columns.indices.push(plain.map(|plain| i64::from(plain.index)));
            columns.trusts.push(plain.map(|plain| plain.origin.clone()));
            columns.types.push(plain.map(|plain| plain.event_type.clone()));
            columns.contents.push(plain.map(|plain| plain.content.clone()));
            columns.raws.push(plain.and_then(|plain| plain.raw.clone()));
        }
        columns
    }
}

async fn insert(connection: &mut PgConnection, room_id: &str, results: &[Outcome]) -> Result<(), Error> {
    let columns = Columns::of(results);
    sqlx::query!(
        "insert into archive.decrypted_events as d
             (room_id, event_id, session_id, state, reason, message_index, trust, type, content, raw)
         select $1, r.event_id, r.session_id, r.state, r.reason, r.message_index, r.trust,
                case when kept.keep_plaintext then r.type end,
                case when kept.keep_plaintext then r.content::jsonb end,
                case when kept.keep_plaintext then r.raw end
         from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[], $9::text[],
                     $10::bytea[]) as r (event_id, session_id, state, reason, message_index, trust, type, content, raw)
         cross join (select s.keep_plaintext from archive.encryption_settings s) kept
         order by r.event_id
         on conflict do nothing",
        room_id,
        &columns.event_ids,
        &columns.session_ids,
        &columns.states as &[&str],
        &columns.reasons as &[Option<String>],
        &columns.indices as &[Option<i64>],
        &columns.trusts as &[Option<String>],
        &columns.types as &[Option<String>],
        &columns.contents as &[Option<String>],
        &columns.raws as &[Option<Vec<u8>>]
    )
    .execute(connection)
    .await?;
    Ok(())
}
