-- The public interface: text room ids, documented, stable. Each view keeps room_id and position as plain columns of an
-- indexed table, so that a reader's `where room_id = … and position > …` uses the index.
create function archive.sent_at(origin_server_ts bigint) returns timestamptz
    language sql immutable parallel safe
    -- The sender chooses the number; what PostgreSQL cannot show as a time is null.
    return case when origin_server_ts between -62135596800000 and 9007199254740991
                then timestamptz 'epoch' + origin_server_ts * interval '1 millisecond' end;
comment on function archive.sent_at(bigint) is 'Milliseconds since 1970 as a time; null where they are no time that PostgreSQL can hold.';

create function public.room_key(room_id text) returns int
    language sql stable parallel safe strict
    return (select r.room_key from archive.rooms r where r.room_id = room_key.room_id);
comment on function public.room_key(text) is 'The internal key of a room: where room_key = room_key(''!…'') reads a long room in the order of its index, which a join by room_id cannot.';

create view public.events as
select r.room_id, e.event_id, e.position, e.type, e.sender, e.state_key, e.origin_server_ts,
       archive.sent_at(e.origin_server_ts) as sent_at,
       e.content, e.prev_content, e.replaces_state, e.redacts, e.redacted_by, e.relates_to, e.rel_type, e.received_at,
       e.room_key
from archive.events e
join archive.rooms r using (room_key);
comment on view public.events is 'Every archived event. In a room''s order: order by position; where position is null the event is known from the room''s state but not (yet) placed in the timeline.';
comment on column public.events.room_key is 'The room''s internal key, for room_key(…).';
comment on column public.events.room_id is 'Matrix room id.';
comment on column public.events.event_id is 'Matrix event id.';
comment on column public.events.position is 'Place in the room''s order; never changes once given.';
comment on column public.events.type is 'Event type. U+F8FE begins an escape: U+F8FE 0 stands for NUL, U+F8FE 1 for U+F8FE.';
comment on column public.events.sender is 'Sender''s user id.';
comment on column public.events.state_key is 'State key; null: not a state event.';
comment on column public.events.origin_server_ts is 'Milliseconds since 1970 as the sender''s server claims; not an order.';
comment on column public.events.sent_at is 'origin_server_ts as a time.';
comment on column public.events.content is 'Content, pruned if redacted.';
comment on column public.events.prev_content is 'Content of the state event that this one replaced, as the server told.';
comment on column public.events.replaces_state is 'Event id of the state event that this one replaced.';
comment on column public.events.redacts is 'Of a redaction: its target.';
comment on column public.events.redacted_by is 'The event that redacted this one; null: not redacted.';
comment on column public.events.relates_to is 'Event that this one relates to.';
comment on column public.events.rel_type is 'How: m.replace, m.annotation, m.thread, m.reference, …';
comment on column public.events.received_at is 'When it was archived.';

create view public.current_state as
select r.room_id, s.type, s.state_key, s.event_id, e.sender, e.content, e.prev_content, e.origin_server_ts,
       archive.sent_at(e.origin_server_ts) as sent_at, s.changed_at
from archive.current_state s
join archive.rooms r using (room_key)
join archive.events e on e.room_key = s.room_key and e.event_id = s.event_id;
comment on view public.current_state is 'What is in force in each room, by (room_id, type, state_key), on the server''s word.';
comment on column public.current_state.room_id is 'Matrix room id.';
comment on column public.current_state.type is 'Event type.';
comment on column public.current_state.state_key is 'State key.';
comment on column public.current_state.event_id is 'The event in force.';
comment on column public.current_state.sender is 'Who set it.';
comment on column public.current_state.content is 'The value in force.';
comment on column public.current_state.prev_content is 'The value before it, as the server told.';
comment on column public.current_state.origin_server_ts is 'Milliseconds since 1970 as the sender''s server claims.';
comment on column public.current_state.sent_at is 'origin_server_ts as a time.';
comment on column public.current_state.changed_at is 'When the archive learnt that this is in force.';

create view public.state_history as
select r.room_id, e.type, e.state_key, e.position, e.event_id, e.sender, e.content,
       coalesce(e.prev_content, replaced.content, before.content) as prev_content,
       coalesce(e.replaces_state, before.event_id) as prev_event_id,
       case when e.prev_content is not null then 'served'
            when replaced.event_id is not null then 'replaces_state'
            when before.event_id is not null then 'order' end as prev_source,
       e.origin_server_ts, archive.sent_at(e.origin_server_ts) as sent_at,
       e.room_key
