-- The views for readers, in schema public. They show what a Matrix client shows.
--
-- How a view keeps a query fast:
-- * It has the condition archive.any_room(). Then PostgreSQL may use the indexes that find an event without its room: by
--   its id, its sender, its thread, or the event that it answers.
-- * A column of an index stands in the view as it is, without a function around it.
-- * Names of senders come by a left join on the primary key of archive.members. PostgreSQL leaves the join out if a query
--   does not read them.
-- * What people wrote has the collation of the database, because of `collate "default"`: it would else have that of an id
--   beside it, which is C, and `ilike` and `lower` would know the letters of English alone.
-- * `|| ''` changes nothing but that PostgreSQL does not know of one sender in all rows. It would read all members for the
--   few rows of that user.

-- What is encrypted is shown as what it says, here and in the views below. Each left join is by a whole key, so PostgreSQL
-- leaves it out where a query reads none of its columns.
create view public.events as
select e.room_id, e.event_id, e.position, e.type, e.sender, e.sent_at, e.state_key, e.content, e.relates_to, e.rel_type,
       e.thread_root, e.in_reply_to, e.edited_at, e.edit_count, e.edited_by, e.edited_content, e.redacts, e.redacted_by,
       e.replaces_state, e.prev_content, e.origin_server_ts, e.received_at,
       d.type as decrypted_type, d.content as decrypted_content,
       case when e.type = 'm.room.encrypted' and e.state_key is null and e.redacted_by is null and e.content -> 'ciphertext' is not null
            then case when d.state = 'ok' then 'ok'
                      when d.event_id is not null then d.state || ': ' || d.reason
                      when archive.megolm_session(e.content) is null then 'bad: it is not encrypted by m.megolm.v1.aes-sha2'
                      else coalesce((select 'withheld: ' || w.reason from archive.withheld_sessions w
                                     where w.room_id = e.room_id and w.session_id = archive.megolm_session(e.content)
                                       and w.sender = e.sender), 'no key') end
       end as decryption
from archive.events e
left join archive.decrypted_events d on d.room_id = e.room_id and d.event_id = e.event_id
where archive.any_room(e.origin_server_ts);
comment on view public.events is 'Every archived event. The order of a room is: order by position. Where position is null, the event is known from the room''s state, but not (yet) seen in the timeline.';
comment on column public.events.room_id is 'Matrix room id.';
comment on column public.events.event_id is 'Matrix event id.';
comment on column public.events.position is 'Place in the room''s order. It never changes, except by `backscroll resequence`.';
comment on column public.events.type is 'Event type. U+F8FE begins an escape: U+F8FE 0 stands for NUL, U+F8FE 1 for U+F8FE.';
comment on column public.events.sender is 'Sender''s user id.';
comment on column public.events.sent_at is 'When it was sent, as the sender''s server claims. It is no order. Null if the claim is no time.';
comment on column public.events.state_key is 'State key; null: not a state event.';
comment on column public.events.content is 'Content, pruned if redacted.';
comment on column public.events.relates_to is 'Event that it relates to.';
comment on column public.events.rel_type is 'How it relates: m.replace, m.annotation, m.thread, m.reference, …';
comment on column public.events.thread_root is 'First message of the thread that it belongs to; null: none.';
comment on column public.events.in_reply_to is 'Event that it answers; null: none. In a thread also null if the answer is only for clients that do not know threads.';
comment on column public.events.edited_at is 'When the latest valid edit was sent; null: never edited.';
comment on column public.events.edit_count is 'Number of valid edits; null: none.';
comment on column public.events.edited_by is 'Event id of the latest valid edit; null: never edited.';
comment on column public.events.edited_content is 'Content after the latest valid edit (its m.new_content); null: never edited, or encrypted.';
comment on column public.events.redacts is 'Of a redaction: the redacted event.';
comment on column public.events.redacted_by is 'The event that redacted it; null: not redacted. Of an edit also the one that redacted the message which it edits.';
comment on column public.events.replaces_state is 'Of a state event: the state event that it replaced, as the server says.';
comment on column public.events.prev_content is 'Of a state event: content of the event that it replaced, if the server told both that and replaces_state.';
comment on column public.events.origin_server_ts is 'sent_at in milliseconds since 1970, as served.';
comment on column public.events.received_at is 'When it was archived.';
comment on column public.events.decrypted_type is 'What the type is of an encrypted event that was decrypted; null: it was not, or what it says is not kept.';
comment on column public.events.decrypted_content is 'What an encrypted event says, without m.relates_to: relates_to and rel_type have the relation, which stands in the clear. Null as decrypted_type.';
comment on column public.events.decryption is 'Of an encrypted event: ok; no key, with more where the key is of later messages; withheld, with what its sender says; or bad, with the reason. Null: it is not encrypted, or was redacted.';

-- When a message is redacted, Backscroll redacts its edits, too. A redacted edit has no m.relates_to, so nothing in it says
-- that it was an edit. But the redaction in its redacted_by names the message and not the edit.
-- This is a function because a subquery about each row would keep PostgreSQL from running the query in parallel. It is a
-- security definer because readers may not read archive.events. They call it for rows that they see.
create function archive.was_redacted_with_another(room_id text, event_id text, redacted_by text) returns boolean
    language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
begin
    return exists (select from archive.events redaction
                   where redaction.room_id = was_redacted_with_another.room_id
                     and redaction.event_id = was_redacted_with_another.redacted_by
                     and redaction.redacts <> was_redacted_with_another.event_id);
