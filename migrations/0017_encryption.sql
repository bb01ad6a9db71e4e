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
    origin text collate "C" not null check (origin in ('file', 'backup', 'device')),
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
comment on column archive.megolm_sessions.origin is 'Where it is from. file: a key file, in which nothing is signed; backup and device: not used yet.';
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
    trust text collate "C" check (trust in ('file', 'backup', 'device')),
    type text collate "C",
    reason text,
    content jsonb,
    raw bytea,
    -- The views ask this, because PostgreSQL would guess that few events are messages.
    is_message boolean generated always as (archive.is_message(type, content)) stored,
    primary key (room_id, event_id),
    check (state = 'ok' or num_nonnulls(type, content, raw) = 0)
);
comment on table archive.decrypted_events is 'What encrypted events say, or why that cannot be read. An event without a row has not been looked at, because its session is not known.';
comment on column archive.decrypted_events.message_index is 'Number of the message in its session; no two readable events have the same. null: not decrypted.';
comment on column archive.decrypted_events.decrypted_at is 'When the row was stored.';
comment on column archive.decrypted_events.room_id is 'Room.';
comment on column archive.decrypted_events.event_id is 'The event, a row of archive.events.';
comment on column archive.decrypted_events.session_id is 'The session that it names.';
comment on column archive.decrypted_events.state is 'ok: decrypted; no key: the session is known from a later message on only; bad: it is not what it claims to be; redacted: it was decrypted and then redacted, so that its number stays taken.';
comment on column archive.decrypted_events.trust is 'Where the session is from that decrypted it: file, backup or device. A file proves nothing about the sender.';
comment on column archive.decrypted_events.type is 'Decrypted type, escaped as in archive.events; null: not kept (encryption.keep_plaintext).';
comment on column archive.decrypted_events.reason is 'Why it cannot be read, in words.';
comment on column archive.decrypted_events.content is 'Decrypted content, without m.relates_to: relations count as they stand in the clear. Where raw is set, a copy with what jsonb cannot hold replaced.';
comment on column archive.decrypted_events.raw is 'The exact bytes of the decrypted content where jsonb does not give them back.';
comment on column archive.decrypted_events.is_message is 'archive.is_message() of what it says; null: not decrypted, or not kept.';
alter table archive.decrypted_events
    alter column content set statistics 0,
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
    keep_plaintext boolean not null default true
);
insert into archive.encryption_settings default values;
comment on table archive.encryption_settings is 'One row: settings that the plaintexts in the archive follow.';
comment on column archive.encryption_settings.single_row is 'Always true.';
comment on column archive.encryption_settings.keep_plaintext is 'encryption.keep_plaintext, as of the last start of the daemon.';

create function archive.megolm_session(content jsonb) returns text
    language sql immutable parallel safe
    return case when content ->> 'algorithm' = 'm.megolm.v1.aes-sha2' and jsonb_typeof(content -> 'session_id') = 'string'
                     -- A longer text would not fit into an index entry.
                     and octet_length(content ->> 'session_id') <= 255
                then content ->> 'session_id' end;
comment on function archive.megolm_session(jsonb) is 'The session that an encrypted event names; null: none, or of another algorithm.';

-- Only encrypted events are in it.
create index events_encrypted on archive.events (room_id, archive.megolm_session(content), position)
    where type = 'm.room.encrypted' and state_key is null and redacted_by is null and content ? 'ciphertext';
comment on index archive.events_encrypted is 'The messages of a session, and the encrypted messages of a room. Empty where no room is encrypted.';
alter index archive.events_encrypted alter column 2 set statistics 0;

create function archive.queue_decryption(queued_room text, sessions text[]) returns bigint
    language sql set search_path = pg_catalog, pg_temp as $$
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
              and e.type = 'm.room.encrypted' and e.state_key is null and e.redacted_by is null and e.content ? 'ciphertext'
            order by e.position desc nulls last limit 1) newest on true
        -- A transaction may be storing the room for the first time. It holds no lock that could be waited for, and does not
        -- see new sessions either. So these wait until the room is there.
        where newest.is_there or not exists (select from archive.rooms r where r.room_id = queued_room)
    ), queued as (
        insert into archive.decryption_queue (room_id, session_id, newest_at)
        select queued_room, c.session_id, c.sent_at from chosen c order by c.session_id
        on conflict (room_id, session_id) do update
            set queued_at = clock_timestamp(), newest_at = excluded.newest_at, tries = 0)
    select count(*) from chosen c where c.is_there
$$;
comment on function archive.queue_decryption(text, text[]) is 'Queues those of these sessions of a room that are known and have messages in the archive, and returns how many these are. Of a room that the archive does not have, all that are known.';

create function archive.forget_decrypted(forgotten_room text, forgotten text[]) returns void
    language sql set search_path = pg_catalog, pg_temp as $$
    update archive.decrypted_events d
    set state = 'redacted', type = null, content = null, raw = null, reason = null
    where d.room_id = forgotten_room and d.event_id = any (forgotten) and d.state in ('ok', 'redacted');
    delete from archive.decrypted_events d
    where d.room_id = forgotten_room and d.event_id = any (forgotten) and d.state not in ('ok', 'redacted')
$$;
comment on function archive.forget_decrypted(text, text[]) is 'Removes what these events of a room say. Their numbers in their sessions stay taken, so that a repetition is not readable either.';

create function archive.keep_plaintext(kept_room text, wanted boolean) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if wanted then
        perform archive.queue_decryption(kept_room, array(
            select distinct d.session_id from archive.decrypted_events d where d.room_id = kept_room and d.state = 'ok'));
        delete from archive.decrypted_events d where d.room_id = kept_room and d.state = 'ok';
    else
        perform archive.search_anew(kept_room);
        update archive.decrypted_events d set type = null, content = null, raw = null
        where d.room_id = kept_room and d.type is not null;
    end if;
end
$$;
comment on function archive.keep_plaintext(text, boolean) is 'After a change of encryption.keep_plaintext: queues all sessions of a room, or removes what its messages say, from the search too.';

