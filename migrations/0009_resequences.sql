-- The server's order of a room, while `backscroll resequence` reads it. A table and not memory, so that a kill costs a
-- page; not positions at once, so that readers see one order or the other.
create table archive.resequences (
    room_key int primary key,
    since text,
    cursor text,
    pages bigint not null default 0,
    opened_at timestamptz not null default now()
);
comment on table archive.resequences is 'Rooms whose order is being read anew from the server.';
comment on column archive.resequences.room_key is 'Room.';
comment on column archive.resequences.since is 'The account''s since when it was begun; if that moved, events came that it did not see, and it is begun anew.';
comment on column archive.resequences.cursor is 'from of the next request; null: the newest event. It must only move in the transaction that stores the page it follows.';
comment on column archive.resequences.pages is 'Pages read.';
comment on column archive.resequences.opened_at is 'When it was begun.';

create table archive.resequenced_events (
    room_key int not null,
    event_id text collate "C" not null,
    rank bigint,
    old_position bigint,
    new_position bigint,
    primary key (room_key, event_id)
);
comment on table archive.resequenced_events is 'The events of the rooms in archive.resequences in the server''s order; emptied when their positions are rewritten.';
comment on column archive.resequenced_events.room_key is 'Room.';
comment on column archive.resequenced_events.event_id is 'Matrix event id.';
comment on column archive.resequenced_events.rank is 'Ascends from the newest event downwards; null: the server does not list this event any more.';
comment on column archive.resequenced_events.old_position is 'Its position before.';
comment on column archive.resequenced_events.new_position is 'Its position after.';
