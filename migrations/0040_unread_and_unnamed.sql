-- What a state event replaced, where only the event itself says so; and a room that is whole but for what could not be read says
-- that.
create or replace view public.current_state as
select r.room_id, s.type, s.state_key, s.event_id, e.sender, e.content,
       coalesce(
           e.prev_content,
           (select replaced.content from archive.events replaced
            where replaced.room_key = e.room_key and replaced.event_id = e.replaces_state),
           (select p.content from archive.events p
            where e.replaces_state is null
              and p.room_key = e.room_key and p.type = e.type and p.state_key = e.state_key and p.position < e.position
            order by p.position desc
            limit 1),
           (select u.prev_content from archive.unnamed_prev_content u
            where u.room_key = e.room_key and u.event_id = e.event_id)) as prev_content,
       e.origin_server_ts, archive.sent_at(e.origin_server_ts) as sent_at, s.changed_at
from archive.current_state s
join archive.rooms r using (room_key)
join archive.events e on e.room_key = s.room_key and e.event_id = s.event_id;

create or replace view public.state_history as
select r.room_id, e.type, e.state_key, e.position, e.event_id, e.sender, e.content,
       coalesce(e.prev_content, replaced.content, before.content, unnamed.prev_content) as prev_content,
       coalesce(e.replaces_state, before.event_id) as prev_event_id,
       case when e.prev_content is not null then 'served'
            when replaced.event_id is not null then 'replaces_state'
            when before.event_id is not null then 'order'
            else unnamed.source end as prev_source,
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
left join archive.unnamed_prev_content unnamed on unnamed.room_key = e.room_key and unnamed.event_id = e.event_id
where e.state_key is not null;

create or replace view public.rooms as
select r.room_id,
       archive.name_of(shown.name -> 'name') as name,
       archive.alias_of(shown.alias -> 'alias') as canonical_alias,
       archive.topic_of(shown.topic) as topic,
       r.room_version,
       case when "create".event_id is not null
            then (archive.creators(r.room_version, "create".sender, "create".content))[1] end as creator,
       r.membership,
       case when r.history_state <> 'complete' then r.history_state else coalesce(missing.state, 'complete') end
           as history_state,
       case when r.history_state <> 'complete' then r.history_reason
            when missing.state is not null then missing.reason
            else unread.reason end as history_reason,
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
       ) as successor,
       coalesce(
           archive.name_of(shown.name -> 'name'), archive.alias_of(shown.alias -> 'alias'),
           case when r.membership in ('invite', 'knock') then (
               select coalesce(
                          archive.list_names(array_agg(h.name order by h.user_id), 0),
                          -- Whoever invites, if only the invite itself names them.
                          (select s.sender from archive.stripped_state s
                           where s.room_key = r.room_key and s.type = 'm.room.member' and s.sender <> s.state_key
                             and s.state_key = (select archive.account_user_id())),
                          'Empty Room')
               from (select s.state_key as user_id, coalesce(archive.name_of(s.content -> 'displayname'), s.state_key) as name
                     from archive.stripped_state s
                     where s.room_key = r.room_key and s.type = 'm.room.member'
                       and s.content ->> 'membership' in ('join', 'invite')
                       and s.state_key is distinct from (select archive.account_user_id())
                     order by s.state_key
                     limit 5) h)
           else (
               select case when present > 0 then archive.list_names(named.names, present - cardinality(named.names))
                           when past > 0
                           then 'Empty Room (was ' || archive.list_names(named.names, past - cardinality(named.names)) || ')'
                           else 'Empty Room' end
               from (
                   select count(*) filter (where e.content ->> 'membership' in ('join', 'invite')) as present,
                          count(*) filter (where e.content ->> 'membership' in ('leave', 'ban')) as past,
                          (array_agg(s.state_key order by e.position nulls first, s.state_key)
                               filter (where e.content ->> 'membership' in ('join', 'invite')))[:5] as first_present,
                          (array_agg(s.state_key order by e.position nulls first, s.state_key)
                               filter (where e.content ->> 'membership' in ('leave', 'ban')))[:5] as first_past
                   from archive.current_state s
                   join archive.events e on e.room_key = s.room_key and e.event_id = s.event_id
                   where s.room_key = r.room_key and s.type = 'm.room.member'
                     and s.state_key is distinct from (select archive.account_user_id())
               ) counted
               cross join lateral (
                   select array(
                       select (select m.shown_name from public.members m
                               where m.room_key = r.room_key and m.user_id = hero.user_id)
                       from unnest(case when present > 0 then first_present else first_past end) with ordinality
                           as hero (user_id, place)
                       order by hero.place) as names
               ) named) end
       ) as display_name,
       archive.mxc_of(shown.avatar -> 'url') as avatar_url,
       archive.text_of("create".content -> 'type') as room_type,
       case when "create".event_id is not null
            then archive.creators(r.room_version, "create".sender, "create".content) end as creators,
       (select array(
            select event_id #>> '{}'
            from jsonb_array_elements(e.content -> 'pinned') with ordinality as pin (event_id, place)
            where jsonb_typeof(event_id) = 'string'
            order by place)
        from archive.current_state s
        join archive.events e on e.room_key = s.room_key and e.event_id = s.event_id
        where s.room_key = r.room_key and s.type = 'm.room.pinned_events' and s.state_key = ''
          and jsonb_typeof(e.content -> 'pinned') = 'array') as pinned_events
