-- A gap is a row, not a flag in memory. The transaction that moves `since` past missing events also opens the gap. The
-- archive of a room is complete only when no gap is open and no walk is open or stalled.
create table archive.gaps (
    room_id text collate "C" not null,
    gap_id bigint generated always as identity,
    reason text not null,
    upper_token text,
    lower_token text,
    upper_event_id text collate "C",
    lower_event_id text collate "C",
    upper_position bigint,
    lower_position bigint,
    state text not null default 'open' check (state in ('open', 'closed', 'skipped')),
    opened_at timestamptz not null default now(),
    closed_at timestamptz,
    primary key (room_id, gap_id)
);
create index gaps_open on archive.gaps (room_id) where state <> 'closed';
comment on index archive.gaps_open is 'What is still missing in a room.';
comment on table archive.gaps is 'Known holes in a room''s timeline. The archive and its gaps together are the room.';
comment on column archive.gaps.room_id is 'Room.';
comment on column archive.gaps.gap_id is 'Internal key.';
comment on column archive.gaps.reason is 'What made it: limited timeline, lost sync token, …';
comment on column archive.gaps.upper_token is 'Token above the hole, from which the first walk begins that has a token below; the others begin at the account''s since. Null: the newest event.';
comment on column archive.gaps.lower_token is 'Token below the hole: the since before it.';
comment on column archive.gaps.upper_event_id is 'First archived event above the hole, where known.';
comment on column archive.gaps.lower_event_id is 'Last archived event below the hole.';
comment on column archive.gaps.upper_position is 'Position of upper_event_id, or the place that the next event above would get.';
comment on column archive.gaps.lower_position is 'Position of lower_event_id.';
comment on column archive.gaps.state is 'open: being filled; closed: filled; skipped: left by the operator''s choice.';
comment on column archive.gaps.opened_at is 'When the hole became known.';
comment on column archive.gaps.closed_at is 'When it was filled.';

create table archive.walks (
    room_id text collate "C" not null,
    walk_id bigint generated always as identity,
    gap_id bigint,
    kind text not null check (kind in ('history', 'operator', 'gap_since', 'gap_whole', 'gap_known', 'gap_recheck', 'rewalk')),
    from_token text,
    to_token text,
    -- The backward checkpoint: `from` of the next request. It only moves in the transaction that stores the page before it,
    -- by compare-and-set on (cursor, pages).
    cursor text,
    upper_position bigint,
    pages bigint not null default 0,
    events bigint not null default 0,
    busy_ms bigint not null default 0,
    oldest_ts bigint,
    known_pages int not null default 0,
    lower_reached boolean not null default false,
    ends int not null default 0,
    repeats int not null default 0,
    landmark text,
    restarted boolean not null default false,
    round int not null default 0,
    stalls int not null default 0,
    state text not null default 'open' check (state in ('open', 'stalled', 'done')),
    last_error text,
    not_before timestamptz not null default now(),
    opened_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (room_id, walk_id)
);
create index walks_unfinished on archive.walks (room_id, walk_id) where state <> 'done';
comment on index archive.walks_unfinished is 'What is still to be walked.';
create index walks_room on archive.walks (room_id, kind, walk_id);
comment on index archive.walks_room is 'The walks of a room, for the view backfill.';
comment on table archive.walks is 'Backward walks by /messages?dir=b, each with its checkpoint.';
comment on column archive.walks.room_id is 'Room.';
comment on column archive.walks.walk_id is 'Internal key.';
comment on column archive.walks.gap_id is 'The gap that this walk fills.';
comment on column archive.walks.kind is 'history: a room''s whole past; operator: backscroll backfill; gap_since: a gap down to the old since; gap_whole: a gap without a token below, down to the room''s start; gap_known: the same as gap_since without `to`, until the archive is met; gap_recheck: that once more, later; rewalk: the whole past again, for what the server has learnt since.';
comment on column archive.walks.from_token is 'Where it began; null: at the newest event.';
comment on column archive.walks.to_token is 'Where the server is asked to stop; null: nowhere.';
comment on column archive.walks.cursor is 'from of the next request; null: without from.';
comment on column archive.walks.upper_position is 'Position of the last event passed: what comes next belongs below it.';
comment on column archive.walks.pages is 'Pages stored.';
comment on column archive.walks.events is 'Events that were new to the archive.';
comment on column archive.walks.busy_ms is 'Milliseconds spent asking and storing, for the rate.';
comment on column archive.walks.oldest_ts is 'origin_server_ts of the last event passed.';
comment on column archive.walks.known_pages is 'Pages in a row that held nothing new.';
comment on column archive.walks.lower_reached is 'Of a gap: whether the last event below it was passed. Of a room''s whole past: whether an event was met that had its place.';
comment on column archive.walks.ends is 'How often the server answered without `end` at this cursor though the room''s start was not reached.';
comment on column archive.walks.repeats is 'How often the server answered `end` equal to `from` at this cursor.';
comment on column archive.walks.landmark is 'An earlier cursor: meeting it again means that the server''s tokens go in a circle.';
comment on column archive.walks.restarted is 'Whether the walk was begun anew from the newest event because the server refused its cursor; once, until the daemon is started again.';
comment on column archive.walks.round is 'Of a rewalk: how many before it in a row have found nothing new.';
comment on column archive.walks.stalls is 'How often in a row the walk has stalled without finding anything new: the next try is put off twice as long after each.';
comment on column archive.walks.state is 'open; stalled: could not go on, see last_error, and is tried again at not_before; done.';
comment on column archive.walks.last_error is 'What went wrong last, without content.';
comment on column archive.walks.not_before is 'The next request is not due before this.';
comment on column archive.walks.opened_at is 'When it was opened.';
comment on column archive.walks.updated_at is 'When its checkpoint last moved.';

