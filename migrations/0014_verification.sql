-- What `backscroll verify` finds in the archive by itself. The hash of each event is compared by the program, because SQL
-- cannot write canonical JSON.
--
-- Each rule below holds after every transaction of the writer. So a row of the result means that somebody else has changed
-- the tables, that the disk or the memory was faulty, or that Backscroll has a bug.
create function archive.inconsistencies(room_ids text[])
    returns table (room_id text, kind text, event_id text, detail text)
    -- Without settings of its own, so that PostgreSQL puts it into the query and reads only the rooms that are asked for.
    language sql stable parallel safe as $$
    -- The current state names events of the archive, with the same state key.
    select c.room_id, 'state without event', c.event_id, concat_ws(' ', c.type, nullif(c.state_key, ''))
    from archive.current_state c
    left join archive.events e on e.room_id = c.room_id and e.event_id = c.event_id
    where (room_ids is null or c.room_id = any (room_ids))
      and (e.type, e.state_key) is distinct from (c.type, c.state_key)

    union all
    -- The current state is what its last recorded change made it.
    select room_id, 'state moved without record', coalesce(c.event_id, l.new_event_id),
           concat_ws(' ', type, nullif(state_key, ''))
    from (select * from archive.current_state c where room_ids is null or c.room_id = any (room_ids)) c
    full join (
        select distinct on (s.room_id, s.type, s.state_key) s.room_id, s.type, s.state_key, s.new_event_id
        from archive.state_changes s
        where room_ids is null or s.room_id = any (room_ids)
        order by s.room_id, s.type, s.state_key, s.change_id desc
    ) l using (room_id, type, state_key)
    where c.event_id is distinct from l.new_event_id

    union all
    -- A recorded redaction is applied, unless the target is a create event or is not archived.
    select r.room_id, 'redaction not applied', r.target_event_id, r.redaction_event_id
    from archive.redactions r
    join archive.events e on e.room_id = r.room_id and e.event_id = r.target_event_id
    where (room_ids is null or r.room_id = any (room_ids)) and e.redacted_by is null and e.type <> 'm.room.create'

    union all
    -- An applied redaction is recorded, and a stored one as well.
    select e.room_id, 'redaction without record', e.event_id, e.redacted_by
    from archive.events e
    where (room_ids is null or e.room_id = any (room_ids)) and e.redacted_by is not null
      and not exists (select from archive.redactions r
                      where r.room_id = e.room_id and r.target_event_id = e.event_id and r.redaction_event_id = e.redacted_by
                        and r.state <> 'refused')

    union all
    select e.room_id, 'redaction without record', e.event_id, e.redacts
    from archive.events e
    where (room_ids is null or e.room_id = any (room_ids))
      and e.type = 'm.room.redaction' and e.redacts is not null and e.redacted_by is null
      and not exists (select from archive.redactions r
                      where r.room_id = e.room_id and r.target_event_id = e.redacts and r.redaction_event_id = e.event_id)

    union all
    -- A message has the content of its latest valid edit.
    select room_id, 'edit differs', event_id, coalesce(kept.edited_by, latest.edited_by)
    from (
        select distinct on (x.room_id, x.relates_to) x.room_id, x.relates_to as event_id, x.event_id as edited_by,
               x.sent_at as edited_at, (count(*) over (partition by x.room_id, x.relates_to))::int as edit_count,
               case when x.type <> 'm.room.encrypted' then x.content -> 'm.new_content' end as edited_content
        from archive.events x
        join archive.events m on m.room_id = x.room_id and m.event_id = x.relates_to
        where (room_ids is null or x.room_id = any (room_ids))
          and x.rel_type = 'm.replace' and x.sender = m.sender and x.type = m.type and x.state_key is null
          and x.redacted_by is null and m.state_key is null and m.redacted_by is null
          and (x.type = 'm.room.encrypted' or jsonb_typeof(x.content -> 'm.new_content') = 'object')
        order by x.room_id, x.relates_to, x.origin_server_ts desc nulls last, x.event_id desc
    ) latest
    full join (
        select e.room_id, e.event_id, e.edited_by, e.edited_at, e.edit_count, e.edited_content from archive.events e
        where (room_ids is null or e.room_id = any (room_ids)) and num_nonnulls(e.edited_by, e.edit_count, e.edited_content) > 0
    ) kept using (room_id, event_id)
    where (kept.edited_by, kept.edited_at, kept.edit_count, kept.edited_content)
          is distinct from (latest.edited_by, latest.edited_at, latest.edit_count, latest.edited_content)

    union all
    -- An encrypted event that says no message has the type of what it says.
    select e.room_id, 'decrypted message differs', e.event_id, coalesce(e.hidden_type, said.type)
    from archive.events e
    left join archive.decrypted_events said
        on said.room_id = e.room_id and said.event_id = e.event_id and not archive.is_message(said.type, said.content)
    where (room_ids is null or e.room_id = any (room_ids)) and (e.type = 'm.room.encrypted' or e.hidden_type is not null)
      and e.hidden_type is distinct from said.type

    union all
    -- An encrypted message has the content of its latest valid edit, if that was decrypted.
    select d.room_id, 'decrypted message differs', d.event_id, e.edited_by
    from archive.decrypted_events d
    left join archive.events e on e.room_id = d.room_id and e.event_id = d.event_id
    left join archive.decrypted_events edit
        on edit.room_id = e.room_id and edit.event_id = e.edited_by
       and edit.type = d.type and jsonb_typeof(edit.content -> 'm.new_content') = 'object'
    where (room_ids is null or d.room_id = any (room_ids))
      and d.edited_content is distinct from edit.content -> 'm.new_content'

    union all
    -- A reply in a thread names the thread's root, if that can begin a thread.
    select e.room_id, 'thread differs', e.event_id, coalesce(e.thread_root, e.relates_to)
    from archive.events e
    left join archive.events root on root.room_id = e.room_id and root.event_id = e.relates_to and root.rel_type is not null
    where (room_ids is null or e.room_id = any (room_ids)) and (e.rel_type = 'm.thread' or e.thread_root is not null)
      and e.thread_root is distinct from case when e.rel_type = 'm.thread' and root.event_id is null then e.relates_to end

    union all
    -- An edit whose message is not archived waits for it.
    select e.room_id, 'edit does not wait', e.event_id, e.relates_to
    from archive.events e
    where (room_ids is null or e.room_id = any (room_ids))
      and e.rel_type = 'm.replace' and e.relates_to is not null and e.state_key is null and e.redacted_by is null
      and not exists (select from archive.events m where m.room_id = e.room_id and m.event_id = e.relates_to)
      and not exists (select from archive.waiting_edits w where w.room_id = e.room_id and w.edit_id = e.event_id)

    union all
    -- A state event repeats the content of the event that it replaced.
    select e.room_id, 'previous content differs', e.event_id, e.replaces_state
    from archive.events e
    join archive.events replaced on replaced.room_id = e.room_id and replaced.event_id = e.replaces_state
    where (room_ids is null or e.room_id = any (room_ids)) and e.prev_content is not null
      and (replaced.redacted_by is not null or replaced.raw is null) and e.prev_content <> replaced.content

    union all
    -- archive.activity is the number of events of each kind.
    select room_id, 'activity differs', null, concat_ws(' ', sender, day)
    from (
        select e.room_id, coalesce((e.sent_at at time zone 'UTC')::date, '-infinity') as day, e.sender,
               count(*) filter (where k.kind = 'message') as messages, count(*) filter (where k.kind = 'edit') as edits,
               count(*) filter (where k.kind = 'reaction') as reactions
        from archive.events e
        cross join lateral archive.activity_kind(e.type, e.state_key, e.relates_to, e.rel_type, e.redacted_by, e.content,
                                                 e.hidden_type) as k (kind)
        where (room_ids is null or e.room_id = any (room_ids)) and k.kind is not null
        group by 1, 2, 3
    ) counted
    full join (
        select a.* from archive.activity a
        where (room_ids is null or a.room_id = any (room_ids)) and (a.messages, a.edits, a.reactions) <> (0, 0, 0)
    ) kept using (room_id, day, sender)
    where (counted.messages, counted.edits, counted.reactions)
          is distinct from (kept.messages::bigint, kept.edits::bigint, kept.reactions::bigint)

    union all
    -- Each member of the current state is in archive.members, with the name of the event.
    select room_id, 'member differs', coalesce(m.event_id, c.event_id), user_id
    from (
        select m.room_id, m.user_id, m.event_id, m.membership, m.display_name from archive.members m
        where room_ids is null or m.room_id = any (room_ids)
    ) m
    full join (
        select s.room_id, s.state_key as user_id, s.event_id, archive.text_of(e.content -> 'membership') as membership,
               archive.name_of(e.content -> 'displayname') as display_name
        from archive.current_state s
        join archive.events e on e.room_id = s.room_id and e.event_id = s.event_id
        where (room_ids is null or s.room_id = any (room_ids)) and s.type = 'm.room.member'
    ) c using (room_id, user_id)
    where (m.event_id, m.membership) is distinct from (c.event_id, c.membership)
          -- Who has left is shown with the last name.
       or (c.membership in ('join', 'invite', 'knock') and m.display_name is distinct from c.display_name)

    union all
    -- The number of events of each room.
    select room_id, 'event count differs', null, format('%s counted, %s stored', r.event_count, coalesce(counted.events, 0))
    from (select r.room_id, r.event_count from archive.rooms r where room_ids is null or r.room_id = any (room_ids)) r
    full join (
        select e.room_id, count(*) as events from archive.events e
        where room_ids is null or e.room_id = any (room_ids) group by e.room_id
    ) counted using (room_id)
    where r.event_count is distinct from coalesce(counted.events, 0)

    union all
    -- The number of messages of each room is the sum of archive.activity.
    select r.room_id, 'message count differs', null, format('%s counted, %s in activity', r.message_count, a.messages)
    from archive.rooms r
    cross join lateral (
        select coalesce(sum(a.messages), 0)::bigint as messages from archive.activity a where a.room_id = r.room_id
    ) a
    where (room_ids is null or r.room_id = any (room_ids)) and r.message_count <> a.messages

    union all
    -- The version of a room is that of its create event. The erasure of the creator's content may have removed it there.
    select r.room_id, 'room version differs', e.event_id, r.room_version
    from archive.rooms r
    join archive.events e on e.room_id = r.room_id and e.type = 'm.room.create' and e.state_key = ''
    where (room_ids is null or r.room_id = any (room_ids)) and jsonb_typeof(e.content -> 'room_version') = 'string'
      and r.room_version is distinct from e.content ->> 'room_version'

    union all
    -- An edit waits only for a message that is not archived.
    select w.room_id, 'edit waits for a message that is there', w.edit_id, w.message_id
    from archive.waiting_edits w
    join archive.events m on m.room_id = w.room_id and m.event_id = w.message_id
    where room_ids is null or w.room_id = any (room_ids)

    union all
    -- A walk fills a recorded gap.
    select w.room_id, 'gap without record', null, format('walk %s', w.walk_id)
    from archive.walks w
    where (room_ids is null or w.room_id = any (room_ids)) and w.gap_id is not null
      and not exists (select from archive.gaps g where g.room_id = w.room_id and g.gap_id = w.gap_id)

    union all
    -- The history of a room is complete only if it has its create event.
    select r.room_id, 'no create event', null, null
    from archive.rooms r
    where (room_ids is null or r.room_id = any (room_ids)) and r.history_state = 'complete'
      and not exists (select from archive.events e
                      where e.room_id = r.room_id and e.type = 'm.room.create' and e.state_key = '' and e.position is not null)
