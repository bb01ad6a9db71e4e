-- A room's state as it was.
--
-- The order of the timeline says which state event came last. The server's word, archive.state_changes, says which one was in
-- force: it differs after a state reset, and where two branches of the room's graph were merged. That word was heard at a time,
-- not at a position. It tells of a position only where events were stored as they were sent: there, what is above was received
-- later. In history, which was fetched afterwards, and around a gap, only the order is known.
--
-- Each function is one query, so that PostgreSQL can put it into the query that calls it: a condition on type or state_key then
-- reads just those keys. Each lateral reads one row by its key. Its limit keeps PostgreSQL, which underestimates a large room,
-- from reading all of it.

-- state_at reads views alone and has its caller's rights, which also lets PostgreSQL put it into a query. members_at reads what
-- only the archive's owner may, so it is a security definer, which PostgreSQL calls as it is.

create view public.state_events as
select e.room_id, e.type, e.state_key, e.position, e.event_id, e.sender, e.sent_at, e.content, e.origin_server_ts,
       e.redacted_by, e.received_at
from archive.events e
-- Without archive.any_room(): which keys a room has had, and where, is then read from the index alone.
where e.state_key is not null;
comment on view public.state_events is 'Every archived state event, in force or not. The view state_history also has the value before each. A key''s events: where room_id = … and type = … and state_key = … order by position.';
comment on column public.state_events.room_id is 'Matrix room id.';
comment on column public.state_events.type is 'Event type.';
comment on column public.state_events.state_key is 'State key.';
comment on column public.state_events.position is 'Place in the room''s order; null: known from the room''s state, not placed in the timeline.';
comment on column public.state_events.event_id is 'Matrix event id.';
comment on column public.state_events.sender is 'Sender''s user id.';
comment on column public.state_events.sent_at is 'When it was sent, as the sender''s server says.';
comment on column public.state_events.content is 'Content, pruned if redacted.';
comment on column public.state_events.origin_server_ts is 'sent_at in milliseconds since 1970, as served.';
comment on column public.state_events.redacted_by is 'The event that redacted it; null: not redacted.';
comment on column public.state_events.received_at is 'When it was archived.';

create view public.state_changes as
select c.room_id, c.change_id, c.type, c.state_key, c.old_event_id, c.new_event_id, c.cause, c.changed_at
from archive.state_changes c;
comment on view public.state_changes is 'Every time that the homeserver named another event as the one in force for a state key. A state reset leaves no other trace than a row here: one whose new_event_id is older than old_event_id.';
comment on column public.state_changes.room_id is 'Matrix room id.';
comment on column public.state_changes.change_id is 'Ascends with time.';
comment on column public.state_changes.type is 'Event type.';
comment on column public.state_changes.state_key is 'State key.';
comment on column public.state_changes.old_event_id is 'The event that was in force; null: none.';
comment on column public.state_changes.new_event_id is 'The event in force from then on; null: none.';
comment on column public.state_changes.cause is 'How the archive learnt of it: bootstrap, the first whole state of the room; state, timeline or state_after of a /sync; reconcile, a comparison with the homeserver''s state.';
comment on column public.state_changes.changed_at is 'When the archive learnt of it.';

-- The columns of a function that returns a table have the collation of the database, and a condition on them uses no index of
-- archive.events. Those of a type keep their own.
create type public.past_state as (
    type text collate "C",
    state_key text collate "C",
    event_id text collate "C",
    sender text collate "C",
    content jsonb,
    "position" bigint,
    sent_at timestamptz,
    source text
);
comment on type public.past_state is 'A row of state_at: what was in force for a state key.';
comment on column public.past_state.type is 'Event type.';
comment on column public.past_state.state_key is 'State key.';
comment on column public.past_state.event_id is 'The state event that was in force.';
comment on column public.past_state.sender is 'Its sender.';
comment on column public.past_state.content is 'Its content, pruned if it was redacted since.';
comment on column public.past_state.position is 'Its place in the room''s order; null: known from the room''s state, not placed.';
comment on column public.past_state.sent_at is 'When it was sent, as the sender''s server says.';
comment on column public.past_state.source is 'How it is known that it was in force. server: the server said so at that time. order: it is the last event of its key in the order of the timeline. unplaced: it is known from the room''s state alone, and the archive has none of its key that is older.';

