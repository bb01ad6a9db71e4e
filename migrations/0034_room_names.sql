-- The name of a room without one, as clients make it up (specification, "Calculating the display name for a room").
create function archive.list_names(names text[], others bigint) returns text
    language sql immutable parallel safe
    return (
        select case when cardinality(items) = 0 then null
                    when cardinality(items) <= 2 then array_to_string(items, ' and ')
                    else array_to_string(items[:cardinality(items) - 1], ', ') || ', and ' || items[cardinality(items)] end
        from (select names || case when others = 1 then array['1 other']
                                   when others > 1 then array[others || ' others'] else '{}' end) as list (items));
comment on function archive.list_names(text[], bigint) is 'Names in a sentence, with how many others there are: A and B; A, B, and 3 others.';

create function archive.alias_of(value jsonb) returns text
    language sql immutable parallel safe
    return case when archive.text_of(value) like '#%:%' then archive.text_of(value) end;
comment on function archive.alias_of(jsonb) is 'A JSON string that is a room alias; null for any other value.';

create function archive.topic_of(content jsonb) returns text
    language sql immutable parallel safe
    return case when archive.name_of(content -> 'topic') is not null
                then coalesce(archive.plain_text(content -> 'm.topic'), archive.text_of(content -> 'topic')) end;
comment on function archive.topic_of(jsonb) is 'The topic of an m.room.topic; without topic there is none, whatever else the event has.';

-- A reader of some rooms reads no table whose rows belong to no room.
create function archive.account_user_id() returns text
    language sql stable parallel safe security definer set search_path = pg_catalog, pg_temp
    return (select a.user_id from archive.accounts a order by a.synced_at desc nulls last, a.account_key limit 1);
comment on function archive.account_user_id() is 'The user id of the archiving account, whose own name is not part of a room''s.';

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
    select e.origin_server_ts from archive.events e
    where e.room_key = r.room_key and e.position is not null order by e.position limit 1
) oldest on true
left join lateral (
    select e.origin_server_ts from archive.events e
    where e.room_key = r.room_key and e.position is not null order by e.position desc limit 1
) newest on true;
comment on column public.rooms.name is 'Room name in force, of an invite the one that comes with it; null: none. See display_name.';
comment on column public.rooms.canonical_alias is 'Canonical alias in force, of an invite the one that comes with it; null: none.';
comment on column public.rooms.topic is 'Topic in force, of an invite the one that comes with it; null: none.';
comment on column public.rooms.creator is 'Who created the room: the first of creators.';
comment on column public.rooms.display_name is 'What a client shows as the room''s name: name, canonical alias, or the names of up to five other members.';
comment on column public.rooms.avatar_url is 'mxc: URI of the room''s avatar; null: none.';
comment on column public.rooms.room_type is 'What the room is for: m.space, …; null: talk.';
comment on column public.rooms.creators is 'Who created the room: the create event''s creator or sender, from room version 12 on also its additional creators.';
comment on column public.rooms.pinned_events is 'Ids of the pinned events, in order; null: none were ever pinned.';
