-- Encrypted rooms: sessions by which messages are decrypted, and what they say. Both stand beside the events, which stay as
-- they were served. Without sessions these tables stay empty, and no query looks into them for more than a moment.
--
-- What is decrypted follows behind the writer: archive.decryption_queue names the sessions whose messages are to be looked at.

create table archive.megolm_sessions (
    first_index bigint not null,
    imported_at timestamptz not null default now(),
    room_id text collate "C" not null,
    session_id text collate "C" not null,
    key_sha256 bytea not null,
    session_key bytea not null,
    sender_key text collate "C",
    sender_ed25519 text collate "C",
    origin text collate "C" not null check (origin in ('file', 'backup', 'forwarded', 'device')),
    senders text[] collate "C" not null default '{}',
    primary key (room_id, session_id, key_sha256)
);
comment on table archive.megolm_sessions is 'Megolm sessions: with one, the messages of a room that one device sent in one stretch can be read. Of a session there are several rows only where their keys contradict each other: the one that decrypts wins.';
comment on column archive.megolm_sessions.first_index is 'The first message of the session that the key decrypts.';
comment on column archive.megolm_sessions.imported_at is 'When it was stored.';
comment on column archive.megolm_sessions.room_id is 'Room whose messages it is for. The archive need not have it.';
comment on column archive.megolm_sessions.session_id is 'Public key of the session, which signs its messages.';
comment on column archive.megolm_sessions.key_sha256 is 'SHA-256 of session_key.';
comment on column archive.megolm_sessions.session_key is 'A secret: the key in Olm''s session export format.';
comment on column archive.megolm_sessions.sender_key is 'Curve25519 key of the sender''s device, as the origin claims it; no proof of who it was.';
comment on column archive.megolm_sessions.sender_ed25519 is 'Ed25519 key of the sender''s device, as the origin claims it.';
comment on column archive.megolm_sessions.origin is 'Where it is from. file: a key file, in which nothing is signed; backup: the server-side key backup, to which everybody can write who knows its public key; forwarded: another device of the account; device: the sender''s device has sent it to the archive''s own device. Of several origins the most trusted, which is the last of these.';
comment on column archive.megolm_sessions.senders is 'The users whose devices have sent it to the archive''s own device, in most cases one. Messages of others are not readable with it. Empty: it came another way, which proves no sender.';
-- As with the content of events: samples of it would outlast its deletion.
alter table archive.megolm_sessions
    alter column session_key set statistics 0,
    alter column key_sha256 set statistics 0;

create table archive.decrypted_events (
    message_index bigint,
    decrypted_at timestamptz not null default now(),
    room_id text collate "C" not null,
    event_id text collate "C" not null,
    session_id text collate "C" not null,
    state text collate "C" not null check (state in ('ok', 'no key', 'bad', 'redacted')),
    trust text collate "C" check (trust in ('file', 'backup', 'forwarded', 'device')),
    type text collate "C",
    reason text,
    content jsonb,
    -- As in archive.events, so that a message is read without looking for its edit.
    edited_content jsonb,
    raw bytea,
    primary key (room_id, event_id),
    check (state = 'ok' or num_nonnulls(type, content, edited_content, raw) = 0)
);
comment on table archive.decrypted_events is 'What encrypted events say, or why that cannot be read. An event without a row has not been looked at, because its session is not known.';
comment on column archive.decrypted_events.message_index is 'Number of the message in its session; no two readable events have the same. null: not decrypted.';
comment on column archive.decrypted_events.decrypted_at is 'When the row was stored.';
comment on column archive.decrypted_events.room_id is 'Room.';
comment on column archive.decrypted_events.event_id is 'The event, a row of archive.events.';
comment on column archive.decrypted_events.session_id is 'The session that it names.';
comment on column archive.decrypted_events.state is 'ok: decrypted; no key: the session is known from a later message on only; bad: it is not what it claims to be; redacted: it was decrypted and then redacted, so that its number stays taken.';
comment on column archive.decrypted_events.trust is 'Where the session is from that decrypted it: megolm_sessions.origin. Only device says something about the sender.';
comment on column archive.decrypted_events.type is 'Decrypted type, escaped as in archive.events; null: not kept (encryption.keep_plaintext).';
comment on column archive.decrypted_events.reason is 'Why it cannot be read, in words.';
comment on column archive.decrypted_events.content is 'Decrypted content, without m.relates_to: relations count as they stand in the clear. Where raw is set, a copy with what jsonb cannot hold replaced.';
comment on column archive.decrypted_events.edited_content is 'm.new_content of its latest valid edit (archive.events.edited_by), if that was decrypted; null: none.';
comment on column archive.decrypted_events.raw is 'The exact bytes of the decrypted content where jsonb does not give them back.';
alter table archive.decrypted_events
    alter column content set statistics 0,
    alter column edited_content set statistics 0,
    alter column raw set statistics 0;