from archive.events e
join archive.rooms r using (room_key)
left join archive.events replaced on replaced.room_key = e.room_key and replaced.event_id = e.replaces_state
left join lateral (
    select p.event_id, p.content
    from archive.events p
    where e.replaces_state is null
      and p.room_key = e.room_key and p.type = e.type and p.state_key = e.state_key and p.position < e.position
    order by p.position desc
    limit 1
) before on true
where e.state_key is not null;
comment on view public.state_history is 'Every value that a state key has had: order by position within (room_id, type, state_key). Includes events that lost a fork.';
comment on column public.state_history.room_key is 'The room''s internal key, for room_key(…).';
comment on column public.state_history.room_id is 'Matrix room id.';
comment on column public.state_history.type is 'Event type.';
comment on column public.state_history.state_key is 'State key.';
comment on column public.state_history.position is 'Place in the room''s order; null: known from the room''s state only.';
comment on column public.state_history.event_id is 'The state event.';
comment on column public.state_history.sender is 'Who set it.';
comment on column public.state_history.content is 'The value.';
comment on column public.state_history.prev_content is 'The value before it; prev_source says whence.';
comment on column public.state_history.prev_event_id is 'The event before it: replaces_state, else the one before it in the room''s order.';
comment on column public.state_history.prev_source is 'Where prev_content comes from: served with the event; the archived event that it replaces; or only the order of the timeline.';
comment on column public.state_history.origin_server_ts is 'Milliseconds since 1970 as the sender''s server claims.';
comment on column public.state_history.sent_at is 'origin_server_ts as a time.';

create view public.members as
select r.room_id, s.state_key as user_id, e.content ->> 'membership' as membership,
       e.content ->> 'displayname' as display_name, e.content ->> 'avatar_url' as avatar_url,
       e.content ->> 'reason' as reason, e.sender, e.event_id, archive.sent_at(e.origin_server_ts) as sent_at
from archive.current_state s
join archive.rooms r using (room_key)
join archive.events e on e.room_key = s.room_key and e.event_id = s.event_id
where s.type = 'm.room.member';
comment on view public.members is 'Current membership of every user that a room has seen.';
comment on column public.members.room_id is 'Matrix room id.';
comment on column public.members.user_id is 'User id.';
comment on column public.members.membership is 'join, leave, invite, ban or knock.';
comment on column public.members.display_name is 'Display name in this room.';
comment on column public.members.avatar_url is 'mxc: URI of the avatar in this room.';
comment on column public.members.reason is 'Reason given for the last change.';
comment on column public.members.sender is 'Who made the last change.';
comment on column public.members.event_id is 'The member event in force.';
comment on column public.members.sent_at is 'When it was sent.';

create view public.messages as
select r.room_id, e.event_id, e.position, e.sender,
       coalesce(member.content ->> 'displayname', member.prev_content ->> 'displayname', e.sender) as sender_name,
       archive.sent_at(e.origin_server_ts) as sent_at,
       coalesce(edit.content -> 'm.new_content', e.content) ->> 'msgtype' as msgtype,
       coalesce(edit.content -> 'm.new_content', e.content) ->> 'body' as body,
       archive.sent_at(edit.origin_server_ts) as edited_at,
       coalesce(edit.edit_count, 0) as edit_count,
       e.redacted_by is not null as redacted,
       e.relates_to, e.rel_type,
       case when e.rel_type = 'm.thread' then e.relates_to end as thread_root,
       e.content -> 'm.relates_to' -> 'm.in_reply_to' ->> 'event_id' as in_reply_to,
       e.room_key
from archive.events e
join archive.rooms r using (room_key)
left join archive.current_state s
    on s.room_key = e.room_key and s.type = 'm.room.member' and s.state_key = e.sender