end
$$;
comment on function archive.was_redacted_with_another(text, text, text) is 'Whether the redaction of an event names another event, as that of a message redacts its edits too.';

-- PostgreSQL puts the bodies of these functions into the query. A lateral would read better. But the view threads reads messages
-- in subqueries, and a distributed database refuses there a lateral that reads no table.
create function archive.shown_content(
    type text, content jsonb, edited_content jsonb, decrypted_content jsonb, decrypted_edit jsonb
) returns jsonb
    language sql immutable parallel safe
    -- What an encrypted event says is in its ciphertext. A body beside that is not what was said.
    return case when type <> 'm.room.encrypted' then coalesce(edited_content, content)
                else coalesce(decrypted_edit, decrypted_content) end;
comment on function archive.shown_content(text, jsonb, jsonb, jsonb, jsonb) is 'What a client shows of a message: its content as last edited, of an encrypted one the decrypted content; null: not decrypted.';

create function archive.shows_edit(type text, edited_by text, decrypted_edit jsonb) returns boolean
    language sql immutable parallel safe
    return case when type <> 'm.room.encrypted' then edited_by is not null else decrypted_edit is not null end;
comment on function archive.shows_edit(text, text, jsonb) is 'Whether archive.shown_content is that of an edit.';

create function archive.message_filename(content jsonb) returns text
    language sql immutable parallel safe
    return case when content ->> 'msgtype' in ('m.file', 'm.image', 'm.audio', 'm.video')
                then coalesce(archive.text_of(content -> 'filename'), archive.text_of(content -> 'body')) end;
comment on function archive.message_filename(jsonb) is 'Name of the file, image, audio or video that a message has; null: none.';