create unique index decrypted_events_index on archive.decrypted_events (room_id, session_id, message_index)
    where state in ('ok', 'redacted');
comment on index archive.decrypted_events_index is 'The event that has a number of a session, so that no message is readable twice.';

create index decrypted_events_polls on archive.decrypted_events (room_id)
    where type in ('m.poll.start', 'org.matrix.msc3381.poll.start');
comment on index archive.decrypted_events_polls is 'The polls of a room. Few events are in it.';

create table archive.decryption_queue (
    queued_at timestamptz not null default now(),
    newest_at timestamptz,
    tries int not null default 0,
    room_id text collate "C" not null,
    session_id text collate "C" not null,
    primary key (room_id, session_id)
);
comment on table archive.decryption_queue is 'Sessions whose messages are to be decrypted: the session or some of its messages are new. Sessions of rooms that the archive does not have wait for the room.';
comment on column archive.decryption_queue.queued_at is 'When it was last queued.';
comment on column archive.decryption_queue.newest_at is 'When its newest message was sent: that session goes first.';
comment on column archive.decryption_queue.tries is 'How often decrypting it has failed. Such a session goes after all others.';
comment on column archive.decryption_queue.room_id is 'Room.';
comment on column archive.decryption_queue.session_id is 'The session.';
create index decryption_queue_order on archive.decryption_queue (tries, newest_at desc nulls last);
comment on index archive.decryption_queue_order is 'What is next: the session with the newest message.';

create table archive.encryption_settings (
    single_row boolean primary key default true check (single_row),
    keep_plaintext boolean not null default true,
    backup_version text,
    backup_etag text,
    backup_read_at timestamptz,
    backup_problem text
);
insert into archive.encryption_settings default values;
comment on table archive.encryption_settings is 'One row: settings that the plaintexts in the archive follow.';
comment on column archive.encryption_settings.single_row is 'Always true.';
comment on column archive.encryption_settings.keep_plaintext is 'encryption.keep_plaintext, as of the last start of the daemon.';
comment on column archive.encryption_settings.backup_version is 'Version of the account''s key backup that was last read to its end; null: none was.';
comment on column archive.encryption_settings.backup_etag is 'Its etag then. A backup with the same is not read again.';
comment on column archive.encryption_settings.backup_read_at is 'When it was read.';
comment on column archive.encryption_settings.backup_problem is 'Why the key backup could not be read when that was last tried; null: it could, or none is to be read.';

-- The archive's own device, which other devices send keys to. What is secret is encrypted with a key that is not in the
-- database.
create table archive.devices (
    device_id text collate "C" primary key,
    ed25519 text collate "C" not null,
    curve25519 text collate "C" not null,
    account text collate "C" not null,
    one_time_keys bigint,
    is_published boolean not null default false,
    created_at timestamptz not null default now()
);
comment on table archive.devices is 'One row where encryption.device is set: the device of the access token, with keys of its own.';
comment on column archive.devices.device_id is 'Device id.';
comment on column archive.devices.ed25519 is 'Public key that signs for the device.';
comment on column archive.devices.curve25519 is 'Public key by which other devices address it.';
comment on column archive.devices.account is 'Its secret keys, encrypted (vodozemac''s pickle of an Olm account).';
comment on column archive.devices.one_time_keys is 'How many one-time keys the homeserver had left when it last said so.';
comment on column archive.devices.is_published is 'Whether the homeserver has its keys.';
comment on column archive.devices.created_at is 'When it was made.';
alter table archive.devices alter column account set statistics 0;

