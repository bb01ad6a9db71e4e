-- The current state moves only on the server's word (/sync, /state), never because a backfilled page held a state event;
-- and it may move back to an older event, so nothing here compares times or positions.
create table archive.current_state (
    room_key int not null,
    type text collate "C" not null,
    state_key text collate "C" not null,
    event_id text collate "C" not null,
    changed_at timestamptz not null default now(),
    primary key (room_key, type, state_key)
);
comment on table archive.current_state is 'For each state key of a room the event that is in force.';
comment on column archive.current_state.room_key is 'Room.';
comment on column archive.current_state.type is 'Event type.';
comment on column archive.current_state.state_key is 'State key.';
comment on column archive.current_state.event_id is 'The event in force; always a row of archive.events.';
comment on column archive.current_state.changed_at is 'When the archive learnt that it is.';

create table archive.state_changes (
    change_id bigint generated always as identity primary key,
    room_key int not null,
    type text collate "C" not null,
    state_key text collate "C" not null,
    old_event_id text collate "C",
    new_event_id text collate "C",
    cause text not null check (cause in ('bootstrap', 'state', 'timeline', 'state_after', 'reconcile')),
    changed_at timestamptz not null default now()
);
create index state_changes_key on archive.state_changes (room_key, type, state_key, change_id);
comment on index archive.state_changes_key is 'The moves of one state key in order.';
comment on table archive.state_changes is 'Every move of a row of archive.current_state: a state reset leaves no event, so this is its only trace.';
comment on column archive.state_changes.change_id is 'Internal key; ascends with time.';
comment on column archive.state_changes.room_key is 'Room.';
comment on column archive.state_changes.type is 'Event type.';
comment on column archive.state_changes.state_key is 'State key.';
comment on column archive.state_changes.old_event_id is 'What was in force; null: nothing.';
comment on column archive.state_changes.new_event_id is 'What is in force from now on; null: nothing.';
comment on column archive.state_changes.cause is 'Which word of the server moved it: bootstrap snapshot, state or timeline or state_after of /sync, or a comparison with /state.';
comment on column archive.state_changes.changed_at is 'When.';