from archive.rooms r
left join archive.current_state create_state
    on create_state.room_key = r.room_key and create_state.type = 'm.room.create' and create_state.state_key = ''
left join archive.events "create" on "create".room_key = create_state.room_key and "create".event_id = create_state.event_id
-- Once an invite or knock is over its stripped state is gone, so where there is some it is what a client shows.
cross join lateral (
    select
           coalesce(
               (select offered.content from archive.stripped_state offered
                where offered.room_key = r.room_key and offered.type = 'm.room.name' and offered.state_key = ''),
               (select e.content
                from archive.current_state s
                join archive.events e on e.room_key = s.room_key and e.event_id = s.event_id
                where s.room_key = r.room_key and s.type = 'm.room.name' and s.state_key = '')) as name,
           coalesce(
               (select offered.content from archive.stripped_state offered
                where offered.room_key = r.room_key and offered.type = 'm.room.canonical_alias' and offered.state_key = ''),
               (select e.content
                from archive.current_state s
                join archive.events e on e.room_key = s.room_key and e.event_id = s.event_id
                where s.room_key = r.room_key and s.type = 'm.room.canonical_alias' and s.state_key = '')) as alias,
           coalesce(
               (select offered.content from archive.stripped_state offered
                where offered.room_key = r.room_key and offered.type = 'm.room.topic' and offered.state_key = ''),
               (select e.content
                from archive.current_state s
                join archive.events e on e.room_key = s.room_key and e.event_id = s.event_id
                where s.room_key = r.room_key and s.type = 'm.room.topic' and s.state_key = '')) as topic,
           coalesce(
               (select offered.content from archive.stripped_state offered
                where offered.room_key = r.room_key and offered.type = 'm.room.avatar' and offered.state_key = ''),
               (select e.content
                from archive.current_state s
                join archive.events e on e.room_key = s.room_key and e.event_id = s.event_id
                where s.room_key = r.room_key and s.type = 'm.room.avatar' and s.state_key = '')) as avatar
    -- Kept apart, each is looked up once.
    offset 0
) shown
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
    select count(*) || ' of what the server sent could not be read and is kept in archive.quarantine, for instance: '
               || min(q.reason) as reason
    from archive.quarantine q
    where q.room_key = r.room_key
    having count(*) > 0
) unread on true
left join lateral (
    select e.origin_server_ts from archive.events e
    where e.room_key = r.room_key and e.position is not null order by e.position limit 1
) oldest on true
left join lateral (
    select e.origin_server_ts from archive.events e
    where e.room_key = r.room_key and e.position is not null order by e.position desc limit 1
) newest on true;

comment on column public.state_history.prev_source is 'Where prev_content comes from: served with the event; replaces_state, the archived event that it replaces; order, the archived event before it in the timeline; or, where the archive has neither, top level: as the event itself says, which its sender may have written.';
comment on column public.rooms.history_reason is 'Why it is not complete, where there is more to say; of a complete one, whether anything that the server sent could not be read.';
select archive.renew_reader_views();