create type public.past_member as (
    user_id text collate "C",
    membership text,
    display_name text,
    avatar_url text,
    power_level numeric,
    event_id text collate "C",
    sent_at timestamptz,
    source text
);
comment on type public.past_member is 'A row of members_at: a user''s membership as it was.';
comment on column public.past_member.user_id is 'User id.';
comment on column public.past_member.membership is 'join, leave, invite, ban or knock.';
comment on column public.past_member.display_name is 'Display name in this room at that time; of a user who had left or was banned, the last one; null: none.';
comment on column public.past_member.avatar_url is 'mxc: URI of the avatar at that time; of a user who had left or was banned, the last one; null: none.';
comment on column public.past_member.power_level is 'Power level at that time; infinite for creators from room version 12 on.';
comment on column public.past_member.event_id is 'The member event that was in force.';
comment on column public.past_member.sent_at is 'When it was sent, as the sender''s server says.';
comment on column public.past_member.source is 'How it is known that it was in force, as in state_at: server, order or unplaced.';

create function public.state_at(room_id text, "position" bigint)
    returns setof public.past_state language sql stable parallel safe as $$
    with moment as (
        -- `next_received_at`: when the archive received the next event. What the server had said until then, it said of this
        -- position.
        select coalesce(above.received_at, 'infinity') as next_received_at, at.origin_server_ts,
               message.received_at is not null
               and coalesce(above.first_message >= message.received_at, true)
               and (above.last_message > message.received_at or above.count < 100)
               and not exists (
                   select from public.gaps g
                   where g.room_id = $1 and g.lower_position <= $2
                     -- What came in one response with the gap is no better known: in between, the server said nothing.
                     and (coalesce(g.upper_position, 9223372036854775807) > $2 or above.received_at <= g.opened_at)
               ) as is_live
        from (
            select e.origin_server_ts, e.received_at from public.events e
            where e.room_id = $1 and e.position <= $2
            order by e.position desc
            limit 1
        ) at
        left join lateral (
            -- State events may have been known before they got their place.
            select e.received_at from public.events e
            where e.room_id = $1 and e.position <= $2 and e.state_key is null
            order by e.position desc
            limit 1
        ) message on true
        cross join lateral (
            -- In history, the page above was received earlier. If it is too far to be seen, nothing later is seen either.
            select count(*) as count, min(later.received_at) as received_at,
                   min(later.received_at) filter (where later.state_key is null) as first_message,
                   max(later.received_at) filter (where later.state_key is null) as last_message
            from (
                select e.received_at, e.state_key from public.events e
                where e.room_id = $1 and e.position > $2
                order by e.position
                limit 100
            ) later
        ) above
    )
    select key.type, key.state_key, e.event_id, e.sender, e.content, e.position, e.sent_at, e.source
    from moment
    cross join (
        select e.type, e.state_key, max(e.position) filter (where e.position <= $2) as position,
               bool_or(e.position is null) as has_unplaced
        from public.state_events e
        where e.room_id = $1
        group by e.type, e.state_key
        -- Always true. PostgreSQL expects fewer rows for it, and then does not compile the query (jit): that would take longer
        -- than the query itself.
        having count(*) > 0 and count(e.type) > 0 and count(e.state_key) > 0
    ) key
    left join lateral (
        select c.change_id, c.new_event_id from public.state_changes c
        where moment.is_live and c.room_id = $1 and c.type = key.type and c.state_key = key.state_key
          and c.changed_at < moment.next_received_at
        order by c.change_id desc
        limit 1
    ) change on true
    left join lateral (
        select e.event_id, e.sender, e.content, e.position, e.sent_at, e.received_at from public.events e
        where e.room_id = $1 and e.position = key.position
        limit 1
    ) placed on true
    -- The server's word, if it is another than the order's. It tells nothing of an event that came in one response with the
    -- next event, or after it: what the server says of a response, it says of its end, and a state event may have been known
    -- before those below it. And what has its place above was not there yet.
    left join lateral (
        select e.event_id, e.sender, e.content, e.position, e.sent_at from public.events e
        where change.change_id is not null and change.new_event_id is distinct from placed.event_id
          and (placed.received_at >= moment.next_received_at) is not true
          and e.room_id = $1 and e.event_id = change.new_event_id and (e.position > $2) is not true
        limit 1
    ) other on true
    cross join lateral (
        select other.event_id, other.sender, other.content, other.position, other.sent_at, 'server' as source
        where other.event_id is not null
        union all
        select placed.event_id, placed.sender, placed.content, placed.position, placed.sent_at,
               case when change.new_event_id = placed.event_id then 'server' else 'order' end
        where other.event_id is null and placed.event_id is not null
          -- The server may also say that nothing is in force any more.
          and (change.change_id is null or change.new_event_id is not null
               or placed.received_at >= moment.next_received_at)
        union all
        -- Known from the room's state alone. One that was sent later, as it claims, was not there yet.
        (select u.event_id, u.sender, u.content, u.position, u.sent_at, 'unplaced'
         from public.state_events u
         where other.event_id is null and key.has_unplaced and key.position is null
           and (change.change_id is null or change.new_event_id is not null)
           and u.room_id = $1 and u.type = key.type and u.state_key = key.state_key and u.position is null
           and (u.origin_server_ts <= moment.origin_server_ts) is not false
         order by u.origin_server_ts desc nulls last, u.event_id
         limit 1)
    ) e
