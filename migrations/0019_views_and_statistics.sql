-- PostgreSQL keeps samples of what its statistics count, until the table is analyzed again: of these columns that would be
-- content that has been redacted or erased since. No query here chooses by their values.
alter table archive.events
    alter column content set statistics 0,
    alter column prev_content set statistics 0,
    alter column raw set statistics 0;
alter table archive.originals
    alter column content set statistics 0,
    alter column raw set statistics 0;
alter table archive.quarantine alter column raw set statistics 0;
alter table archive.stripped_state alter column content set statistics 0;
-- Samples that are there already stay otherwise. Only a superuser may, such as the private server's.
do $$
begin
    if (select rolsuper from pg_roles where rolname = current_user) then
        delete from pg_catalog.pg_statistic s
        using pg_catalog.pg_attribute a
        where a.attrelid = s.starelid and a.attnum = s.staattnum and a.attstattarget = 0
          and s.starelid in ('archive.events'::regclass, 'archive.originals'::regclass,
                             'archive.quarantine'::regclass, 'archive.stripped_state'::regclass);
    end if;
end
$$;

-- As state_history has it: not every server tells what an event replaced.
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
            limit 1)) as prev_content,
       e.origin_server_ts, archive.sent_at(e.origin_server_ts) as sent_at, s.changed_at
from archive.current_state s
join archive.rooms r using (room_key)
join archive.events e on e.room_key = s.room_key and e.event_id = s.event_id;
comment on column public.current_state.prev_content is 'The value before it: as the server told, else that of the archived event before it, as in state_history.';
comment on column public.events.prev_content is 'Content of the state event that this one replaced, where the server told both that and replaces_state.';
comment on view public.messages is 'What a reader of the room sees: order by position. The latest valid edit is applied, edits themselves are not listed; an encrypted message has no body. Of an edit that was redacted nothing tells any more that it was one: it is listed as a redacted message.';
comment on column room_reader.current_state.prev_content is 'The value before it: as the server told, else that of the archived event before it, as in state_history.';
comment on column room_reader.events.prev_content is 'Content of the state event that this one replaced, where the server told both that and replaces_state.';
comment on view room_reader.messages is 'What a reader of the room sees: order by position. The latest valid edit is applied, edits themselves are not listed; an encrypted message has no body. Of an edit that was redacted nothing tells any more that it was one: it is listed as a redacted message.';
comment on index archive.quarantine_raw is 'What is served again is kept once, whatever the server adds to it.';
comment on column archive.quarantine.raw_sha256 is 'SHA-256 of raw without what servers add (unsigned, age, …) and without this room''s own room_id.';

create or replace view public.rooms as
select r.room_id,
       name.content ->> 'name' as name,
       alias.content ->> 'alias' as canonical_alias,
       topic.content ->> 'topic' as topic,
       r.room_version,
       -- From version 11 on the sender alone says so, whatever the content claims.
       case when r.room_version in ('1', '2', '3', '4', '5', '6', '7', '8', '9', '10')
            then coalesce("create".content ->> 'creator', "create".sender) else "create".sender end as creator,
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