left join archive.events member on member.room_key = s.room_key and member.event_id = s.event_id
left join lateral (
    -- A valid edit is by the same sender, of the same type, with m.new_content, of an event that is not redacted; the
    -- latest wins by origin_server_ts, then by event id (specification, "Event replacements").
    select x.content, x.origin_server_ts, count(*) over () as edit_count
    from archive.events x
    where x.room_key = e.room_key and x.relates_to = e.event_id and x.rel_type = 'm.replace'
      and x.sender = e.sender and x.type = e.type and x.state_key is null and x.redacted_by is null
      and e.redacted_by is null and jsonb_typeof(x.content -> 'm.new_content') = 'object'
    order by x.origin_server_ts desc nulls last, x.event_id desc
    limit 1
) edit on true
where e.type in ('m.room.message', 'm.room.encrypted', 'm.sticker')
  and e.state_key is null
  and e.rel_type is distinct from 'm.replace';
comment on view public.messages is 'What a reader of the room sees: order by position. The latest valid edit is applied, edits themselves are not listed; an encrypted message has no body.';
comment on column public.messages.room_key is 'The room''s internal key, for room_key(…).';
comment on column public.messages.room_id is 'Matrix room id.';
comment on column public.messages.event_id is 'Event id of the message (of the original, if edited).';
comment on column public.messages.position is 'Place in the room''s order.';
comment on column public.messages.sender is 'Sender''s user id.';
comment on column public.messages.sender_name is 'Sender''s current display name in the room, else the user id.';
comment on column public.messages.sent_at is 'When the original was sent, as its server claims.';
comment on column public.messages.msgtype is 'm.text, m.image, …; null if redacted or encrypted.';
comment on column public.messages.body is 'Text as last edited; null if redacted or encrypted.';
comment on column public.messages.edited_at is 'When the latest valid edit was sent; null: never edited.';
comment on column public.messages.edit_count is 'Number of valid edits.';
comment on column public.messages.redacted is 'Whether the message was redacted.';
comment on column public.messages.relates_to is 'Event that the message relates to.';
comment on column public.messages.rel_type is 'How it relates.';
comment on column public.messages.thread_root is 'First message of the thread that it belongs to.';
comment on column public.messages.in_reply_to is 'Message that it answers.';

create view public.reactions as
select r.room_id, e.event_id, e.position, e.relates_to, e.content -> 'm.relates_to' ->> 'key' as key, e.sender,
       coalesce(member.content ->> 'displayname', member.prev_content ->> 'displayname', e.sender) as sender_name,
       archive.sent_at(e.origin_server_ts) as sent_at,
       e.room_key
from archive.events e
join archive.rooms r using (room_key)
left join archive.current_state s
    on s.room_key = e.room_key and s.type = 'm.room.member' and s.state_key = e.sender
left join archive.events member on member.room_key = s.room_key and member.event_id = s.event_id
where e.rel_type = 'm.annotation' and e.relates_to is not null and e.redacted_by is null;
comment on view public.reactions is 'Reactions that stand: one row each, by the event that they relate to.';
comment on column public.reactions.room_key is 'The room''s internal key, for room_key(…).';
comment on column public.reactions.room_id is 'Matrix room id.';
comment on column public.reactions.event_id is 'Event id of the reaction.';
comment on column public.reactions.position is 'Place in the room''s order.';
comment on column public.reactions.relates_to is 'Event that was reacted to.';
comment on column public.reactions.key is 'The reaction, mostly an emoji.';
comment on column public.reactions.sender is 'Who reacted.';
comment on column public.reactions.sender_name is 'Their current display name in the room, else the user id.';
comment on column public.reactions.sent_at is 'When.';

create view public.rooms as
select r.room_id,
       name.content ->> 'name' as name,
       alias.content ->> 'alias' as canonical_alias,
       topic.content ->> 'topic' as topic,
       r.room_version,
       coalesce("create".content ->> 'creator', "create".sender) as creator,
       r.membership, r.history_state, r.history_reason, r.event_count,
       oldest.origin_server_ts as oldest_ts,
       newest.origin_server_ts as newest_ts
from archive.rooms r
left join public.current_state name on name.room_id = r.room_id and name.type = 'm.room.name' and name.state_key = ''
left join public.current_state alias
    on alias.room_id = r.room_id and alias.type = 'm.room.canonical_alias' and alias.state_key = ''
left join public.current_state topic on topic.room_id = r.room_id and topic.type = 'm.room.topic' and topic.state_key = ''
left join public.current_state "create"
    on "create".room_id = r.room_id and "create".type = 'm.room.create' and "create".state_key = ''
