-- An upgrade leaves two rooms (specification, "Room upgrades"). Either side alone may be forged, so that only rooms which
-- name each other are linked: the old one's tombstone the new one, the new one's create event the old one.
create or replace view public.rooms as
select r.room_id,
       name.content ->> 'name' as name,
       alias.content ->> 'alias' as canonical_alias,
       topic.content ->> 'topic' as topic,
       r.room_version,
       coalesce("create".content ->> 'creator', "create".sender) as creator,
       r.membership,
       case when r.history_state <> 'complete' then r.history_state else coalesce(missing.state, 'complete') end
           as history_state,
       case when r.history_state <> 'complete' then r.history_reason else missing.reason end as history_reason,
       r.event_count,
       oldest.origin_server_ts as oldest_ts,
       newest.origin_server_ts as newest_ts,
       (select old.room_id
        from public.current_state old
        where old.room_id = "create".content -> 'predecessor' ->> 'room_id' and old.room_id <> r.room_id
          and old.type = 'm.room.tombstone' and old.state_key = '' and old.content ->> 'replacement_room' = r.room_id
       ) as predecessor,
       (select new.room_id
        from public.current_state tombstone
        join public.current_state new on new.room_id = tombstone.content ->> 'replacement_room'
        where tombstone.room_id = r.room_id and tombstone.type = 'm.room.tombstone' and tombstone.state_key = ''
          and new.room_id <> r.room_id and new.type = 'm.room.create' and new.state_key = ''
          and new.content -> 'predecessor' ->> 'room_id' = r.room_id
       ) as successor
from archive.rooms r
left join public.current_state name on name.room_id = r.room_id and name.type = 'm.room.name' and name.state_key = ''
left join public.current_state alias
    on alias.room_id = r.room_id and alias.type = 'm.room.canonical_alias' and alias.state_key = ''
left join public.current_state topic on topic.room_id = r.room_id and topic.type = 'm.room.topic' and topic.state_key = ''
left join public.current_state "create"
    on "create".room_id = r.room_id and "create".type = 'm.room.create' and "create".state_key = ''
left join lateral (
    select found.state, found.reason
    from (
        select 1 as weight, 'stalled' as state, w.last_error as reason
        from archive.walks w where w.room_key = r.room_key and w.state = 'stalled'
        union all
        select 2, 'walking', g.reason from archive.gaps g where g.room_key = r.room_key and g.state = 'open'
        union all
        select 3, 'truncated', g.reason from archive.gaps g where g.room_key = r.room_key and g.state = 'skipped'
    ) found
    order by found.weight
    limit 1
) missing on true
left join lateral (
    select e.origin_server_ts from archive.events e
    where e.room_key = r.room_key and e.position is not null order by e.position limit 1
) oldest on true
left join lateral (
    select e.origin_server_ts from archive.events e
    where e.room_key = r.room_key and e.position is not null order by e.position desc limit 1
) newest on true;
comment on column public.rooms.predecessor is 'The room that this one was upgraded from, where both are archived and both say so: anybody may claim a room as their own''s past.';
comment on column public.rooms.successor is 'The room that this one was upgraded to, on the same condition.';

create or replace view room_reader.rooms with (security_barrier) as
select v.* from public.rooms v
where v.room_id = any (array(select x.room_id from archive.reader_rooms x where x.role = current_user));
comment on column room_reader.rooms.predecessor is 'The room that this one was upgraded from, where both are archived and both say so: anybody may claim a room as their own''s past.';
comment on column room_reader.rooms.successor is 'The room that this one was upgraded to, on the same condition.';