create table archive.olm_sessions (
    sender_key text collate "C",
    session_id text collate "C",
    session text collate "C" not null,
    used_at timestamptz not null default now(),
    primary key (sender_key, session_id)
);
comment on table archive.olm_sessions is 'Olm sessions, by which other devices send keys to the archive''s own device.';
comment on column archive.olm_sessions.sender_key is 'Curve25519 key of the other device.';
comment on column archive.olm_sessions.session_id is 'Id of the session.';
comment on column archive.olm_sessions.session is 'The session, encrypted (vodozemac''s pickle).';
comment on column archive.olm_sessions.used_at is 'When it last decrypted a message. Of each other device those used last are kept.';
alter table archive.olm_sessions alter column session set statistics 0;

create table archive.withheld_sessions (
    room_id text collate "C",
    session_id text collate "C",
    sender text collate "C",
    reason text not null,
    told_at timestamptz not null default now(),
    primary key (room_id, session_id, sender)
);
comment on table archive.withheld_sessions is 'Sessions whose key a sender does not give to the archive''s own device.';
comment on column archive.withheld_sessions.room_id is 'Room.';
comment on column archive.withheld_sessions.session_id is 'The session.';
comment on column archive.withheld_sessions.sender is 'Who said so. It counts for messages of this sender only.';
comment on column archive.withheld_sessions.reason is 'Why, as the sender says: a code of the specification, and perhaps a text.';
comment on column archive.withheld_sessions.told_at is 'When it was said.';

create function archive.megolm_session(content jsonb) returns text
    language sql immutable parallel safe
    return case when content ->> 'algorithm' = 'm.megolm.v1.aes-sha2' and jsonb_typeof(content -> 'session_id') = 'string'
                     -- A longer text would not fit into an index entry.
                     and octet_length(content ->> 'session_id') <= 255
                then content ->> 'session_id' end;
comment on function archive.megolm_session(jsonb) is 'The session that an encrypted event names; null: none, or of another algorithm.';

-- Only encrypted events are in it. Its condition, and that of all that asks for it, is one whose share of the rows PostgreSQL
-- estimates rightly. With `content ? 'ciphertext'` it takes one row of a thousand for encrypted, and then reads all encrypted
-- messages of a room where it should look up those of a session.
create index events_encrypted on archive.events (room_id, archive.megolm_session(content), position)
    where type = 'm.room.encrypted' and state_key is null and redacted_by is null and content -> 'ciphertext' is not null;
comment on index archive.events_encrypted is 'The messages of a session, and the encrypted messages of a room. Empty where no room is encrypted; there, 130 bytes an encrypted event.';
alter index archive.events_encrypted alter column 2 set statistics 0;

create function archive.queue_decryption(queued_room text, sessions text[]) returns bigint
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    -- A distributed database takes no function that is not immutable after `do update set`.
    called_at constant timestamptz := clock_timestamp();
    with_messages bigint;
begin
    with known as (
        select distinct k.session_id from unnest(sessions) k (session_id)
        where exists (select from archive.megolm_sessions s
                      where s.room_id = queued_room and s.session_id = k.session_id)
    ), chosen as (
        select k.session_id, newest.is_there, newest.sent_at
        from known k
        left join lateral (
            select true as is_there, e.sent_at from archive.events e
            where e.room_id = queued_room and archive.megolm_session(e.content) = k.session_id
              and e.type = 'm.room.encrypted' and e.state_key is null and e.redacted_by is null and e.content -> 'ciphertext' is not null
            order by e.position desc nulls last limit 1) newest on true
        -- A transaction may be storing the room for the first time. It holds no lock that could be waited for, and does not
        -- see new sessions either. So these wait until the room is there.
        where newest.is_there or not exists (select from archive.rooms r where r.room_id = queued_room)
    ), queued as (
        insert into archive.decryption_queue (room_id, session_id, queued_at, newest_at)
        select queued_room, c.session_id, called_at, c.sent_at from chosen c order by c.session_id
        on conflict (room_id, session_id) do update
            set queued_at = excluded.queued_at, newest_at = excluded.newest_at, tries = 0)
    select count(*) into with_messages from chosen c where c.is_there;
    return with_messages;
end
$$;
comment on function archive.queue_decryption(text, text[]) is 'Queues those of these sessions of a room that are known and have messages in the archive, and returns how many these are. Of a room that the archive does not have, all that are known.';

