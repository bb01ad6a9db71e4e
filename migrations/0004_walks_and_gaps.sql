-- A gap is data, not a flag in memory: it is opened by the transaction that moves `since` past it, and the archive of a
-- room is whole only when no gap is open and no walk is open or stalled.
create table archive.gaps (
    gap_id bigint generated always as identity primary key,
    room_key int not null,
    reason text not null,
    upper_token text,
    lower_token text,
    upper_event_id text collate "C",
    lower_event_id text collate "C",
    upper_position bigint,
    lower_position bigint,
    state text not null default 'open' check (state in ('open', 'closed', 'skipped')),
    opened_at timestamptz not null default now(),
    closed_at timestamptz
);
create index gaps_open on archive.gaps (room_key) where state <> 'closed';
comment on index archive.gaps_open is 'What is still missing in a room.';
comment on table archive.gaps is 'Known holes in a room''s timeline. The archive and its gaps together are the room.';
comment on column archive.gaps.gap_id is 'Internal key.';
comment on column archive.gaps.room_key is 'Room.';
comment on column archive.gaps.reason is 'What made it: limited timeline, lost sync token, …';
comment on column archive.gaps.upper_token is 'Token above the hole, from which walks begin; null: the newest event.';
comment on column archive.gaps.lower_token is 'Token below the hole: the since before it.';
comment on column archive.gaps.upper_event_id is 'First archived event above the hole, where known.';
comment on column archive.gaps.lower_event_id is 'Last archived event below the hole.';
comment on column archive.gaps.upper_position is 'Position of upper_event_id, or the place that the next event above would get.';
comment on column archive.gaps.lower_position is 'Position of lower_event_id.';
comment on column archive.gaps.state is 'open: being filled; closed: filled; skipped: left by the operator''s choice.';
comment on column archive.gaps.opened_at is 'When the hole became known.';
comment on column archive.gaps.closed_at is 'When it was filled.';

create table archive.walks (
    walk_id bigint generated always as identity primary key,
    room_key int not null,
    gap_id bigint references archive.gaps,
    kind text not null check (kind in ('history', 'operator', 'gap_since', 'gap_known', 'gap_recheck')),
    from_token text,
    to_token text,
    -- The backward checkpoint: `from` of the next request. It must only move in the transaction that stores the page it
    -- follows, by compare-and-set on (cursor, pages).
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
    state text not null default 'open' check (state in ('open', 'stalled', 'done')),
    last_error text,
    not_before timestamptz not null default now(),
    opened_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index walks_unfinished on archive.walks (room_key, walk_id) where state <> 'done';
comment on index archive.walks_unfinished is 'What is still to be walked.';
create index walks_room on archive.walks (room_key, kind, walk_id);
comment on index archive.walks_room is 'The walks of a room, for the view backfill.';
comment on table archive.walks is 'Backward walks by /messages?dir=b, each with its checkpoint.';
comment on column archive.walks.walk_id is 'Internal key.';
comment on column archive.walks.room_key is 'Room.';
comment on column archive.walks.gap_id is 'The gap that this walk fills.';
comment on column archive.walks.kind is 'history: a room''s whole past; operator: backscroll backfill; gap_since: a gap down to the old since; gap_known: the same gap without `to`, until the archive is met; gap_recheck: that once more, later.';
comment on column archive.walks.from_token is 'Where it began; null: at the newest event.';
comment on column archive.walks.to_token is 'Where the server is asked to stop; null: nowhere.';
comment on column archive.walks.cursor is 'from of the next request; null: without from.';
comment on column archive.walks.upper_position is 'Position of the last event passed: what comes next belongs below it.';
comment on column archive.walks.pages is 'Pages stored.';
comment on column archive.walks.events is 'Events that were new to the archive.';
comment on column archive.walks.busy_ms is 'Milliseconds spent asking and storing, for the rate.';
comment on column archive.walks.oldest_ts is 'origin_server_ts of the last event passed.';
comment on column archive.walks.known_pages is 'Pages in a row that held nothing new.';
comment on column archive.walks.lower_reached is 'Whether the walk of a gap has passed the last event below the gap.';
comment on column archive.walks.ends is 'How often the server answered without `end` at this cursor though the room''s start was not reached.';
comment on column archive.walks.repeats is 'How often the server answered `end` equal to `from` at this cursor.';
comment on column archive.walks.landmark is 'An earlier cursor: meeting it again means that the server''s tokens go in a circle.';
comment on column archive.walks.restarted is 'Whether the walk was begun anew from the newest event because the server refused its cursor.';
comment on column archive.walks.state is 'open; stalled: cannot go on, see last_error; done.';
comment on column archive.walks.last_error is 'What went wrong last, without content.';
comment on column archive.walks.not_before is 'The next request is not due before this.';
comment on column archive.walks.opened_at is 'When it was opened.';
comment on column archive.walks.updated_at is 'When its checkpoint last moved.';