$$;
comment on function public.state_at(text, bigint) is 'The state of a room after the last event at or before a position: for each type and state key the event that was in force. No row before the room''s first archived event. A redacted event counts with its pruned content. source says how that is known: server, the server named this event as in force at that time; order, it is the last one in the order of the timeline; unplaced, the event is known from the room''s state alone, its place in history is not archived, and nothing older is known. Where order and server differ in what was archived as it was sent, the server''s word goes first. Its conditions on type and state_key are used.';

create function public.state_at(room_id text, at timestamptz)
    returns setof public.past_state language sql stable parallel safe as $$
    select s.type, s.state_key, s.event_id, s.sender, s.content, s.position, s.sent_at, s.source
    from (
        select e.position from public.events e
        where e.room_id = $1 and e.sent_at <= $2 and e.position is not null
        order by e.sent_at desc, e.position desc
        limit 1
    ) last
    cross join lateral public.state_at($1, last.position) s
$$;
comment on function public.state_at(text, timestamptz) is 'The state of a room at a time: state_at(room_id, position) for the position of the last event that was sent at or before it. The times are those that the senders'' servers give; the event with the latest of them counts, wherever it stands.';

-- PostgreSQL takes a quoted literal, whose type it does not know, for a text. Without this function it could not choose between
-- the two above.
create function public.state_at(room_id text, at text)
    returns setof public.past_state language sql stable parallel safe as $$
    select s.type, s.state_key, s.event_id, s.sender, s.content, s.position, s.sent_at, s.source
    from public.state_at($1, case when $2 ~ '^\s*[+-]?[0-9]+\s*$' then $2::bigint end) s
    union all
    select s.type, s.state_key, s.event_id, s.sender, s.content, s.position, s.sent_at, s.source
    from public.state_at($1, case when $2 !~ '^\s*[+-]?[0-9]+\s*$' then $2::timestamptz end) s
$$;
comment on function public.state_at(text, text) is 'The state of a room at a time, such as ''2026-01-31 12:00Z'' or ''yesterday'', or at a position, which is a whole number.';

