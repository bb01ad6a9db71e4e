-- Walks that look again, at growing intervals, for what the server has learnt since; and a room's history state as its
-- reader must see it: complete only while nothing is missing.
alter table archive.walks drop constraint walks_kind_check;
alter table archive.walks add constraint walks_kind_check
    check (kind in ('history', 'operator', 'gap_since', 'gap_known', 'gap_recheck', 'rewalk'));
alter table archive.walks add column round int not null default 0;
comment on column archive.walks.round is 'Of a rewalk: how many before it in a row have found nothing new.';
comment on column archive.walks.kind is 'history: a room''s whole past; operator: backscroll backfill; gap_since: a gap down to the old since; gap_known: the same gap without `to`, until the archive is met; gap_recheck: that once more, later; rewalk: the whole past again, for what the server has learnt since.';

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
       newest.origin_server_ts as newest_ts
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
comment on column public.rooms.history_state is 'none; walking: its history or a gap is being fetched; stalled: somebody must look; truncated: older events, or some that the operator left out, are missing; complete: everything down to the create event is there and no gap is open.';
comment on column public.rooms.history_reason is 'Why it is not complete, where there is more to say.';