-- The server's order of a room, while `backscroll resequence` reads it. It is a table, so that a kill costs one page. The
-- positions are rewritten at the end, so that readers see one order or the other.
create table archive.resequences (
    room_id text collate "C" primary key,
    since text,
    cursor text,
    pages bigint not null default 0,
    opened_at timestamptz not null default now()
);
comment on table archive.resequences is 'Rooms whose order is being read anew from the server.';
comment on column archive.resequences.room_id is 'Room.';
comment on column archive.resequences.since is 'The account''s since when it was begun; if that moved, events came that it did not see, and it is begun anew.';
comment on column archive.resequences.cursor is 'from of the next request; null: the newest event. It must only move in the transaction that stores the page it follows.';
comment on column archive.resequences.pages is 'Pages read.';
comment on column archive.resequences.opened_at is 'When it was begun.';

create table archive.resequenced_events (
    room_id text collate "C" not null,
    event_id text collate "C" not null,
    rank bigint,
    old_position bigint,
    new_position bigint,
    primary key (room_id, event_id)
);
comment on table archive.resequenced_events is 'The events of the rooms in archive.resequences in the server''s order; emptied when their positions are rewritten.';
comment on column archive.resequenced_events.room_id is 'Room.';
comment on column archive.resequenced_events.event_id is 'Matrix event id.';
comment on column archive.resequenced_events.rank is 'Ascends from the newest event downwards; null: the server does not list this event any more.';
comment on column archive.resequenced_events.old_position is 'Its position before.';
comment on column archive.resequenced_events.new_position is 'Its position after.';

create table archive.verifications (
    room_id text collate "C" not null,
    verification_id bigint generated always as identity,
    level text not null check (level in ('offline', 'walk', 'graph', 'signatures')),
    verdict text not null check (verdict in ('consistent', 'agrees', 'proved', 'findings', 'unclear')),
    event_count bigint not null,
    listed_count bigint not null,
    only_here_count bigint not null,
    finding_count bigint not null,
    findings jsonb not null,
    notes text[] not null,
    root bytea,
    started_at timestamptz not null,
    ended_at timestamptz not null default now(),
    primary key (room_id, verification_id)
);
create index verifications_newest on archive.verifications (room_id, ended_at);
comment on index archive.verifications_newest is 'The last verification of a room.';
comment on table archive.verifications is 'The results of verifications by the daemon (verify.every) and by `backscroll verify --repair`.';
comment on column archive.verifications.room_id is 'Room.';
comment on column archive.verifications.verification_id is 'Internal key.';
comment on column archive.verifications.level is 'offline: the archive by itself; walk: compared with the homeserver''s list and state; graph: also ids, content hashes and ancestors; signatures: also the signatures.';
comment on column archive.verifications.verdict is 'consistent: offline, nothing found; agrees: equal to what the homeserver lists; proved: and its graph is closed; findings: something is wrong; unclear: it could not be told.';
comment on column archive.verifications.event_count is 'Number of archived events.';
comment on column archive.verifications.listed_count is 'Number of events that the homeserver listed.';
comment on column archive.verifications.only_here_count is 'Number of archived events that the homeserver lists no more.';
comment on column archive.verifications.finding_count is 'Number of findings.';
comment on column archive.verifications.findings is 'The first hundred: kind, event_id, detail. Never content.';
comment on column archive.verifications.notes is 'What restricts the result, in words.';
comment on column archive.verifications.root is 'The end of the room''s chain in archive.seals at that time; null: the room was not sealed.';
comment on column archive.verifications.started_at is 'When it began.';
comment on column archive.verifications.ended_at is 'When it ended.';