create function public.members_at(room_id text, "position" bigint)
    returns setof public.past_member language sql stable parallel restricted
    security definer set search_path = pg_catalog, pg_temp set jit = off
    -- No two rows look for the same.
    set enable_memoize = off as $$
    select s.state_key, archive.text_of(s.content -> 'membership'),
           coalesce(archive.name_of(s.content -> 'displayname'), archive.name_of(last.content -> 'displayname')),
           coalesce(archive.mxc_of(s.content -> 'avatar_url'), archive.mxc_of(last.content -> 'avatar_url')),
           archive.power_level(made.levels, made.room_version, made.creators, s.state_key), s.event_id, s.sent_at, s.source
    from public.state_at($1, $2) s
    -- A kick, a ban and many leaves have no profile. Clients go on showing that of the membership before.
    left join lateral (
        select case when e.prev_content ->> 'membership' in ('join', 'invite', 'knock') then e.prev_content
                    else (select before.content from archive.events before
                          where before.room_id = $1 and before.type = 'm.room.member' and before.state_key = s.state_key
                            and before.position < s.position and before.content ->> 'membership' in ('join', 'invite', 'knock')
                          order by before.position desc
                          limit 1) end as content
        from archive.events e
        where s.content ->> 'membership' in ('leave', 'ban') and e.room_id = $1 and e.position = s.position
        limit 1
    ) last on true
    cross join (
        select r.room_version, said.levels, archive.creators(r.room_version, said.creator, said."create") as creators
        from (
            select (array_agg(p.content) filter (where p.type = 'm.room.power_levels'))[1] as levels,
                   (array_agg(p.content) filter (where p.type = 'm.room.create'))[1] as "create",
                   (array_agg(p.sender) filter (where p.type = 'm.room.create'))[1] as creator
            from public.state_at($1, $2) p
            where p.type in ('m.room.power_levels', 'm.room.create') and p.state_key = ''
        ) said
        left join archive.rooms r on r.room_id = $1
        offset 0
    ) made
    where s.type = 'm.room.member'
$$;
comment on function public.members_at(text, bigint) is 'The members of a room after the last event at or before a position, from state_at: every user with a membership then (join, leave, invite, ban or knock), with the name, avatar and power level of that time. Those who were in the room: where membership = ''join''. Of a user who had left or was banned, name and avatar are the last ones. source is that of the membership, as in state_at.';

create function public.members_at(room_id text, at timestamptz)
    returns setof public.past_member language sql stable parallel restricted
    security definer set search_path = pg_catalog, pg_temp set jit = off as $$
    select m.user_id, m.membership, m.display_name, m.avatar_url, m.power_level, m.event_id, m.sent_at, m.source
    from (
        select e.position from archive.events e
        where e.room_id = $1 and e.sent_at <= $2 and e.position is not null
        order by e.sent_at desc, e.position desc
        limit 1
    ) last
    cross join lateral public.members_at($1, last.position) m
$$;
comment on function public.members_at(text, timestamptz) is 'The members of a room at a time: members_at(room_id, position) for the position of the last event that was sent at or before it, see state_at(room_id, timestamptz).';

create function public.members_at(room_id text, at text)
    returns setof public.past_member language sql stable parallel restricted as $$
    select m.user_id, m.membership, m.display_name, m.avatar_url, m.power_level, m.event_id, m.sent_at, m.source
    from public.members_at($1, case when $2 ~ '^\s*[+-]?[0-9]+\s*$' then $2::bigint end) m
    union all
    select m.user_id, m.membership, m.display_name, m.avatar_url, m.power_level, m.event_id, m.sent_at, m.source
    from public.members_at($1, case when $2 !~ '^\s*[+-]?[0-9]+\s*$' then $2::timestamptz end) m
$$;
comment on function public.members_at(text, text) is 'The members of a room at a time, such as ''2026-01-31 12:00Z'' or ''yesterday'', or at a position, which is a whole number.';