-- What is encrypted is shown as what it says. Each left join is by a whole key, so PostgreSQL leaves it out where a query
-- reads none of its columns.
create or replace view public.events as
select e.room_id, e.event_id, e.position, e.type, e.sender, e.sent_at, e.state_key, e.content, e.relates_to, e.rel_type,
       e.thread_root, e.in_reply_to, e.edited_at, e.edit_count, e.edited_by, e.edited_content, e.redacts, e.redacted_by,
       e.replaces_state, e.prev_content, e.origin_server_ts, e.received_at,
       d.type as decrypted_type, d.content as decrypted_content,
       case when e.type = 'm.room.encrypted' and e.state_key is null and e.redacted_by is null and e.content ? 'ciphertext'
            then case when d.state = 'ok' then 'ok'
                      when d.event_id is not null then d.state || ': ' || d.reason
                      when archive.megolm_session(e.content) is null then 'bad: it is not encrypted by m.megolm.v1.aes-sha2'
                      else 'no key' end
       end as decryption
from archive.events e
left join archive.decrypted_events d on d.room_id = e.room_id and d.event_id = e.event_id
where archive.any_room(e.origin_server_ts);
comment on column public.events.decrypted_type is 'What the type is of an encrypted event that was decrypted; null: it was not, or what it says is not kept.';
comment on column public.events.decrypted_content is 'What an encrypted event says, without m.relates_to: relates_to and rel_type have the relation, which stands in the clear. Null as decrypted_type.';
comment on column public.events.decryption is 'Of an encrypted event: ok; no key, with more where the key is of later messages; or bad, with the reason. Null: it is not encrypted, or was redacted.';