create table archive.only_here (
    room_id text collate "C" not null,
    event_id text collate "C" not null,
    reason text not null check (reason in ('purged', 'expired', 'withheld', 'redacted', 'not asked')),
    found_at timestamptz not null default now(),
    primary key (room_id, event_id)
);
comment on table archive.only_here is 'The archived events that the homeserver lists no more: this may be their only copy. Each verification by the daemon (verify.every) or by `backscroll verify --repair` finds them anew.';
comment on column archive.only_here.room_id is 'Room.';
comment on column archive.only_here.event_id is 'The event, a row of archive.events.';
comment on column archive.only_here.reason is 'purged: the homeserver does not have it; expired: and it is older than the room''s m.room.retention allows; redacted: and it was redacted; withheld: the account may not see it; not asked: the homeserver was not asked for it by its id, because there are many.';
comment on column archive.only_here.found_at is 'When the verification found it.';

-- For each room and day one hash over all its events, so that a later change of any of them shows. `backscroll seal` makes
-- them, because SQL has no canonical JSON and no Merkle tree.
create table archive.seals (
    room_id text collate "C" not null,
    seal_id bigint generated always as identity,
    day date not null,
    event_count bigint not null,
    root bytea not null,
    chain bytea not null,
    leaves bytea not null,
    sealed_at timestamptz not null,
    primary key (room_id, seal_id)
);
create index seals_day on archive.seals (room_id, day, seal_id);
comment on index archive.seals_day is 'The newest seal of a day.';
-- Hashes cannot be compressed.
alter table archive.seals alter column leaves set storage external, alter column leaves set statistics 0;
comment on table archive.seals is 'Hashes over the events of a day. Rows are only added: a day whose events have changed gets another row.';
comment on column archive.seals.room_id is 'Room.';
comment on column archive.seals.seal_id is 'Internal key; ascends.';
comment on column archive.seals.day is 'Day (UTC) on which the events were sent, by the sender''s clock; -infinity: no time that PostgreSQL can represent.';
comment on column archive.seals.event_count is 'Number of the events.';
comment on column archive.seals.root is 'Root of the Merkle tree (RFC 9162, section 2.1.1, with SHA-256) over the events in the order of their positions; those without a position come last, in the order of their ids.';
comment on column archive.seals.chain is 'SHA-256 over the room''s previous seal and this one.';
comment on column archive.seals.leaves is 'The first eight bytes of each leaf of the tree, to name the event that has changed.';
comment on column archive.seals.sealed_at is 'When the events were read.';

-- What is asked of several rooms at once. Each query below names one room, so that a distributed database (deploy/citus.sql)
-- can send it to the room's server.
create function archive.lock_rooms(room_ids text[]) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    locked text;
begin
    for locked in select asked.room_id from unnest(room_ids) as asked (room_id) order by asked.room_id collate "C" loop
        perform from archive.rooms r where r.room_id = locked for no key update;
    end loop;
end
$$;
comment on function archive.lock_rooms(text[]) is 'Locks the rows of these rooms in archive.rooms, in ascending order.';

create function archive.tops(
    room_ids text[], out room_id text, out event_id text, out "position" bigint, out upper_edge bigint, out awaits_walk boolean
) returns setof record
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    foreach room_id in array room_ids loop
        event_id := null;
        position := null;
        select e.event_id, e.position into event_id, position from archive.events e
            where e.room_id = tops.room_id and e.position is not null
            order by e.position desc limit 1;
        select max(g.upper_position) into upper_edge from archive.gaps g
            where g.room_id = tops.room_id and g.state <> 'closed';
        awaits_walk := exists (
            select from archive.walks w
            where w.room_id = tops.room_id and w.kind = 'gap_whole' and w.state = 'open'
              and w.pages = 0 and w.upper_position is null);
        return next;
    end loop;
end
$$;
comment on function archive.tops(text[]) is 'The current ends of the timelines of rooms: the newest event, the upper edge of the highest gap that is not closed, and whether the walk of such a gap has not begun.';

create function archive.surroundings(
    room_ids text[], gap_ids bigint[], out gap_upper_position bigint, out name text, out newest_ts bigint, out created_ts bigint
) returns setof record
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    alias text;
begin
    for place in 1 .. cardinality(room_ids) loop
        gap_upper_position := null;
        select g.upper_position into gap_upper_position from archive.gaps g
            where g.room_id = room_ids[place] and g.gap_id = gap_ids[place];
        newest_ts := null;
        select e.origin_server_ts into newest_ts from archive.events e
            where e.room_id = room_ids[place] and e.position is not null
            order by e.position desc limit 1;
        select max(e.content ->> 'name') filter (where s.type = 'm.room.name'),
               max(e.content ->> 'alias') filter (where s.type = 'm.room.canonical_alias'),
               max(e.origin_server_ts) filter (where s.type = 'm.room.create')
            into name, alias, created_ts
            from archive.current_state s
            cross join lateral (
                select i.content, i.origin_server_ts from archive.events i
                where i.room_id = s.room_id and i.event_id = s.event_id
                limit 1
            ) e
            where s.room_id = room_ids[place] and s.state_key = ''
              and s.type in ('m.room.name', 'm.room.canonical_alias', 'm.room.create');
        name := coalesce(name, alias);
        return next;
    end loop;