-- What follows from archive.decrypted_events and is kept for readers: events.hidden_type, and the content of the latest edit.
create function archive.settle_decrypted(settled_room text, event_ids text[]) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    recounted text[];
begin
    with said as materialized (
        select event.*, decrypted.type as says
        from unnest(event_ids) as asked (event_id)
        -- Lateral with a limit: one look-up in the primary key for each id, whatever the statistics are.
        cross join lateral (
            select e.event_id, e.sender, coalesce((e.sent_at at time zone 'UTC')::date, '-infinity') as day, e.type,
                   e.relates_to, e.rel_type, e.hidden_type
            from archive.events e where e.room_id = settled_room and e.event_id = asked.event_id
            limit 1
        ) event
        left join lateral (
            select d.type from archive.decrypted_events d
            where d.room_id = settled_room and d.event_id = asked.event_id and not archive.is_message(d.type, d.content)
            limit 1
        ) decrypted on true
        where event.hidden_type is distinct from decrypted.type
    ), changed as (
        update archive.events e set hidden_type = said.says from said
        where e.room_id = settled_room and e.event_id = said.event_id
    ),
    -- Until now it counted as a message. One that is redacted names no event that it reacts to any more: what that counted
    -- as is counted anew.
    counted as (
        select said.sender, said.day, count(*)::int as messages, count(*) filter (where said.says = 'm.reaction'
                                                             and said.rel_type = 'm.annotation')::int as reactions
        from said
        where said.hidden_type is null and (said.rel_type is distinct from 'm.replace' or said.relates_to is null)
        group by said.sender, said.day
    ), stored as (
        insert into archive.activity as a (room_id, day, sender, messages, reactions)
        select settled_room, c.day, c.sender, -c.messages, c.reactions from counted c order by c.day, c.sender
        on conflict (room_id, day, sender) do update
            set messages = a.messages + excluded.messages, reactions = a.reactions + excluded.reactions
    ), summed as (
        update archive.rooms r set message_count = r.message_count - c.messages
        from (select sum(counted.messages)::bigint as messages from counted) c
        where r.room_id = settled_room and c.messages <> 0
    )
    select array_agg(distinct said.sender) filter (where said.hidden_type is not null) into recounted from said;
    if recounted is not null then
        perform archive.recount_activity(settled_room, sender) from unnest(recounted) as sender;
    end if;

    update archive.decrypted_events d set edited_content = latest.content
    from (
        select message.event_id, edit.content
        from (
            select asked.event_id from unnest(event_ids) as asked (event_id)
            union
            select edited.relates_to
            from unnest(event_ids) as asked (event_id)
            cross join lateral (
                select e.relates_to from archive.events e
                where e.room_id = settled_room and e.event_id = asked.event_id and e.rel_type = 'm.replace'
                limit 1
            ) edited
        ) asked
        cross join lateral (
            select e.event_id, e.edited_by, said.type
            from archive.events e
            join archive.decrypted_events said on said.room_id = settled_room and said.event_id = e.event_id
            where e.room_id = settled_room and e.event_id = asked.event_id
            limit 1
        ) message
        left join lateral (
            select x.content -> 'm.new_content' as content from archive.decrypted_events x
            where x.room_id = settled_room and x.event_id = message.edited_by and x.type = message.type
              and jsonb_typeof(x.content -> 'm.new_content') = 'object'
            limit 1
        ) edit on true
    ) latest
    where d.room_id = settled_room and d.event_id = latest.event_id and d.edited_content is distinct from latest.content;
end
$$;
comment on function archive.settle_decrypted(text, text[]) is 'Brings what is kept for readers up to date after a change of these rows of archive.decrypted_events, or of the latest edit of these messages: events.hidden_type, what that counts as, and decrypted_events.edited_content. The transaction must hold the room''s lock.';

create function archive.forget_decrypted(forgotten_room text, forgotten text[]) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    update archive.decrypted_events d
    set state = 'redacted', type = null, content = null, edited_content = null, raw = null, reason = null
    where d.room_id = forgotten_room and d.event_id = any (forgotten) and d.state in ('ok', 'redacted');
    delete from archive.decrypted_events d
    where d.room_id = forgotten_room and d.event_id = any (forgotten) and d.state not in ('ok', 'redacted');
    perform archive.settle_decrypted(forgotten_room, forgotten);
end
$$;
comment on function archive.forget_decrypted(text, text[]) is 'Removes what these events of a room say. Their numbers in their sessions stay taken, so that a repetition is not readable either.';