create function archive.message_geo_uri(type text, content jsonb) returns text
    language sql immutable parallel safe
    return case when content ->> 'msgtype' = 'm.location' or type in ('m.location', 'org.matrix.msc3488.location')
                then coalesce(archive.text_of(content -> 'geo_uri'), archive.text_of(content #> '{m.location,uri}'),
                              archive.text_of(content #> '{org.matrix.msc3488.location,uri}')) end;
comment on function archive.message_geo_uri(text, jsonb) is 'Where a location is; null: the message has none.';

create view public.messages as
select e.room_id, e.event_id, e.position, coalesce(d.type, e.type) as type, e.sender,
       coalesce(m.shown_name, e.sender) collate "default" as sender_name,
       e.sent_at,
       archive.message_body(
           coalesce(d.type, e.type),
           archive.shown_content(e.type, e.content, e.edited_content, d.content, d.edited_content),
           e.in_reply_to, archive.shows_edit(e.type, e.edited_by, d.edited_content)) collate "default" as body,
       archive.message_html(
           archive.shown_content(e.type, e.content, e.edited_content, d.content, d.edited_content),
           e.in_reply_to, archive.shows_edit(e.type, e.edited_by, d.edited_content)) collate "default" as formatted_body,
       archive.text_of(archive.shown_content(e.type, e.content, e.edited_content, d.content, d.edited_content) -> 'msgtype')
           as msgtype,
       archive.message_filename(archive.shown_content(e.type, e.content, e.edited_content, d.content, d.edited_content))
           as filename,
       archive.message_geo_uri(
           coalesce(d.type, e.type),
           archive.shown_content(e.type, e.content, e.edited_content, d.content, d.edited_content)) collate "default" as geo_uri,
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
           m.shown_name, e.sender) collate "default" as sender_name_then,
       e.type = 'm.room.encrypted' as is_encrypted, case when d.type is not null then d.trust end as trust
from archive.events e
left join archive.members m on m.room_id = e.room_id and m.user_id = e.sender || ''
left join archive.decrypted_events d on d.room_id = e.room_id and d.event_id = e.event_id
where archive.any_room(e.origin_server_ts) and e.state_key is null
  -- Whether an edit is valid or not, it is no message of its own.
  and (e.rel_type is distinct from 'm.replace' or e.relates_to is null)
  and (e.redacted_by is null or not archive.was_redacted_with_another(e.room_id, e.event_id, e.redacted_by))
  and archive.is_message(e.type, e.content) and e.hidden_type is null;
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
comment on column public.messages.trust is 'Of a decrypted message: where its session is from. device: the sender''s device has sent it to the archive''s own device; forwarded: another device of the account; backup, file: the key backup or a key file, which prove nothing about who sent it. Null: sent in the clear, or not decrypted.';

-- Specification, "Event annotations and reactions": a reaction counts once for each sender and key, as long as neither it nor
-- its target is redacted. Nobody can react to a reaction or an edit.
create view public.reactions as
select e.room_id, e.event_id, e.position, e.relates_to, archive.text_of(e.content #> '{m.relates_to,key}') as key, e.sender,
       coalesce(m.shown_name, e.sender) collate "default" as sender_name,
       e.sent_at
from archive.events e
-- A left join, of which PostgreSQL expects a row for each reaction. Of a join it would expect a 200th of that, because it has no
-- statistics of room_id. The `coalesce` below keeps it a left join. `any` makes PostgreSQL look up each target by the primary
-- key. It would read all events into a hash table, to look for the few targets of reactions there.
left join archive.events target on target.room_id = e.room_id and target.event_id = any (array[e.relates_to])
left join archive.members m on m.room_id = e.room_id and m.user_id = e.sender || ''
where archive.any_room(e.origin_server_ts)
  and e.rel_type = 'm.annotation' and (e.type = 'm.reaction' or e.hidden_type = 'm.reaction')
  and e.state_key is null and e.redacted_by is null and archive.text_of(e.content #> '{m.relates_to,key}') <> ''
  and coalesce(target.event_id is not null and target.redacted_by is null
               and (target.rel_type is null or target.rel_type not in ('m.annotation', 'm.replace') or target.relates_to is null),
               false)
  and not exists (
      select from archive.events earlier
      where earlier.room_id = e.room_id and earlier.relates_to = e.relates_to and earlier.rel_type = 'm.annotation'
        and 'm.reaction' in (earlier.type, earlier.hidden_type) and earlier.state_key is null and earlier.redacted_by is null
        and earlier.sender = e.sender and earlier.content #> '{m.relates_to,key}' = e.content #> '{m.relates_to,key}'
        and (earlier.position, earlier.event_id) < (e.position, e.event_id));
comment on view public.reactions is 'Reactions in force, each once by target, sender and key: of equal ones the first. Reactions to a redacted message are not shown, nor those to an event that the archive does not have in the room.';
comment on column public.reactions.room_id is 'Matrix room id.';
comment on column public.reactions.event_id is 'Event id of the reaction.';
comment on column public.reactions.position is 'Place in the room''s order.';
comment on column public.reactions.relates_to is 'Event that was reacted to.';
comment on column public.reactions.key is 'The reaction, mostly an emoji; never empty.';
comment on column public.reactions.sender is 'Who reacted.';
comment on column public.reactions.sender_name is 'Their name as a client shows it, as in messages.';
comment on column public.reactions.sent_at is 'When, as the sender''s server claims.';

create view public.members as
select m.room_id, m.user_id, m.membership, m.shown_name, m.display_name, m.avatar_url,
       -- Not a join, because of join_collapse_limit: see the view rooms.
       (select archive.power_level(levels.content, r.room_version,
                                   archive.creators(r.room_version, "create".sender, "create".content), m.user_id)
        from archive.rooms r
        left join archive.current_state level_state
            on level_state.room_id = r.room_id and level_state.type = 'm.room.power_levels' and level_state.state_key = ''
        left join archive.events levels on levels.room_id = level_state.room_id and levels.event_id = level_state.event_id
        left join archive.current_state create_state
            on create_state.room_id = r.room_id and create_state.type = 'm.room.create' and create_state.state_key = ''
        left join archive.events "create"
            on "create".room_id = create_state.room_id and "create".event_id = create_state.event_id
        where r.room_id = m.room_id) as power_level,
       archive.text_of(e.content -> 'reason') as reason, e.sender, e.event_id, e.sent_at
from archive.members m
left join archive.events e on e.room_id = m.room_id and e.event_id = m.event_id;
comment on view public.members is 'Current membership of every user that a room has seen.';
comment on column public.members.room_id is 'Matrix room id.';
comment on column public.members.user_id is 'User id.';
comment on column public.members.membership is 'join, leave, invite, ban or knock.';
comment on column public.members.shown_name is 'What a client shows: the display name, followed by the user id if another member has the same; the user id if there is none.';
comment on column public.members.display_name is 'Display name in this room; of a user who has left or was banned, the last one; null: none. Others may have the same: see shown_name.';
comment on column public.members.avatar_url is 'mxc: URI of the avatar in this room; of a user who has left or was banned, the last one; null: none.';
comment on column public.members.power_level is 'Power level; infinite for creators from room version 12 on.';
comment on column public.members.reason is 'Reason given for the last change.';
comment on column public.members.sender is 'Who made the last change.';
comment on column public.members.event_id is 'The member event in force.';
comment on column public.members.sent_at is 'When the last change was sent, be it of the membership or of a name, as the sender''s server claims. When a member joined: membership_history.joined_at.';

create view public.current_state as
select s.room_id, s.type, s.state_key, s.event_id, e.sender, e.sent_at, e.content,
       coalesce(
           e.prev_content,
           (select replaced.content from archive.events replaced
            where replaced.room_id = e.room_id and replaced.event_id = e.replaces_state),
           (select p.content from archive.events p
            where e.replaces_state is null
              and p.room_id = e.room_id and p.type = e.type and p.state_key = e.state_key and p.position < e.position
            order by p.position desc
            limit 1),
           (select u.prev_content from archive.unnamed_prev_content u
            where u.room_id = e.room_id and u.event_id = e.event_id)) as prev_content,
       e.origin_server_ts, s.changed_at
from archive.current_state s
join archive.events e on e.room_id = s.room_id and e.event_id = s.event_id;
comment on view public.current_state is 'The state in force in each room, one row for each (room_id, type, state_key), on the server''s word.';
comment on column public.current_state.room_id is 'Matrix room id.';
comment on column public.current_state.type is 'Event type.';
comment on column public.current_state.state_key is 'State key.';
comment on column public.current_state.event_id is 'The event in force.';
comment on column public.current_state.sender is 'Who set it.';
comment on column public.current_state.sent_at is 'When it was sent, as the sender''s server claims.';
comment on column public.current_state.content is 'The value in force.';
comment on column public.current_state.prev_content is 'The value before it, as in state_history.';
comment on column public.current_state.origin_server_ts is 'sent_at in milliseconds since 1970, as served.';
comment on column public.current_state.changed_at is 'When the archive learnt that it is in force.';

create view public.state_history as
select e.room_id, e.type, e.state_key, e.position, e.event_id, e.sender, e.sent_at, e.content,
       coalesce(e.prev_content, replaced.content, before.content, unnamed.prev_content) as prev_content,
       coalesce(e.replaces_state, before.event_id) as prev_event_id,
       case when e.prev_content is not null then 'served'
            when replaced.event_id is not null then 'replaces_state'
            when before.event_id is not null then 'order'
            else unnamed.source end as prev_source,
       e.origin_server_ts
from archive.events e
left join archive.events replaced on replaced.room_id = e.room_id and replaced.event_id = e.replaces_state
left join lateral (
    select p.event_id, p.content
    from archive.events p
    where e.replaces_state is null
      and p.room_id = e.room_id and p.type = e.type and p.state_key = e.state_key and p.position < e.position
    order by p.position desc
    limit 1
) before on true
left join archive.unnamed_prev_content unnamed on unnamed.room_id = e.room_id and unnamed.event_id = e.event_id
where archive.any_room(e.origin_server_ts) and e.state_key is not null;
comment on view public.state_history is 'Every value that a state key has had: order by position within (room_id, type, state_key). Includes events that lost a fork.';
comment on column public.state_history.room_id is 'Matrix room id.';
comment on column public.state_history.type is 'Event type.';
comment on column public.state_history.state_key is 'State key.';
comment on column public.state_history.position is 'Place in the room''s order; null: only known from the room''s state.';
comment on column public.state_history.event_id is 'The state event.';
comment on column public.state_history.sender is 'Who set it.';
comment on column public.state_history.sent_at is 'When it was sent, as the sender''s server claims.';
comment on column public.state_history.content is 'The value.';
comment on column public.state_history.prev_content is 'The value before it. prev_source says where that is from.';
comment on column public.state_history.prev_event_id is 'The event before it: replaces_state, or else the one before it in the room''s order.';
comment on column public.state_history.prev_source is 'Where prev_content is from. served: with the event. replaces_state: the archived event that it replaces. order: the archived event before it in the timeline. If the archive has neither, top level: the event itself says so, and its sender may have written it.';
comment on column public.state_history.origin_server_ts is 'sent_at in milliseconds since 1970, as served.';

create index current_state_tombstones on archive.current_state (room_id)
    where type = 'm.room.tombstone' and state_key = '';
comment on index archive.current_state_tombstones is 'The rooms that were upgraded. Few are.';

-- This is the only place that compares rooms with each other. A distributed database (deploy/citus.sql) collects what a
-- materialized `with` reads before it is joined with another room, which may be on another server. Few rows are collected.
create view public.upgrades as
with tombstone as materialized (
    select s.room_id, archive.text_of(e.content -> 'replacement_room') as replacement_room
    from archive.current_state s
    join archive.events e on e.room_id = s.room_id and e.event_id = s.event_id
    where s.type = 'm.room.tombstone' and s.state_key = ''
), upgrade as materialized (
    select tombstone.room_id, s.room_id as successor
    from tombstone
    join archive.current_state s
        on s.room_id = tombstone.replacement_room and s.type = 'm.room.create' and s.state_key = ''
    join archive.events "create" on "create".room_id = s.room_id and "create".event_id = s.event_id
    where "create".content -> 'predecessor' ->> 'room_id' = tombstone.room_id and s.room_id <> tombstone.room_id
)
select upgrade.room_id, upgrade.successor
from upgrade;
comment on view public.upgrades is 'Rooms that were replaced by another one: the tombstone of the old room and the create event of the new one name each other, and both are archived. (Anybody may claim another room as the past of their own.)';
comment on column public.upgrades.room_id is 'The old room.';
comment on column public.upgrades.successor is 'The new room.';

-- What is found out of a room stands in one lateral:
-- * PostgreSQL plans a query as a whole as long as it joins eight relations at most (join_collapse_limit), those of its views
--   included. With more, it would read all messages before it joins them with a room.
-- * It is found out once for each room, and not for each row of a join (Memoize). So only one condition names the room.
-- * What a query does not read is not found out.
create view public.rooms as
select r.room_id,
       coalesce(
           shown.name, shown.canonical_alias,
           case when r.membership in ('invite', 'knock') then (
               select coalesce(
                          archive.list_names(array_agg(h.name order by h.user_id), 0),
                          -- If only the invite itself names anybody: who invites.
                          (select s.sender from archive.stripped_state s
                           where s.room_id = r.room_id and s.type = 'm.room.member' and s.sender <> s.state_key
                             and s.state_key = (select archive.account_user_id())),
                          'Empty Room')
               from (select s.state_key as user_id, coalesce(archive.name_of(s.content -> 'displayname'), s.state_key) as name
                     from archive.stripped_state s
                     where s.room_id = r.room_id and s.type = 'm.room.member'
                       and s.content ->> 'membership' in ('join', 'invite')
                       and s.state_key is distinct from (select archive.account_user_id())
                     order by s.state_key
                     limit 5) h)
           else (
               select case when present > 0 then archive.list_names(first_present, present - cardinality(first_present))
                           when past > 0
                           then 'Empty Room (was ' || archive.list_names(first_past, past - cardinality(first_past)) || ')'
                           else 'Empty Room' end
               from (
                   select count(*) filter (where m.membership in ('join', 'invite')) as present,
                          count(*) filter (where m.membership in ('leave', 'ban')) as past,
                          (array_agg(m.shown_name order by e.position nulls first, m.user_id)
                               filter (where m.membership in ('join', 'invite')))[:5] as first_present,
                          (array_agg(m.shown_name order by e.position nulls first, m.user_id)
                               filter (where m.membership in ('leave', 'ban')))[:5] as first_past
                   from archive.members m
                   join archive.events e on e.room_id = m.room_id and e.event_id = m.event_id
                   where m.room_id = r.room_id and m.user_id is distinct from (select archive.account_user_id())
               ) counted) end
       ) collate "default" as display_name,
       -- Of a condition on `shown` alone, PostgreSQL expects one row for every room. Here it is on two relations.
       case when r.room_id is not null then shown.name end as name,
       shown.canonical_alias,
       shown.topic,
       shown.avatar_url,
       shown.room_type,
       r.room_version,
       shown.creators[1] as creator,
       shown.creators,
       r.membership,
       case when r.history_state <> 'complete' then r.history_state else coalesce(shown.missing[1], 'complete') end
           as history_state,
       case when r.history_state <> 'complete' then r.history_reason
            when shown.missing is not null then shown.missing[2]
            else shown.unread end as history_reason,
       r.event_count, r.message_count,
       shown.oldest_ts,
       shown.newest_ts,
       (select u.room_id from public.upgrades u where u.successor = r.room_id) as predecessor,
       (select u.successor from public.upgrades u where u.room_id = r.room_id) as successor,
       (select array(
            select event_id #>> '{}'
            from jsonb_array_elements(e.content -> 'pinned') with ordinality as pin (event_id, place)
            where jsonb_typeof(event_id) = 'string'
            order by place)
        from archive.current_state s
        join archive.events e on e.room_id = s.room_id and e.event_id = s.event_id
        where s.room_id = r.room_id and s.type = 'm.room.pinned_events' and s.state_key = ''
          and jsonb_typeof(e.content -> 'pinned') = 'array') as pinned_events
from archive.rooms r
cross join lateral (
    select archive.name_of(said.name -> 'name') as name, archive.alias_of(said.alias -> 'alias') as canonical_alias,
           archive.topic_of(said.topic) as topic, archive.mxc_of(said.avatar -> 'url') as avatar_url,
           archive.text_of(said."create" -> 'type') as room_type,
           case when said."create" is not null
                then archive.creators(said.room_version, said.create_sender, said."create") end as creators,
           (select array[found.state, found.reason]
            from (
                select 1 as weight, 'stalled' as state, w.last_error as reason
                from archive.walks w where w.room_id = said.room_id and w.state = 'stalled'
                union all
                select 2, 'walking', g.reason from archive.gaps g where g.room_id = said.room_id and g.state = 'open'
                union all
                select 3, 'truncated', g.reason from archive.gaps g where g.room_id = said.room_id and g.state = 'skipped'
            ) found
            order by found.weight
            limit 1) as missing,
           (select count(*) || ' of what the server sent could not be read and is kept in archive.quarantine, for instance: '
                       || min(q.reason)
            from archive.quarantine q
            where q.room_id = said.room_id
            having count(*) > 0) as unread,
           (select e.origin_server_ts from archive.events e
            where e.room_id = said.room_id and e.position is not null order by e.position limit 1) as oldest_ts,
           (select e.origin_server_ts from archive.events e
            where e.room_id = said.room_id and e.position is not null order by e.position desc limit 1) as newest_ts
    from (
        -- Stripped state is removed when the invite or knock ends. So where there is some, a client shows it.
        select own.room_id, own.room_version,
               coalesce(
                   (select offered.content from archive.stripped_state offered
                    where offered.room_id = own.room_id and offered.type = 'm.room.name' and offered.state_key = ''),
                   (select e.content
                    from archive.current_state s
                    join archive.events e on e.room_id = s.room_id and e.event_id = s.event_id
                    where s.room_id = own.room_id and s.type = 'm.room.name' and s.state_key = '')) as name,
               coalesce(
                   (select offered.content from archive.stripped_state offered
                    where offered.room_id = own.room_id and offered.type = 'm.room.canonical_alias' and offered.state_key = ''),
                   (select e.content
                    from archive.current_state s
                    join archive.events e on e.room_id = s.room_id and e.event_id = s.event_id
                    where s.room_id = own.room_id and s.type = 'm.room.canonical_alias' and s.state_key = '')) as alias,
               coalesce(
                   (select offered.content from archive.stripped_state offered
                    where offered.room_id = own.room_id and offered.type = 'm.room.topic' and offered.state_key = ''),
                   (select e.content
                    from archive.current_state s
                    join archive.events e on e.room_id = s.room_id and e.event_id = s.event_id
                    where s.room_id = own.room_id and s.type = 'm.room.topic' and s.state_key = '')) as topic,
               coalesce(
                   (select offered.content from archive.stripped_state offered
                    where offered.room_id = own.room_id and offered.type = 'm.room.avatar' and offered.state_key = ''),
                   (select e.content
                    from archive.current_state s
                    join archive.events e on e.room_id = s.room_id and e.event_id = s.event_id
                    where s.room_id = own.room_id and s.type = 'm.room.avatar' and s.state_key = '')) as avatar,
               (select e.content
                from archive.current_state s
                join archive.events e on e.room_id = s.room_id and e.event_id = s.event_id
                where s.room_id = own.room_id and s.type = 'm.room.create' and s.state_key = '') as "create",
               (select e.sender
                from archive.current_state s
                join archive.events e on e.room_id = s.room_id and e.event_id = s.event_id
                where s.room_id = own.room_id and s.type = 'm.room.create' and s.state_key = '') as create_sender
        -- A distributed database needs a table here that has the room.
        from archive.rooms own
        where own.room_id = r.room_id
        -- These keep PostgreSQL from looking each of them up several times, once for every use.
        offset 0
    ) said
    offset 0
) shown;
comment on view public.rooms is 'The rooms of the archive, one row each.';
comment on column public.rooms.room_id is 'Matrix room id.';
comment on column public.rooms.display_name is 'What a client shows as the room''s name: name, canonical alias, or the names of up to five other members.';
comment on column public.rooms.name is 'Room name in force, of an invite the one that comes with it; null: none. See display_name.';
comment on column public.rooms.canonical_alias is 'Canonical alias in force, of an invite the one that comes with it; null: none.';
comment on column public.rooms.topic is 'Topic in force, of an invite the one that comes with it; null: none.';
comment on column public.rooms.avatar_url is 'mxc: URI of the room''s avatar; null: none.';
comment on column public.rooms.room_type is 'What the room is for: m.space, …; null: talk.';
comment on column public.rooms.room_version is 'Room version.';
comment on column public.rooms.creator is 'Who created the room: the first of creators.';
comment on column public.rooms.creators is 'Who created the room: the create event''s creator or sender, from room version 12 on also its additional creators.';
comment on column public.rooms.membership is 'The archiving account''s own membership.';
comment on column public.rooms.history_state is 'none; walking: its history or a gap is being fetched; stalled: the operator must look; truncated: older events are missing, or some that the operator left out; complete: everything down to the create event is there, and no gap is open.';
comment on column public.rooms.history_reason is 'Why it is not complete, if there is more to say. Of a complete one: whether anything that the server sent could not be read.';
comment on column public.rooms.event_count is 'Number of archived events.';
comment on column public.rooms.message_count is 'Number of messages, as the view activity counts them: without redacted ones.';
comment on column public.rooms.oldest_ts is 'origin_server_ts of the first event in the room''s order, in milliseconds since 1970.';
comment on column public.rooms.newest_ts is 'origin_server_ts of the last event in the room''s order, in milliseconds since 1970.';
comment on column public.rooms.predecessor is 'The room that this one was upgraded from, as in upgrades; null: none.';
comment on column public.rooms.successor is 'The room that this one was upgraded to, as in upgrades; null: none.';
comment on column public.rooms.pinned_events is 'Ids of the pinned events, in order; null: none were ever pinned.';

create view public.gaps as
select g.room_id, g.gap_id, g.state, g.reason, w.kind as walk_kind, coalesce(w.pages, 0) as pages,
       coalesce(w.events, 0) as events, g.upper_event_id, g.lower_event_id, g.upper_position, g.lower_position,
       g.opened_at, g.closed_at, w.last_error
from archive.gaps g
left join lateral (
    select (array_agg(x.kind order by x.walk_id desc))[1] as kind, sum(x.pages)::bigint as pages,
           sum(x.events)::bigint as events, (array_agg(x.last_error order by x.walk_id desc))[1] as last_error
    from archive.walks x
    where x.gap_id = g.gap_id and x.room_id = g.room_id
) w on true;
comment on view public.gaps is 'Known holes in the timelines, from their opening to their closing. The archive and its gaps together are the room.';
comment on column public.gaps.room_id is 'Matrix room id.';
comment on column public.gaps.gap_id is 'Number of the gap.';
comment on column public.gaps.state is 'open, closed (filled) or skipped (left by the operator''s choice).';
comment on column public.gaps.reason is 'What made it.';
comment on column public.gaps.walk_kind is 'The walk that fills it now or filled it last: gap_since, gap_whole, gap_known or gap_recheck.';
comment on column public.gaps.pages is 'Pages fetched for it.';
comment on column public.gaps.events is 'Events found in it.';
comment on column public.gaps.upper_event_id is 'First archived event above it, if known.';
comment on column public.gaps.lower_event_id is 'Last archived event below it.';
comment on column public.gaps.upper_position is 'Its upper end in the room''s order.';
comment on column public.gaps.lower_position is 'Its lower end in the room''s order.';
comment on column public.gaps.opened_at is 'When it became known.';
comment on column public.gaps.closed_at is 'When it was filled.';
comment on column public.gaps.last_error is 'What went wrong last while it was filled.';

create view public.backfill as
select r.room_id, r.history_state as state, coalesce(w.pages, 0) as pages, coalesce(w.events, 0) as events,
       case when w.busy_ms > 0 then round(w.events * 1000.0 / w.busy_ms, 1) end as rate,
       archive.sent_at(w.oldest_ts) as oldest_reached, w.last_error, w.updated_at
from archive.rooms r
left join lateral (
    select x.pages, x.events, x.busy_ms, x.oldest_ts, x.last_error, x.updated_at
    from archive.walks x
    where x.room_id = r.room_id and x.kind = 'history'
    order by x.walk_id desc
    limit 1
) w on true;
comment on view public.backfill is 'How far the walk through each room''s history is.';
comment on column public.backfill.room_id is 'Matrix room id.';
comment on column public.backfill.state is 'none, walking, stalled, truncated or complete.';
comment on column public.backfill.pages is 'Pages stored.';
comment on column public.backfill.events is 'Events that the walk added.';
comment on column public.backfill.rate is 'Events per second of its work.';
comment on column public.backfill.oldest_reached is 'Time of the last event passed.';
comment on column public.backfill.last_error is 'What went wrong last.';
comment on column public.backfill.updated_at is 'When its checkpoint last moved.';

create view public.verifications as
select v.room_id, v.verification_id, v.level, v.verdict, v.event_count, v.listed_count, v.only_here_count, v.finding_count,
       v.findings, v.notes, encode(v.root, 'hex') as root, v.started_at, v.ended_at, v.ended_at - v.started_at as duration
from archive.verifications v;
comment on view public.verifications is 'What verifications of rooms have found: those of the daemon (verify.every) and of `backscroll verify --repair`.';
comment on column public.verifications.room_id is 'Matrix room id.';
comment on column public.verifications.verification_id is 'Number of the verification; ascends with time.';
comment on column public.verifications.level is 'offline: the archive by itself; walk: compared with the homeserver''s list and state; graph: also ids, content hashes and ancestors; signatures: also the signatures.';
comment on column public.verifications.verdict is 'agrees: equal to what the homeserver lists; proved: and every ancestor of every event is archived; findings: something is wrong; unclear: it could not be told; consistent: offline, nothing found.';
comment on column public.verifications.event_count is 'Number of archived events.';
comment on column public.verifications.listed_count is 'Number of events that the homeserver listed.';
comment on column public.verifications.only_here_count is 'Number of archived events that the homeserver has no more, or hides.';
comment on column public.verifications.finding_count is 'Number of findings.';
comment on column public.verifications.findings is 'The first hundred: kind, event_id, detail.';
comment on column public.verifications.notes is 'What restricts the result, in words.';
comment on column public.verifications.root is 'The end of the room''s chain of seals at that time, which proves all sealed events; null: the room was not sealed.';
comment on column public.verifications.started_at is 'When it began.';
comment on column public.verifications.ended_at is 'When it ended.';
comment on column public.verifications.duration is 'How long it took.';

create view public.only_here as
select o.room_id, o.event_id, o.reason, o.found_at from archive.only_here o;
comment on view public.only_here is 'The archived events that the homeserver lists no more, as the last verification of the room found: this may be their only copy.';
comment on column public.only_here.room_id is 'Matrix room id.';
comment on column public.only_here.event_id is 'Matrix event id.';
comment on column public.only_here.reason is 'purged, expired (by m.room.retention), withheld, redacted, or not asked.';
comment on column public.only_here.found_at is 'When the verification found it.';

create view public.seals as
select s.room_id, s.seal_id, s.day, s.event_count, encode(s.root, 'hex') as root, encode(s.chain, 'hex') as chain, s.sealed_at
from archive.seals s;
comment on view public.seals is 'The seals of `backscroll seal`: a hash over the events of each room and day. Keep a copy of the last chain of a room elsewhere: it proves all seals before it.';
comment on column public.seals.room_id is 'Matrix room id.';
comment on column public.seals.seal_id is 'Number of the seal; ascends with time.';
comment on column public.seals.day is 'Day (UTC) by the senders'' clocks; -infinity: no time that PostgreSQL can represent.';
comment on column public.seals.event_count is 'Number of events of the day.';
comment on column public.seals.root is 'Hash over these events, in hexadecimal.';
comment on column public.seals.chain is 'Hash over this seal and the one before it in the room.';
comment on column public.seals.sealed_at is 'When it was made.';

create view public.polls as
select r.room_id, e.event_id as poll_id, e.position, e.sender, coalesce(m.shown_name, e.sender) collate "default" as sender_name, e.sent_at,
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
    select p.room_id, p.event_id, p.position, p.sender, p.sent_at, coalesce(d.edited_content, d.content), d.trust
    from archive.decrypted_events d
    join archive.events p on p.room_id = d.room_id and p.event_id = d.event_id
    where d.type in ('m.poll.start', 'org.matrix.msc3381.poll.start')
      and (p.rel_type is distinct from 'm.replace' or p.relates_to is null)
) e
-- The others are joined with the room and not with the alternatives above, as a distributed database wants it.
join archive.rooms r on r.room_id = e.room_id
left join archive.members m on m.room_id = r.room_id and m.user_id = e.sender
left join archive.current_state level_state
    on level_state.room_id = r.room_id and level_state.type = 'm.room.power_levels' and level_state.state_key = ''
left join archive.events levels on levels.room_id = level_state.room_id and levels.event_id = level_state.event_id
left join archive.current_state create_state
    on create_state.room_id = r.room_id and create_state.type = 'm.room.create' and create_state.state_key = ''
left join archive.events "create" on "create".room_id = create_state.room_id and "create".event_id = create_state.event_id
left join lateral (
    -- The first end counts that is by the poll's sender, or by a user who may redact what others say.
    select x.event_id, x.origin_server_ts, x.sent_at
    from archive.events x
    left join archive.decrypted_events said on said.room_id = x.room_id and said.event_id = x.event_id
    where x.room_id = r.room_id and x.relates_to = e.event_id and x.rel_type = 'm.reference'
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
comment on view public.polls is 'Polls that were not redacted, as last edited (MSC3381). Their answers are in poll_votes.';
comment on column public.polls.room_id is 'Matrix room id.';
comment on column public.polls.poll_id is 'Event id of the poll.';
comment on column public.polls.position is 'Place in the room''s order.';
comment on column public.polls.sender is 'Who asks.';
comment on column public.polls.sender_name is 'Their name as a client shows it, as in messages.';
comment on column public.polls.sent_at is 'When the poll was sent, as the sender''s server claims.';
comment on column public.polls.question is 'The question.';
comment on column public.polls.kind is 'disclosed: votes show at once; undisclosed: votes show when it has ended.';
comment on column public.polls.max_selections is 'How many answers a voter may choose.';
comment on column public.polls.answers is 'The possible answers, in order: [{"id", "text"}].';
comment on column public.polls.end_event_id is 'The event that ended it: the first by its sender or by a user who may now redact what others say; null: it is open.';
comment on column public.polls.ended_at is 'When it ended, as the server of that event''s sender claims; null: it is open.';
comment on column public.polls.end_ts is 'ended_at in milliseconds since 1970.';
comment on column public.polls.trust is 'Of a decrypted poll: where its session is from, as in messages.';

create view public.poll_votes as
select p.room_id, p.poll_id, chosen.answer_id, chosen.answer, vote.sender,
       coalesce(m.shown_name, vote.sender) collate "default" as sender_name, vote.event_id, vote.sent_at
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
    -- Not jsonb_to_recordset(), which is not immutable: a distributed database would not call it.
    select known.answer ->> 'id' as answer_id, min(known.answer ->> 'text') as answer,
           bool_and(known.answer ->> 'id' is not null) over () as is_valid
    from jsonb_array_elements(case jsonb_typeof(vote.selections) when 'array' then vote.selections else '[]' end)
        with ordinality as selection (value, place)
    left join lateral (select given.answer from jsonb_array_elements(p.answers) as given (answer)) known
        on known.answer ->> 'id' = archive.text_of(selection.value)
    where selection.place <= p.max_selections
    group by known.answer ->> 'id'
) chosen
left join archive.members m on m.room_id = p.room_id and m.user_id = vote.sender
where chosen.is_valid and (p.kind = 'disclosed' or p.end_event_id is not null);
comment on view public.poll_votes is 'How polls were answered: one row for each answer that a vote chooses. Of each sender the last vote before the end counts. If it has an answer that the poll does not have, the sender has no vote. The votes of an undisclosed poll are shown when it has ended.';
comment on column public.poll_votes.room_id is 'Matrix room id.';
comment on column public.poll_votes.poll_id is 'Event id of the poll.';
comment on column public.poll_votes.answer_id is 'Id of the answer.';
comment on column public.poll_votes.answer is 'Text of the answer.';
comment on column public.poll_votes.sender is 'Who voted.';
comment on column public.poll_votes.sender_name is 'Their name as a client shows it, as in messages.';
comment on column public.poll_votes.event_id is 'Event id of the vote.';
comment on column public.poll_votes.sent_at is 'When it was sent, as the sender''s server claims.';

-- Live locations (MSC3672, MSC3489): a state event m.beacon_info begins one, and each m.beacon has a place and a time.
create view public.beacons as
select e.room_id, e.event_id as beacon_id, e.position, e.sender,
       coalesce(m.shown_name, e.sender) collate "default" as sender_name,
       archive.text_of(archive.beacon_of(e.content) -> 'description') as description,
       archive.sent_at(began.ts) as started_at,
       archive.sent_at(began.ts + began.timeout) as expires_at,
       s.event_id is not null and archive.sent_at(began.ts + began.timeout) > now() as live,
       coalesce(location.count, 0) as location_count, location.geo_uri, archive.sent_at(location.ts) as located_at
from archive.events e
left join archive.members m on m.room_id = e.room_id and m.user_id = e.sender
left join archive.current_state s
    on s.room_id = e.room_id and s.type = e.type and s.state_key = e.state_key and s.event_id = e.event_id
cross join lateral (
    select archive.measured_ts(archive.beacon_of(e.content), archive.measured_ts(e.content, e.origin_server_ts)) as ts,
           archive.milliseconds_of(archive.beacon_of(e.content) -> 'timeout') as timeout
) began
left join lateral (
    select point.geo_uri, point.ts, count(*) over () as count
    from (
        select coalesce(archive.text_of(shown.content #> '{m.location,uri}'),
                        archive.text_of(shown.content #> '{org.matrix.msc3488.location,uri}')) as geo_uri,
               archive.measured_ts(shown.content, x.origin_server_ts) as ts, x.event_id
        from archive.events x
        left join archive.decrypted_events said on said.room_id = x.room_id and said.event_id = x.event_id
        cross join lateral (
            select case when x.type <> 'm.room.encrypted' then x.content else said.content end as content
        ) shown
        where x.room_id = e.room_id and x.relates_to = e.event_id and x.rel_type = 'm.reference' and x.sender = e.sender
          and coalesce(x.hidden_type, x.type) in ('m.beacon', 'org.matrix.msc3672.beacon') and x.state_key is null and x.redacted_by is null
    ) point
    where point.geo_uri like 'geo:%' and point.ts between began.ts and began.ts + began.timeout
    order by point.ts desc, point.event_id desc
    limit 1
) location on true
where archive.any_room(e.origin_server_ts) and e.type in ('m.beacon_info', 'org.matrix.msc3672.beacon_info')
  and e.state_key is not null and e.redacted_by is null
  and archive.beacon_of(e.content) -> 'live' = 'true';
comment on view public.beacons is 'Live locations that were shared, each with the last place that was sent (MSC3672). A place counts if the same user sent it while the location was shared. A location that was sent once is in messages.';
comment on column public.beacons.room_id is 'Matrix room id.';
comment on column public.beacons.beacon_id is 'Event id of the state event that began it. Each m.beacon relates to it.';
comment on column public.beacons.position is 'Place in the room''s order.';
comment on column public.beacons.sender is 'Whose location it is.';
comment on column public.beacons.sender_name is 'Their name as a client shows it, as in messages.';
comment on column public.beacons.description is 'Their description of it.';
comment on column public.beacons.started_at is 'When it began.';
comment on column public.beacons.expires_at is 'When it ends, or ended, by itself.';
comment on column public.beacons.live is 'Whether it is shared now: neither stopped nor expired.';
comment on column public.beacons.location_count is 'How many places were sent.';
comment on column public.beacons.geo_uri is 'The last place, a geo: URI; null: none was sent.';
comment on column public.beacons.located_at is 'When its sender was there.';