end
$$;
comment on function archive.surroundings(text[], bigint[]) is 'Of each of these rooms, in their order: where its gap of that id ends, its name, and the times of its newest event and of its creation.';

create function archive.stored_of(
    room_ids text[], event_ids text[],
    out room_id text, out event_id text, out "position" bigint, out has_prev_content boolean, out stable_sha256 bytea
) returns setof record
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    room record;
begin
    for room in select a.room_id, array_agg(a.event_id) as event_ids
                from unnest(room_ids, event_ids) as a (room_id, event_id) group by a.room_id loop
        return query
            select room.room_id, stored.*
            from unnest(room.event_ids) as asked (event_id)
            -- Lateral with a limit: one look-up in the primary key for each id, whatever the statistics are.
            cross join lateral (
                select e.event_id, e.position, e.prev_content is not null, e.stable_sha256
                from archive.events e
                where e.room_id = room.room_id and e.event_id = asked.event_id
                limit 1
            ) as stored;
    end loop;
end
$$;
comment on function archive.stored_of(text[], text[]) is 'What archive.events has of these events, each given by its room and its id.';

create function archive.redactions_of(
    room_ids text[], event_ids text[], out room_id text, out target_event_id text, out redaction_event_id text
) returns setof record
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    room record;
begin
    for room in select a.room_id, array_agg(a.event_id) as event_ids
                from unnest(room_ids, event_ids) as a (room_id, event_id) group by a.room_id loop
        return query
            select room.room_id, link.*
            from unnest(room.event_ids) as asked (event_id)
            cross join lateral (
                select r.target_event_id, r.redaction_event_id from archive.redactions r
                where r.room_id = room.room_id and r.target_event_id = asked.event_id and r.state <> 'refused'
                order by r.recorded_at, r.redaction_event_id
                limit 1
            ) as link;
    end loop;
end
$$;
comment on function archive.redactions_of(text[], text[]) is 'The redactions of these events, each given by its room and its id: of each event the first that counts.';

create function archive.awaited_of(room_ids text[], event_ids text[], out room_id text, out event_id text) returns setof record
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    room record;
begin
    for room in select a.room_id, array_agg(a.event_id) as event_ids
                from unnest(room_ids, event_ids) as a (room_id, event_id) group by a.room_id loop
        return query
            select distinct room.room_id, w.message_id from archive.waiting_edits w
            where w.room_id = room.room_id and w.message_id = any (room.event_ids);
    end loop;
end
$$;
comment on function archive.awaited_of(text[], text[]) is 'Those of these events, each given by its room and its id, that edits wait for.';

create function archive.pointers_of(
    room_ids text[], types text[], state_keys text[],
    out room_id text, out type text, out state_key text, out event_id text, out origin_server_ts bigint
) returns setof record
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    room record;
begin
    for room in select a.room_id, array_agg(a.type) as types, array_agg(a.state_key) as state_keys
                from unnest(room_ids, types, state_keys) as a (room_id, type, state_key) group by a.room_id loop
        return query
            select room.room_id, c.type, c.state_key, c.event_id,
                   (select e.origin_server_ts from archive.events e
                    where e.room_id = room.room_id and e.event_id = c.event_id)
            from unnest(room.types, room.state_keys) as named (type, state_key)
            cross join lateral (
                select s.type, s.state_key, s.event_id from archive.current_state s
                where s.room_id = room.room_id and s.type = named.type and s.state_key = named.state_key
                limit 1
            ) as c;
    end loop;
end
$$;
comment on function archive.pointers_of(text[], text[], text[]) is 'What archive.current_state has of these rooms, types and state keys.';

create function archive.users_in(user_ids text[], room_ids text[]) returns setof text
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    asked text;
begin
    foreach asked in array user_ids loop
        -- Not `select from`: a distributed database takes no part of a query without columns.
        if exists (select 1 from archive.events e
                   where e.sender = asked and archive.any_room(e.origin_server_ts)
                     and (room_ids is null or e.room_id = any (room_ids)))
            or exists (select 1 from archive.members m where m.room_id = any (room_ids) and m.user_id = asked) then
            return next asked;
        end if;
    end loop;
end
$$;
comment on function archive.users_in(text[], text[]) is 'Those of these users who have sent events to these rooms or are members there; room_ids is null: who have sent events to any room.';