$$;
comment on function archive.inconsistencies(text[]) is 'What contradicts itself in these rooms of the archive; null: in all rooms. No row is the rule. event_id: the event concerned, null if it is none; detail: never content.';
revoke execute on function archive.inconsistencies(text[]) from public;

-- What a running `backscroll verify` has seen of a room. The ids are here and not in memory, because a room may have
-- millions. Unlogged: after a crash of the server the verification begins anew.
create unlogged table archive.running_verifications (
    room_id text collate "C" not null,
    verification_id bigint generated always as identity,
    touched_at timestamptz not null default now(),
    primary key (room_id, verification_id)
);
comment on table archive.running_verifications is 'Verifications that are under way, each of one room.';
comment on column archive.running_verifications.room_id is 'Room.';
comment on column archive.running_verifications.verification_id is 'Internal key.';
comment on column archive.running_verifications.touched_at is 'When it last stored a page. What is older than a day was left behind by a process that was killed, and is deleted.';

create unlogged table archive.verified_events (
    room_id text collate "C" not null,
    verification_id bigint not null,
    event_id text collate "C" not null,
    rank bigint not null,
    position bigint,
    is_message boolean not null,
    primary key (room_id, verification_id, event_id)
) with (autovacuum_enabled = off);
comment on table archive.verified_events is 'The events that the homeserver has listed to a running verification.';
comment on column archive.verified_events.room_id is 'Room.';
comment on column archive.verified_events.verification_id is 'The verification, a row of archive.running_verifications.';
comment on column archive.verified_events.event_id is 'Matrix event id.';
comment on column archive.verified_events.rank is 'Place in the homeserver''s list, from the newest event downwards.';
comment on column archive.verified_events.position is 'Position in the archive when it was listed; null: it was not placed, or not archived.';
comment on column archive.verified_events.is_message is 'Whether it is no state event.';

create unlogged table archive.verified_ancestors (
    room_id text collate "C" not null,
    verification_id bigint not null,
    event_id text collate "C" not null,
    descendant_id text collate "C" not null,
    primary key (room_id, verification_id, event_id)
) with (autovacuum_enabled = off);
comment on table archive.verified_ancestors is 'Events that other events name as their ancestors, and that a running verification had not met by then.';
comment on column archive.verified_ancestors.room_id is 'Room.';
comment on column archive.verified_ancestors.verification_id is 'The verification, a row of archive.running_verifications.';
comment on column archive.verified_ancestors.event_id is 'The ancestor.';
comment on column archive.verified_ancestors.descendant_id is 'One of the events that name it in prev_events or auth_events.';