left join lateral (
    select e.origin_server_ts from archive.events e
    where e.room_key = r.room_key and e.position is not null order by e.position limit 1
) oldest on true
left join lateral (
    select e.origin_server_ts from archive.events e
    where e.room_key = r.room_key and e.position is not null order by e.position desc limit 1
) newest on true;
comment on view public.rooms is 'The rooms of the archive, one row each.';
comment on column public.rooms.room_id is 'Matrix room id.';
comment on column public.rooms.name is 'Room name in force.';
comment on column public.rooms.canonical_alias is 'Canonical alias in force.';
comment on column public.rooms.topic is 'Topic in force.';
comment on column public.rooms.room_version is 'Room version.';
comment on column public.rooms.creator is 'Who created the room.';
comment on column public.rooms.membership is 'The archiving account''s own membership.';
comment on column public.rooms.history_state is 'none, walking, stalled, truncated or complete (the create event was reached).';
comment on column public.rooms.history_reason is 'Why it is stalled or truncated.';
comment on column public.rooms.event_count is 'Number of archived events.';
comment on column public.rooms.oldest_ts is 'origin_server_ts of the first event in the room''s order.';
comment on column public.rooms.newest_ts is 'origin_server_ts of the last event in the room''s order.';

create view public.gaps as
select r.room_id, g.gap_id, g.state, g.reason, w.kind as walk_kind, coalesce(w.pages, 0) as pages,
       coalesce(w.events, 0) as events, g.upper_event_id, g.lower_event_id, g.upper_position, g.lower_position,
       g.opened_at, g.closed_at, w.last_error
from archive.gaps g
join archive.rooms r using (room_key)
left join lateral (
    select (array_agg(x.kind order by x.walk_id desc))[1] as kind, sum(x.pages)::bigint as pages,
           sum(x.events)::bigint as events, (array_agg(x.last_error order by x.walk_id desc))[1] as last_error
    from archive.walks x
    where x.gap_id = g.gap_id and x.room_key = g.room_key
) w on true;
comment on view public.gaps is 'Known holes in the timelines, from their opening to their closing. The archive and its gaps together are the room.';
comment on column public.gaps.room_id is 'Matrix room id.';
comment on column public.gaps.gap_id is 'Number of the gap.';
comment on column public.gaps.state is 'open, closed (filled) or skipped (left by the operator''s choice).';
comment on column public.gaps.reason is 'What made it.';
comment on column public.gaps.walk_kind is 'The pass that fills it now or filled it last: gap_since, gap_known, gap_recheck.';
comment on column public.gaps.pages is 'Pages fetched for it.';
comment on column public.gaps.events is 'Events found in it.';
comment on column public.gaps.upper_event_id is 'First archived event above it, where known.';
comment on column public.gaps.lower_event_id is 'Last archived event below it.';
comment on column public.gaps.upper_position is 'Where it ends above.';
comment on column public.gaps.lower_position is 'Where it begins below.';
comment on column public.gaps.opened_at is 'When it became known.';
comment on column public.gaps.closed_at is 'When it was filled.';
comment on column public.gaps.last_error is 'What went wrong last while filling it.';

create view public.backfill as
select r.room_id, r.history_state as state, coalesce(w.pages, 0) as pages, coalesce(w.events, 0) as events,
       case when w.busy_ms > 0 then round(w.events * 1000.0 / w.busy_ms, 1) end as rate,
       archive.sent_at(w.oldest_ts) as oldest_reached, w.last_error, w.updated_at
from archive.rooms r
left join lateral (
    select x.pages, x.events, x.busy_ms, x.oldest_ts, x.last_error, x.updated_at
    from archive.walks x
    where x.room_key = r.room_key and x.kind = 'history'
    order by x.walk_id desc
    limit 1
) w on true;
comment on view public.backfill is 'How far each room''s history walk is.';
comment on column public.backfill.room_id is 'Matrix room id.';
comment on column public.backfill.state is 'none, walking, stalled, truncated or complete.';
comment on column public.backfill.pages is 'Pages stored.';
comment on column public.backfill.events is 'Events that the walk added.';
comment on column public.backfill.rate is 'Events a second while it was at work.';
comment on column public.backfill.oldest_reached is 'Time of the last event passed.';
comment on column public.backfill.last_error is 'What went wrong last.';
comment on column public.backfill.updated_at is 'When its checkpoint last moved.';