create or replace view public.messages as
select e.room_id, e.event_id, e.position, coalesce(d.type, e.type) as type, e.sender,
       coalesce(m.shown_name, e.sender) as sender_name,
       e.sent_at,
       archive.message_body(coalesce(d.type, e.type), shown.content, e.in_reply_to, shown.is_edited) as body,
       archive.message_html(shown.content, e.in_reply_to, shown.is_edited) as formatted_body,
       archive.text_of(shown.content -> 'msgtype') as msgtype,
       case when shown.content ->> 'msgtype' in ('m.file', 'm.image', 'm.audio', 'm.video')
            then coalesce(archive.text_of(shown.content -> 'filename'), archive.text_of(shown.content -> 'body')) end
           as filename,
       case when shown.content ->> 'msgtype' = 'm.location'
                 or coalesce(d.type, e.type) in ('m.location', 'org.matrix.msc3488.location')
            then coalesce(archive.text_of(shown.content -> 'geo_uri'), archive.text_of(shown.content #> '{m.location,uri}'),
                          archive.text_of(shown.content #> '{org.matrix.msc3488.location,uri}')) end as geo_uri,
       e.thread_root, e.in_reply_to,
       e.edited_at, coalesce(e.edit_count, 0) as edit_count,
       e.redacted_by is not null as redacted,
       e.relates_to, e.rel_type,
       coalesce(
           (select coalesce(archive.name_of(before.content -> 'displayname'), e.sender)
            from archive.events before
            where before.room_id = e.room_id and before.type = 'm.room.member' and before.state_key = e.sender
              and before.position <= e.position and before.content ->> 'membership' in ('join', 'invite', 'knock')
            order by before.position desc
            limit 1),
           m.shown_name, e.sender) as sender_name_then,
       e.type = 'm.room.encrypted' as is_encrypted, case when d.type is not null then d.trust end as trust
from archive.events e
left join archive.members m on m.room_id = e.room_id and m.user_id = e.sender || ''
left join archive.decrypted_events d on d.room_id = e.room_id and d.event_id = e.event_id
left join archive.decrypted_events x
    on x.room_id = e.room_id and x.event_id = e.edited_by
   and x.type = d.type and jsonb_typeof(x.content -> 'm.new_content') = 'object'
cross join lateral (
    -- What an encrypted event says is in its ciphertext. A body beside that is not what was said.
    select case when e.type <> 'm.room.encrypted' then coalesce(e.edited_content, e.content)
                else coalesce(x.content -> 'm.new_content', d.content) end as content,
           case when e.type <> 'm.room.encrypted' then e.edited_by is not null else x.event_id is not null end as is_edited
) shown
where archive.any_room(e.origin_server_ts) and e.state_key is null
  -- Whether an edit is valid or not, it is no message of its own.
  and (e.rel_type is distinct from 'm.replace' or e.relates_to is null)
  and (e.redacted_by is null or not archive.was_redacted_with_another(e.room_id, e.event_id, e.redacted_by))
  and archive.is_message(e.type, e.content) and d.is_message is not false;
comment on view public.messages is 'What a reader of the room sees as messages: text and media, stickers, polls, locations, and the text of any other event that has one. The order of a room is: order by position. The latest valid edit is applied, and edits themselves are not listed. An encrypted message is shown as what it says, or without a body where that cannot be read. An edit that was redacted on its own is listed as a redacted message, because nothing tells any more that it was an edit.';
comment on column public.messages.room_id is 'Matrix room id.';
comment on column public.messages.event_id is 'Event id of the message (of the original, if edited).';
comment on column public.messages.position is 'Place in the room''s order.';
comment on column public.messages.type is 'Event type, of an encrypted message the decrypted one: m.room.message, m.sticker, m.poll.start, …';
comment on column public.messages.sender is 'Sender''s user id.';
comment on column public.messages.sender_name is 'Sender''s name as a client shows it today: members.shown_name, or the user id of a sender who has none.';
comment on column public.messages.sent_at is 'When the original was sent, as the sender''s server claims.';
comment on column public.messages.body is 'Text as last edited, without the quotation that older clients put before a reply; the question of a poll; the caption of a file, or its name if there is no caption. Null if redacted, or encrypted and not decrypted, or if there is no text.';
comment on column public.messages.formatted_body is 'The same text as HTML. Clients prefer it, and must clean it before they show it. Null: none.';
comment on column public.messages.msgtype is 'm.text, m.image, …; null if redacted, or encrypted and not decrypted, or of a type that has none.';
comment on column public.messages.filename is 'Name of a file, image, audio or video. If body differs, body is a caption.';
comment on column public.messages.geo_uri is 'Of a location: its geo: URI.';
comment on column public.messages.thread_root is 'First message of the thread that it belongs to; null: none.';
comment on column public.messages.in_reply_to is 'Message that it answers; null: none. In a thread also null if the answer is only for clients that do not know threads.';
comment on column public.messages.edited_at is 'When the latest valid edit was sent; null: never edited.';
comment on column public.messages.edit_count is 'Number of valid edits.';
comment on column public.messages.redacted is 'Whether the message was redacted.';
comment on column public.messages.relates_to is 'Event that the message names in m.relates_to.';
comment on column public.messages.rel_type is 'How it relates, as the message says.';
comment on column public.messages.sender_name_then is 'Sender''s display name when the message was sent, by the room''s order: of the sender''s last join, invite or knock before it, or the user id if that had none. If the archive has no such event: sender_name.';
comment on column public.messages.is_encrypted is 'Whether it was sent encrypted. Redacted messages, too, if their type says so.';
comment on column public.messages.trust is 'Of a decrypted message: where its session is from. file: a key file, which proves nothing about who sent it. Null: sent in the clear, or not decrypted.';

create or replace view public.message_versions as
select e.room_id, e.event_id, e.event_id as version_id, 1 as version, false as is_edit, e.position, e.sender,
       coalesce(member.shown_name, e.sender) as sender_name, e.sent_at, coalesce(d.type, e.type) as type,
       archive.text_of(said.content -> 'msgtype') as msgtype,
       archive.message_body(coalesce(d.type, e.type), said.content, e.in_reply_to, false) as body,
       archive.message_html(said.content, e.in_reply_to, false) as formatted_body,
       e.redacted_by is null as is_valid, e.edited_by is null or d.type is not null and edit.event_id is null as is_shown,
       case when e.redacted_by is not null then 'the message is redacted' end as reason,
       e.type = 'm.room.encrypted' as is_encrypted, case when d.type is not null then d.trust end as trust
from archive.events e
left join archive.members member on member.room_id = e.room_id and member.user_id = e.sender
left join archive.decrypted_events d on d.room_id = e.room_id and d.event_id = e.event_id
left join archive.decrypted_events edit
    on edit.room_id = e.room_id and edit.event_id = e.edited_by
   and edit.type = d.type and jsonb_typeof(edit.content -> 'm.new_content') = 'object'
-- What an encrypted event says is not in its content, whatever else is.
cross join lateral (select case when e.type <> 'm.room.encrypted' then e.content else d.content end as content) said
where archive.any_room(e.origin_server_ts) and e.state_key is null
  and (e.rel_type is distinct from 'm.replace' or e.relates_to is null)
  -- An edit that was redacted together with its message does not say any more that it was an edit, see the view messages.
  and (e.redacted_by is null or not archive.was_redacted_with_another(e.room_id, e.event_id, e.redacted_by))
  and archive.is_message(e.type, e.content) and d.is_message is not false
union all
select x.room_id, x.relates_to, x.event_id,
       1 + x.place::int,
       true, x.position, x.sender, coalesce(member.shown_name, x.sender), x.sent_at, coalesce(d.type, x.type),
       archive.text_of(said.content -> 'msgtype'),
       archive.message_body(coalesce(d.type, x.type), said.content, null, true),
       archive.message_html(said.content, null, true),
       fault.reason is null,
       fault.reason is null and e.edited_by is not distinct from x.event_id
           and (x.type <> 'm.room.encrypted' or d.type is not null or message.type is null),
       fault.reason, x.type = 'm.room.encrypted', case when d.type is not null then d.trust end
from (
    -- The latest edit wins by origin_server_ts, then by event id. An edit without a time is older than all others. The edits
    -- of a message are numbered in one go, since there can be tens of thousands. Conditions on event_id and room_id are used
    -- before, all others after the edits have been numbered.
    select o.room_id, o.relates_to, o.event_id, o.position, o.sender, o.sent_at, o.type, o.content, o.redacted_by,
           row_number() over (partition by o.room_id, o.relates_to order by o.origin_server_ts nulls first, o.event_id) as place
    from archive.events o
    where archive.any_room(o.origin_server_ts) and o.rel_type = 'm.replace' and o.relates_to is not null and o.state_key is null
) x
left join archive.events e on e.room_id = x.room_id and e.event_id = x.relates_to
left join archive.members member on member.room_id = x.room_id and member.user_id = x.sender
left join archive.decrypted_events d on d.room_id = x.room_id and d.event_id = x.event_id
left join archive.decrypted_events message on message.room_id = x.room_id and message.event_id = x.relates_to
cross join lateral (
    select case when x.type = 'm.room.encrypted' then coalesce(d.content -> 'm.new_content', d.content)
                when jsonb_typeof(x.content -> 'm.new_content') = 'object' then x.content -> 'm.new_content'
                else x.content end as content
) said
cross join lateral (
    select case when x.redacted_by is not null then 'the edit is redacted'
                when e.event_id is null then 'the message is not archived'
                when e.redacted_by is not null then 'the message is redacted'
                when e.state_key is not null then 'it edits a state event'
                when e.rel_type = 'm.replace' and e.relates_to is not null then 'it edits an edit'
                when x.sender <> e.sender then 'another user sent the message'
                when x.type <> e.type then 'the message has another type'
                when x.type <> 'm.room.encrypted' and jsonb_typeof(x.content -> 'm.new_content') is distinct from 'object'
                then 'it has no m.new_content'
                when d.type <> message.type then 'the message has another type'
                when d.type is not null and jsonb_typeof(d.content -> 'm.new_content') is distinct from 'object'
                then 'it has no m.new_content' end as reason
) fault;
comment on view public.message_versions is 'Every version of a message: what was sent first, and each edit, valid or not. Also edits whose message is not archived. A redacted edit names its message no more: it is not listed here. Choose by event_id or room_id: to choose by other columns alone, all edits are read.';
comment on column public.message_versions.room_id is 'Matrix room id.';
comment on column public.message_versions.event_id is 'The message. Of an edit: the event that it names, whatever that is.';
comment on column public.message_versions.version_id is 'The event that brought this version: the message itself, or the edit.';
comment on column public.message_versions.version is '1: the message as it was first sent, whether archived or not; its edits follow from 2 on, by the time that their sender gives.';
comment on column public.message_versions.is_edit is 'Whether this version is an edit.';
comment on column public.message_versions.position is 'Place of version_id in the room''s order.';
comment on column public.message_versions.sender is 'Who sent this version.';
comment on column public.message_versions.sender_name is 'Their name as a client shows it.';
comment on column public.message_versions.sent_at is 'When this version was sent, as the sender''s server says.';
comment on column public.message_versions.type is 'Event type of this version, of an encrypted one the decrypted type.';
comment on column public.message_versions.msgtype is 'm.text, m.image, …; null if redacted, or encrypted and not decrypted, or of a type that has none.';
comment on column public.message_versions.body is 'Text of this version, as in messages: without the quotation before a reply; null if redacted, not decrypted, or no text.';
comment on column public.message_versions.formatted_body is 'The same text as HTML; null: none.';
comment on column public.message_versions.is_valid is 'Whether the specification''s rules let this version count; see reason.';
comment on column public.message_versions.is_shown is 'Whether this is the version that the view messages shows.';
comment on column public.message_versions.reason is 'Why this version is not valid, in words; null: it is.';
comment on column public.message_versions.is_encrypted is 'Whether this version was sent encrypted.';
comment on column public.message_versions.trust is 'Of a decrypted version: where its session is from, as in messages.';

create or replace view public.files as
select e.room_id, e.event_id, e.position, e.sender, coalesce(member.shown_name, e.sender) as sender_name, e.sent_at,
       named.filename, archive.text_of(info.info -> 'mimetype') as mimetype, archive.whole_number(info.info -> 'size') as size,
       coalesce(archive.mxc_of(shown.content -> 'url'), archive.mxc_of(shown.content -> 'file' -> 'url')) as url,
       archive.mxc_of(shown.content -> 'url') is null and jsonb_typeof(shown.content -> 'file') is not distinct from 'object'
           as is_encrypted,
       coalesce(d.type, e.type) as type, archive.text_of(shown.content -> 'msgtype') as msgtype,
       archive.whole_number(info.info -> 'w') as width, archive.whole_number(info.info -> 'h') as height,
       archive.whole_number(info.info -> 'duration') as duration_ms,
       case when archive.text_of(shown.content -> 'body') is distinct from named.filename
            then archive.text_of(shown.content -> 'body') end as caption,
       coalesce(archive.mxc_of(info.info -> 'thumbnail_url'), archive.mxc_of(info.info -> 'thumbnail_file' -> 'url'))
           as thumbnail_url,
       case when d.type is not null then d.trust end as trust
from archive.events e
left join archive.members member on member.room_id = e.room_id and member.user_id = e.sender || ''
left join archive.decrypted_events d on d.room_id = e.room_id and d.event_id = e.event_id
left join archive.decrypted_events x
    on x.room_id = e.room_id and x.event_id = e.edited_by
   and x.type = d.type and jsonb_typeof(x.content -> 'm.new_content') = 'object'
cross join lateral (
    select case when e.type <> 'm.room.encrypted' then coalesce(e.edited_content, e.content)
                else coalesce(x.content -> 'm.new_content', d.content) end as content
) shown
cross join lateral (select shown.content -> 'info' as info) info
cross join lateral (
    select case when coalesce(d.type, e.type) = 'm.room.message'
                then coalesce(archive.text_of(shown.content -> 'filename'), archive.text_of(shown.content -> 'body'))
           end as filename
) named
where archive.any_room(e.origin_server_ts)
  and (coalesce(d.type, e.type) = 'm.sticker'
       or coalesce(d.type, e.type) = 'm.room.message'
          and shown.content ->> 'msgtype' in ('m.file', 'm.image', 'm.audio', 'm.video'))
  and e.state_key is null and e.redacted_by is null and (e.rel_type is distinct from 'm.replace' or e.relates_to is null);
comment on view public.files is 'Files, images, audio, videos and stickers that were sent, as last edited, without redacted ones. What an encrypted message holds is known once it was decrypted.';
comment on column public.files.room_id is 'Matrix room id.';
comment on column public.files.event_id is 'The message.';
comment on column public.files.position is 'Its place in the room''s order.';
comment on column public.files.sender is 'Sender''s user id.';
comment on column public.files.sender_name is 'Their name as a client shows it.';
comment on column public.files.sent_at is 'When it was sent, as the sender''s server says.';
comment on column public.files.filename is 'Name of the file; null of a sticker.';
comment on column public.files.mimetype is 'MIME type, as the sender says.';
comment on column public.files.size is 'Size in bytes, as the sender says; null: not said, or no size that a file can have.';
comment on column public.files.url is 'mxc: URI of the file.';
comment on column public.files.is_encrypted is 'Whether the file is encrypted; the message then holds the key.';
comment on column public.files.type is 'Event type: m.room.message or m.sticker, of an encrypted message the decrypted one.';
comment on column public.files.msgtype is 'm.file, m.image, m.audio or m.video; null of a sticker.';
comment on column public.files.width is 'Width in pixels, as the sender says.';
comment on column public.files.height is 'Height in pixels, as the sender says.';
comment on column public.files.duration_ms is 'Length of audio or video in milliseconds, as the sender says.';
comment on column public.files.caption is 'Text that was sent with the file; of a sticker, what it shows; null: none.';
comment on column public.files.thumbnail_url is 'mxc: URI of a smaller picture of it; null: none.';
comment on column public.files.trust is 'Of a decrypted message: where its session is from, as in messages.';

create or replace view public.polls as
select e.room_id, e.event_id as poll_id, e.position, e.sender, coalesce(m.shown_name, e.sender) as sender_name, e.sent_at,
       archive.poll_question(e.shown) as question,
       case when archive.poll_of(e.shown) ->> 'kind' in ('m.disclosed', 'm.poll.disclosed',
                                                               'org.matrix.msc3381.poll.disclosed')
            then 'disclosed' else 'undisclosed' end as kind,
       archive.poll_selection_limit(e.shown) as max_selections,
       archive.poll_answers(e.shown) as answers,
       ended.event_id as end_event_id, ended.sent_at as ended_at,
       ended.origin_server_ts as end_ts,
       e.trust
from (
    select p.room_id, p.event_id, p.position, p.sender, p.sent_at, coalesce(p.edited_content, p.content) as shown,
           null::text as trust
    from archive.events p
    where archive.any_room(p.origin_server_ts) and p.type in ('m.poll.start', 'org.matrix.msc3381.poll.start')
      and p.state_key is null and p.redacted_by is null
      and (p.rel_type is distinct from 'm.replace' or p.relates_to is null)
    union all
    select p.room_id, p.event_id, p.position, p.sender, p.sent_at, coalesce(edit.content -> 'm.new_content', d.content), d.trust
    from archive.decrypted_events d
    join archive.events p on p.room_id = d.room_id and p.event_id = d.event_id
    left join archive.decrypted_events edit
        on edit.room_id = p.room_id and edit.event_id = p.edited_by
       and edit.type = d.type and jsonb_typeof(edit.content -> 'm.new_content') = 'object'
    where d.type in ('m.poll.start', 'org.matrix.msc3381.poll.start')
      and (p.rel_type is distinct from 'm.replace' or p.relates_to is null)
) e
join archive.rooms r on r.room_id = e.room_id
left join archive.members m on m.room_id = e.room_id and m.user_id = e.sender
left join archive.current_state level_state
    on level_state.room_id = e.room_id and level_state.type = 'm.room.power_levels' and level_state.state_key = ''
left join archive.events levels on levels.room_id = level_state.room_id and levels.event_id = level_state.event_id
left join archive.current_state create_state
    on create_state.room_id = e.room_id and create_state.type = 'm.room.create' and create_state.state_key = ''
left join archive.events "create" on "create".room_id = create_state.room_id and "create".event_id = create_state.event_id
left join lateral (
    -- The first end counts that is by the poll's sender, or by a user who may redact what others say.
    select x.event_id, x.origin_server_ts, x.sent_at
    from archive.events x
    left join archive.decrypted_events said on said.room_id = x.room_id and said.event_id = x.event_id
    where x.room_id = e.room_id and x.relates_to = e.event_id and x.rel_type = 'm.reference'
      and coalesce(said.type, x.type) in ('m.poll.end', 'org.matrix.msc3381.poll.end') and x.state_key is null and x.redacted_by is null
      and x.origin_server_ts is not null
      and (x.sender = e.sender
           or archive.power_level(levels.content, r.room_version,
                                  archive.creators(r.room_version, "create".sender, "create".content), x.sender)
              >= greatest(coalesce(archive.level_of(levels.content -> 'redact'), 50),
                          coalesce(archive.level_of(levels.content -> 'events' -> 'm.room.redaction'),
                                   archive.level_of(levels.content -> 'events_default'), 0)))
    order by x.origin_server_ts, x.event_id
    limit 1
) ended on true;
comment on column public.polls.trust is 'Of a decrypted poll: where its session is from, as in messages.';

create or replace view public.poll_votes as
select p.room_id, p.poll_id, chosen.answer_id, chosen.answer, vote.sender,
       coalesce(m.shown_name, vote.sender) as sender_name, vote.event_id, vote.sent_at
from public.polls p
cross join lateral (
    -- Of each sender the last vote before the end, valid or not.
    select distinct on (x.sender) x.sender, x.event_id, x.sent_at, archive.poll_selections(coalesce(said.content, x.content)) as selections
    from archive.events x
    left join archive.decrypted_events said on said.room_id = x.room_id and said.event_id = x.event_id
    where x.room_id = p.room_id and x.relates_to = p.poll_id and x.rel_type = 'm.reference'
      and coalesce(said.type, x.type) in ('m.poll.response', 'org.matrix.msc3381.poll.response') and x.state_key is null and x.redacted_by is null
      and (p.end_ts is null or x.origin_server_ts <= p.end_ts)
    order by x.sender, x.origin_server_ts desc nulls last, x.event_id desc
) vote
cross join lateral (
    -- Cut to max_selections; an answer that the poll does not have spoils the vote; the same twice counts once.
    select known.id as answer_id, min(known.text) as answer, bool_and(known.id is not null) over () as is_valid
    from jsonb_array_elements(case jsonb_typeof(vote.selections) when 'array' then vote.selections else '[]' end)
        with ordinality as selection (value, place)
    left join jsonb_to_recordset(p.answers) as known (id text, text text) on known.id = archive.text_of(selection.value)
    where selection.place <= p.max_selections
    group by known.id
) chosen
left join archive.members m on m.room_id = p.room_id and m.user_id = vote.sender
where chosen.is_valid and (p.kind = 'disclosed' or p.end_event_id is not null);

create or replace function archive.build_search_blocks(built_room text, lower bigint, upper bigint, most int) returns bigint
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    bottom bigint := lower;
    top bigint := upper;
    rest bigint;
    size int;
    merged int := 0;
    neighbour record;
begin
    select e.position into rest from archive.events e
        where e.room_id = built_room and e.position between bottom and top
        order by e.position desc offset most limit 1;
    bottom := coalesce(rest + 1, bottom);
    -- All of a block is built anew. A neighbour is, too, if it is no larger: so live messages come to share a block, and each
    -- is written some seven times.
    select greatest(top, max(b.last_position)) into top from archive.search_blocks b
        where b.room_id = built_room and b.first_position between bottom and top;
    select count(*) into size from (select from archive.events e
                                    where e.room_id = built_room and e.position between bottom and top limit 127) e;
    loop
        select b.first_position, b.last_position, cardinality(b.message_offsets) as size into neighbour
            from archive.search_blocks b
            where b.room_id = built_room and b.first_position < bottom
            order by b.first_position desc limit 1;
        exit when not found
            or neighbour.last_position < bottom and (neighbour.size > least(size + merged, 126) or merged >= 127);
        bottom := neighbour.first_position;
        top := greatest(top, neighbour.last_position);
        merged := merged + neighbour.size;
    end loop;
    loop
        select b.last_position, cardinality(b.message_offsets) as size into neighbour from archive.search_blocks b
            where b.room_id = built_room and b.first_position > top
            order by b.first_position limit 1;
        exit when not found or neighbour.size > least(size + merged, 126) or merged >= 254;
        top := neighbour.last_position;
        merged := merged + neighbour.size;
    end loop;
    delete from archive.search_blocks b where b.room_id = built_room and b.first_position between bottom and top;
    with messages as materialized (
        select e.position, coalesce(e.sent_at, '-infinity') as at, e.sender,
               -- So that a block spans no more time.
               coalesce(floor(extract(epoch from e.sent_at) / 2419200), -1e9) as month,
               archive.search_words(archive.searched_text(
                   coalesce(d.type, e.type), coalesce(d.content, e.content),
                   coalesce(x.content -> 'm.new_content', e.edited_content), e.in_reply_to, true)) as words
        from archive.events e
            -- A lateral with a limit looks up each encrypted event by its key, whatever the table held when this was planned.
            left join lateral (
                select d.type, d.content from archive.decrypted_events d
                where e.type = 'm.room.encrypted' and d.room_id = built_room and d.event_id = e.event_id
                limit 1) d on true
            left join lateral (
                select x.content from archive.decrypted_events x
                where e.type = 'm.room.encrypted' and x.room_id = built_room and x.event_id = e.edited_by and x.type = d.type
                    and jsonb_typeof(x.content -> 'm.new_content') = 'object'
                limit 1) x on true
        where e.room_id = built_room and e.position between bottom and top
            and archive.is_searched(coalesce(d.type, e.type), e.state_key, e.rel_type, e.relates_to, e.redacted_by,
                                    coalesce(d.content, e.content))
    ), steps as (
        select m.*, lag(m.month) over places as month_before, lag(m.position) over places as position_before,
               (row_number() over places - 1) / 127 as stretch
        from messages m where m.words <> ' '
        window places as (order by m.position)
    ), runs as (
        select m.*, count(*) filter (where m.is_start) over (order by m.position) as run
        -- Where the times go back again and again, as a server can make them, one block has them all. A block also ends
        -- where an offset could get longer than an int: 127 times 2^24 is below 2^31.
        from (select s.*, s.position_before is null or s.position - s.position_before > 1 << 24
                          or s.month <> s.month_before
                             and count(*) filter (where s.month < s.month_before) over (partition by s.stretch) < 4 as is_start
              from steps s) m
    ), numbered as materialized (
        -- The lowest blocks of a room grow downwards, as a backward walk does.
        select (r.run << 32) + r.number / 127 as block, (r.number % 127)::int + 1 as number, r.position, r.at, r.sender,
               string_to_array(btrim(r.words), ' ') as words, octet_length(r.words) <> char_length(r.words) as has_lone
        from (select r.*, row_number() over (partition by r.run
                                             order by case when grows_down then -r.position else r.position end) - 1 as number
              from runs r,
                   (select not exists (select from archive.search_blocks b
                                       where b.room_id = built_room and b.first_position < bottom) as grows_down) way) r
    ), tokens as (
        select n.block, archive.word_token(word) | n.number as token
        from numbered n cross join unnest(n.words) word
        where not n.has_lone
        union all
        select n.block, case when ascii(word) > 3583 and char_length(word) = 1 then archive.pair_token(word, next)
                             else archive.word_token(word) end | n.number
        from numbered n cross join unnest(n.words, n.words[2:]) pair (word, next)
        where n.has_lone
        union all
        select n.block, archive.word_token('sender:' || n.sender) from numbered n group by n.block, n.sender
        union all
        select distinct n.block, archive.word_token('room:' || built_room) from numbered n
    )
    insert into archive.search_blocks (room_id, first_position, last_position, newest_at, oldest_at, message_offsets, tokens)
        select built_room, b.first_position, b.last_position, b.newest_at, b.oldest_at,
               array(select (p - b.first_position)::int from unnest(b.positions) p), t.tokens
        from (select n.block, min(n.position) as first_position, max(n.position) as last_position, max(n.at) as newest_at,
                     min(n.at) as oldest_at, array_agg(n.position order by n.number) as positions
              from numbered n group by n.block) b
            join (select t.block, array_agg(distinct t.token order by t.token) as tokens from tokens t group by t.block) t
                using (block);
    return rest;
end
$$;

create or replace function public.search(query text, room_id text default null, sender text default null, since timestamptz default null,
                              until timestamptz default null, by_rank boolean default false, max_results int default 20,
                              mark_start text default '«', mark_end text default '»')
    returns setof public.search_result
    -- Compiling takes longer than the search, and so does looking for the same row of tokens once more.
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp parallel restricted rows 20 set jit = off set enable_memoize = off as $$
#variable_conflict use_column
declare
    wanted text[] := '{}';
    unwanted text[] := '{}';
    above int[];
    up_to int[];
    all_places bigint;
    sender_token int;
    index_tokens int[];
    part record;
    block record;
    blocks refcursor;
    most int := case when search.by_rank then 1000 else least(greatest(search.max_results, 0), 1000) end;
    walked int;
    earliest timestamptz := coalesce(search.since, '-infinity');
    latest timestamptz := coalesce(search.until, 'infinity');
    from_time timestamptz := 'infinity';
    reached timestamptz;
    last_kept timestamptz;
    found_rooms text[] := '{}';
    found_positions bigint[] := '{}';
    found_times timestamptz[] := '{}';
    found_ranks real[] := '{}';
begin
    for part in
        select m[1] = '-' as is_unwanted, archive.search_words(coalesce(m[2], m[3])) as words
        from regexp_matches(left(translate(search.query, '“”„«»', '"""""'), 2000), '(-?)(?:"([^"]*)"?|([^\s"]+))', 'g') m
    loop
        if part.words <> ' ' and part.is_unwanted then
            unwanted := unwanted || part.words;
        elsif part.words <> ' ' and part.words <> all (wanted) then
            wanted := wanted || part.words;
        end if;
    end loop;
    if most = 0 then
        return;
    end if;
    if wanted = '{}' then
        raise notice 'the query has no word to search for';
        return;
    end if;
    select array_agg(t.above), array_agg(t.up_to), array_agg(t.token) into above, up_to, index_tokens
        from (select distinct t.* from unnest(wanted) words cross join archive.search_tokens(words) t limit 60) t;
    all_places := (2::bigint << cardinality(above)) - 2;
    if search.sender is not null then
        sender_token := archive.word_token('sender:' || search.sender);
        index_tokens := index_tokens || sender_token;
    end if;
    if search.room_id is not null then
        index_tokens := index_tokens || archive.word_token('room:' || search.room_id);
    end if;
    -- Few blocks span more than 28 days, if any.
    if latest < timestamptz '290000-01-01' and not exists (
        select from archive.search_blocks b
        where archive.is_wide_block(b.newest_at, b.oldest_at) and hashtext(b.room_id) = hashtext(search.room_id)
            and b.room_id = search.room_id
        union all
        select from archive.search_blocks b
        where archive.is_wide_block(b.newest_at, b.oldest_at) and search.room_id is null
    ) then
        from_time := latest + interval '28 days';
    end if;
    -- First the newest blocks, one after the other, which finds what is frequent. Then the index, which finds the rest. The
    -- tokens of a block are sorted, and width_bucket() is PostgreSQL's binary search.
    for phase in 1 .. 2 loop
        open blocks no scroll for
            select b.room_id, b.newest_at, m.position, m.sent_at, m.rank
            from (
                -- One of these, as the variables say.
                (select b.room_id, b.first_position, b.newest_at, b.tokens from archive.search_blocks b
                 where phase = 1 and hashtext(b.room_id) = hashtext(search.room_id) and b.room_id = search.room_id
                     and b.newest_at between earliest and from_time and b.oldest_at <= latest
                 order by b.newest_at desc limit 600)
                union all
                (select b.room_id, b.first_position, b.newest_at, b.tokens from archive.search_blocks b
                 where phase = 1 and search.room_id is null
                     and b.newest_at between earliest and from_time and b.oldest_at <= latest
                 order by b.newest_at desc limit 600)
                union all
                (select b.room_id, b.first_position, b.newest_at, b.tokens
                 -- In a subquery, so that it is read by the index of tokens and no other. Reading the tokens of all blocks of a
                 -- time would take minutes.
                 from (select * from archive.search_blocks b
                       where phase = 2 and archive.block_tokens(b.tokens) @> index_tokens offset 0) b
                 where (search.room_id is null or b.room_id = search.room_id)
                     and b.newest_at between earliest and from_time and b.oldest_at <= latest
                 order by b.newest_at desc)) b
                -- So that the tokens are read once.
                cross join lateral (select b.tokens || '{}'::int[] as tokens offset 0) t
                -- The messages that have all tokens.
                cross join lateral (
                    select array_agg(m.number) as numbers
                    from (select token & 127 as number
                          from unnest(above, up_to) with ordinality w (above, up_to, place)
                              cross join unnest(t.tokens[width_bucket(w.above, t.tokens) + 1
                                                         : width_bucket(w.up_to, t.tokens)]) token
                          group by number having bit_or(1::bigint << w.place::int) = all_places) m
                    where (select bool_and(width_bucket(w.up_to, t.tokens) > width_bucket(w.above, t.tokens))
                           from unnest(above, up_to) w (above, up_to))
                        and (sender_token is null
                             or width_bucket(sender_token, t.tokens) > width_bucket(sender_token - 1, t.tokens))) n
                -- Those that have the words.
                left join lateral (
                    select e.position, e.sent_at, said.rank
                    from archive.events e
                        left join lateral (
                            select d.type, d.content from archive.decrypted_events d
                            where e.type = 'm.room.encrypted' and d.room_id = e.room_id and d.event_id = e.event_id
                            limit 1) d on true
                        left join lateral (
                            select x.content from archive.decrypted_events x
                            where e.type = 'm.room.encrypted' and x.room_id = e.room_id and x.event_id = e.edited_by
                                and x.type = d.type and jsonb_typeof(x.content -> 'm.new_content') = 'object'
                            limit 1) x on true
                        cross join lateral (
                            select (select sum(t.times / (t.times + 0.5 + char_length(said.words) / 100.0))
                                    from (select (char_length(said.words) - char_length(replace(said.words, w, '')))
                                                 / char_length(w)::float8 as times
                                          from unnest(wanted) w) t)::real as rank
                            from (select archive.search_words(archive.searched_text(
                                             coalesce(d.type, e.type), coalesce(d.content, e.content),
                                             coalesce(x.content -> 'm.new_content', e.edited_content), e.in_reply_to,
                                             true)) as words offset 0) said
                            where not exists (select from unnest(wanted) w where strpos(said.words, w) = 0)
                                and not exists (select from unnest(unwanted) w where strpos(said.words, w) > 0)) said
                    where e.room_id = b.room_id
                        and e.position = any (array(
                            select o.first_position + o.message_offsets[number]
                            from archive.search_blocks o cross join unnest(n.numbers) number
                            where o.room_id = b.room_id and o.first_position = b.first_position))
                        and archive.is_searched(coalesce(d.type, e.type), e.state_key, e.rel_type, e.relates_to,
                                                e.redacted_by, coalesce(d.content, e.content))
                        and (search.sender is null or e.sender = search.sender)
                        and (search.since is null or e.sent_at >= search.since)
                        and (search.until is null or e.sent_at <= search.until)
                        -- Most blocks have no such message. Without the offset, their events would be looked for, too.
                        and n.numbers is not null
                    offset 0) m on true;
        walked := 0;
        loop
            fetch blocks into block;
            -- Of very many messages of one time, some are enough.
            exit when not found or block.newest_at < last_kept
                or block.newest_at = last_kept and cardinality(found_times) >= 4 * most;
            walked := walked + 1;
            reached := block.newest_at;
            -- Blocks of the same time may come once more in the second phase.
            continue when block.position is null
                or phase = 2 and exists (select from unnest(found_rooms, found_positions) f (r, p)
                                         where f.r = block.room_id and f.p = block.position);
            found_rooms := found_rooms || block.room_id;
            found_positions := found_positions || block.position;
            found_times := found_times || coalesce(block.sent_at, '-infinity');
            found_ranks := found_ranks || block.rank;
            if cardinality(found_times) >= most then
                select f.t into last_kept from unnest(found_times) f (t) order by f.t desc offset most - 1 limit 1;
            end if;
        end loop;
        close blocks;
        -- All has been walked, or enough was found.
        exit when walked < 600 or reached < last_kept;
        from_time := reached;
    end loop;
    return query
        select f.room_id, e.event_id, e.position, e.sender,
               coalesce((select m.shown_name from archive.members m
                         where m.room_id = f.room_id and m.user_id = e.sender), e.sender),
               e.sent_at,
               archive.searched_text(said.type, said.content, said.edited_content, e.in_reply_to, false),
               archive.mark_words(archive.searched_text(said.type, said.content, said.edited_content, e.in_reply_to, true),
                                  wanted, search.mark_start, search.mark_end),
               f.rank
        from (select * from (select * from unnest(found_rooms, found_positions, found_times, found_ranks)
                                     f (room_id, position, at, rank)
                             order by f.at desc, f.position desc limit most) f
              order by case when search.by_rank then f.rank end desc, f.at desc, f.position desc
              limit least(greatest(search.max_results, 0), 1000)) f
            join archive.events e on e.room_id = f.room_id and e.position = f.position
            left join lateral (
                select d.type, d.content from archive.decrypted_events d
                where e.type = 'm.room.encrypted' and d.room_id = e.room_id and d.event_id = e.event_id
                limit 1) d on true
            left join lateral (
                select x.content from archive.decrypted_events x
                where e.type = 'm.room.encrypted' and x.room_id = e.room_id and x.event_id = e.edited_by
                    and x.type = d.type and jsonb_typeof(x.content -> 'm.new_content') = 'object'
                limit 1) x on true
            cross join lateral (
                select coalesce(d.type, e.type) as type, coalesce(d.content, e.content) as content,
                       coalesce(x.content -> 'm.new_content', e.edited_content) as edited_content
            ) said
        order by case when search.by_rank then f.rank end desc, f.at desc, f.position desc;
end
$$;
comment on function public.search(text, text, text, timestamptz, timestamptz, boolean, int, text, text) is 'The messages with all words of a query, newest first. "A phrase" stands in double quotes; -word: without it. Case and accents do not matter. by_rank: the best of the newest 1,000. At most 1,000 results. Not found: encrypted messages that were not decrypted, and events without a position.';

create view public.undecryptable as
select e.room_id, archive.megolm_session(e.content) as session_id, e.sender, count(*) as events,
       min(e.sent_at) as first, max(e.sent_at) as last, why.reason, min(e.received_at) as since
from archive.events e
left join archive.decrypted_events d on d.room_id = e.room_id and d.event_id = e.event_id
cross join lateral (
    select case when d.event_id is not null then d.state || ': ' || d.reason
                when archive.megolm_session(e.content) is null then 'bad: it is not encrypted by m.megolm.v1.aes-sha2'
                else 'no key' end as reason
) why
where e.type = 'm.room.encrypted' and e.state_key is null and e.redacted_by is null and e.content ? 'ciphertext'
  and d.state is distinct from 'ok'
group by e.room_id, archive.megolm_session(e.content), e.sender, why.reason;
comment on view public.undecryptable is 'The encrypted messages that cannot be read, by session, sender and reason. Redacted ones do not count.';
comment on column public.undecryptable.room_id is 'Matrix room id.';
comment on column public.undecryptable.session_id is 'The session whose key is wanted; null: they name none.';
comment on column public.undecryptable.sender is 'Who sent them.';
comment on column public.undecryptable.events is 'How many messages it is.';
comment on column public.undecryptable.first is 'When the first of them was sent, as the sender''s server claims.';
comment on column public.undecryptable.last is 'When the last of them was sent.';
comment on column public.undecryptable.reason is 'no key: import one (`backscroll keys import`); no key, with more: the key is of later messages; bad: the message is not what it claims to be, in words.';
comment on column public.undecryptable.since is 'When the first of them was archived.';

create view public.encryption_status as
select (select count(*) from archive.megolm_sessions s) as session_keys,
       (select count(*) from archive.decryption_queue q
        where exists (select from archive.rooms r where r.room_id = q.room_id)) as queued_sessions,
       (select min(q.queued_at) from archive.decryption_queue q
        where exists (select from archive.rooms r where r.room_id = q.room_id)) as oldest_queued_at,
       (select count(*) from archive.events e
        where e.type = 'm.room.encrypted' and e.state_key is null and e.redacted_by is null
          and e.content ? 'ciphertext') as encrypted_messages,
       (select count(*) from archive.decrypted_events d where d.state = 'ok') as readable_messages;
comment on view public.encryption_status is 'How much of the encrypted messages can be read, and how far decrypting is behind the archive.';
comment on column public.encryption_status.session_keys is 'Keys of sessions, also of rooms that the archive does not have.';
comment on column public.encryption_status.queued_sessions is 'Sessions some of whose messages were not looked at yet.';
comment on column public.encryption_status.oldest_queued_at is 'When the one that has waited longest was queued; null: none.';
comment on column public.encryption_status.encrypted_messages is 'Encrypted messages that were not redacted.';
comment on column public.encryption_status.readable_messages is 'Those of them that were decrypted. The view undecryptable lists the others.';

create or replace function archive.reader_views() returns name[] language sql immutable parallel safe
    return array['events', 'messages', 'reactions', 'members', 'current_state', 'state_history', 'rooms', 'gaps',
                 'backfill', 'polls', 'poll_votes', 'beacons', 'message_versions', 'threads', 'poll_results', 'pins',
                 'membership_history', 'upgrades', 'conversations', 'files', 'activity', 'redacted_events', 'state_events',
                 'state_changes', 'verifications', 'only_here', 'seals', 'search_status', 'imported_events',
                 'undecryptable', 'encryption_status']::name[];
select archive.renew_reader_views();