create function archive.keep_plaintext(kept_room text, wanted boolean) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    sessions text[];
    hidden constant text[] := array(
        select d.event_id from archive.decrypted_events d
        where d.room_id = kept_room and not archive.is_message(d.type, d.content));
begin
    if wanted then
        -- Apart from the call: a distributed database would call the function on the room's server.
        sessions := array(
            select distinct d.session_id from archive.decrypted_events d where d.room_id = kept_room and d.state = 'ok');
        perform archive.queue_decryption(kept_room, sessions);
        delete from archive.decrypted_events d where d.room_id = kept_room and d.state = 'ok';
    else
        perform archive.search_anew(kept_room);
        update archive.decrypted_events d set type = null, content = null, edited_content = null, raw = null
        where d.room_id = kept_room and d.type is not null;
    end if;
    perform archive.settle_decrypted(kept_room, hidden);
end
$$;
comment on function archive.keep_plaintext(text, boolean) is 'After a change of encryption.keep_plaintext: queues all sessions of a room, or removes what its messages say, from the search too.';

create view public.undecryptable as
select e.room_id, archive.megolm_session(e.content) as session_id, e.sender, count(*) as events,
       min(e.sent_at) as first, max(e.sent_at) as last,
       case when d.event_id is not null then d.state || ': ' || d.reason
            when archive.megolm_session(e.content) is null then 'bad: it is not encrypted by m.megolm.v1.aes-sha2'
            else coalesce('withheld: ' || w.reason, 'no key') end as reason,
       min(e.received_at) as since
from archive.events e
left join archive.decrypted_events d on d.room_id = e.room_id and d.event_id = e.event_id
left join archive.withheld_sessions w
    on d.event_id is null and w.room_id = e.room_id and w.session_id = archive.megolm_session(e.content) and w.sender = e.sender
where e.type = 'm.room.encrypted' and e.state_key is null and e.redacted_by is null and e.content -> 'ciphertext' is not null
  and d.state is distinct from 'ok'
group by e.room_id, archive.megolm_session(e.content), e.sender, 7;
comment on view public.undecryptable is 'The encrypted messages that cannot be read, by session, sender and reason. Redacted ones do not count.';
comment on column public.undecryptable.room_id is 'Matrix room id.';
comment on column public.undecryptable.session_id is 'The session whose key is wanted; null: they name none.';
comment on column public.undecryptable.sender is 'Who sent them.';
comment on column public.undecryptable.events is 'How many messages it is.';
comment on column public.undecryptable.first is 'When the first of them was sent, as the sender''s server claims.';
comment on column public.undecryptable.last is 'When the last of them was sent.';
comment on column public.undecryptable.reason is 'no key: import one (`backscroll keys import`); no key, with more: the key is of later messages; withheld: the sender does not give it, with its reason; bad: the message is not what it claims to be, in words.';
comment on column public.undecryptable.since is 'When the first of them was archived.';

create view public.encryption_status as
select (select count(*) from archive.megolm_sessions s) as session_keys,
       (select count(*) from archive.decryption_queue q
        where exists (select from archive.rooms r where r.room_id = q.room_id)) as queued_sessions,
       (select min(q.queued_at) from archive.decryption_queue q
        where exists (select from archive.rooms r where r.room_id = q.room_id)) as oldest_queued_at,
       (select count(*) from archive.events e
        where e.type = 'm.room.encrypted' and e.state_key is null and e.redacted_by is null
          and e.content -> 'ciphertext' is not null) as encrypted_messages,
       (select count(*) from archive.decrypted_events d where d.state = 'ok') as readable_messages;
comment on view public.encryption_status is 'How much of the encrypted messages can be read, and how far decrypting is behind the archive.';
comment on column public.encryption_status.session_keys is 'Keys of sessions, also of rooms that the archive does not have.';
comment on column public.encryption_status.queued_sessions is 'Sessions some of whose messages were not looked at yet.';
comment on column public.encryption_status.oldest_queued_at is 'When the one that has waited longest was queued; null: none.';
comment on column public.encryption_status.encrypted_messages is 'Encrypted messages that were not redacted.';
comment on column public.encryption_status.readable_messages is 'Those of them that were decrypted. The view undecryptable lists the others.';
