-- The current state only moves on the server's word (/sync, /state), never because a page of history contains a state event.
-- It may move back to an older event, so nothing here compares times or positions.
create table archive.current_state (
    room_id text collate "C" not null,
    type text collate "C" not null,
    state_key text collate "C" not null,
    event_id text collate "C" not null,
    changed_at timestamptz not null default now(),
    primary key (room_id, type, state_key)
);
comment on table archive.current_state is 'For each state key of a room the event that is in force.';
comment on column archive.current_state.room_id is 'Room.';
comment on column archive.current_state.type is 'Event type.';
comment on column archive.current_state.state_key is 'State key.';
comment on column archive.current_state.event_id is 'The event in force; always a row of archive.events.';
comment on column archive.current_state.changed_at is 'When the archive learnt that it is.';

create table archive.state_changes (
    room_id text collate "C" not null,
    change_id bigint generated always as identity,
    type text collate "C" not null,
    state_key text collate "C" not null,
    old_event_id text collate "C",
    new_event_id text collate "C",
    cause text not null check (cause in ('bootstrap', 'state', 'timeline', 'state_after', 'reconcile')),
    changed_at timestamptz not null default now(),
    primary key (room_id, change_id)
);
create index state_changes_key on archive.state_changes (room_id, type, state_key, change_id);
comment on index archive.state_changes_key is 'The moves of one state key in order.';
comment on table archive.state_changes is 'Every move of a row of archive.current_state: a state reset leaves no event, so this is its only trace.';
comment on column archive.state_changes.room_id is 'Room.';
comment on column archive.state_changes.change_id is 'Internal key; ascends with time.';
comment on column archive.state_changes.type is 'Event type.';
comment on column archive.state_changes.state_key is 'State key.';
comment on column archive.state_changes.old_event_id is 'What was in force; null: nothing.';
comment on column archive.state_changes.new_event_id is 'What is in force from now on; null: nothing.';
comment on column archive.state_changes.cause is 'Which word of the server moved it: bootstrap snapshot, state or timeline or state_after of /sync, or a comparison with /state.';
comment on column archive.state_changes.changed_at is 'When.';

-- What every reader of messages needs of a sender, kept by archive.refresh_members() in the transaction that moves the state.
create table archive.members (
    room_id text collate "C" not null,
    user_id text collate "C" not null,
    event_id text collate "C" not null,
    membership text,
    display_name text,
    avatar_url text,
    shown_name text not null,
    primary key (room_id, user_id)
);
comment on table archive.members is 'The member event in force of every user that a room has seen, with the name that a client shows.';
comment on column archive.members.room_id is 'Room.';
comment on column archive.members.user_id is 'User id.';
comment on column archive.members.event_id is 'The member event in force.';
comment on column archive.members.membership is 'join, leave, invite, ban or knock; null if the event has none of these.';
comment on column archive.members.display_name is 'Display name in this room; of a user who has left or was banned, the last one; null: none.';
comment on column archive.members.avatar_url is 'mxc: URI of the avatar in this room; of a user who has left or was banned, the last one; null: none.';
comment on column archive.members.shown_name is 'What a client shows: the display name, followed by the user id if another member has the same; the user id if there is none.';
-- Equal names are looked up by a hash: a name may be longer than an index entry can be, and an index entry would outlast the
-- redaction of the name.
create index members_name on archive.members (room_id, hashtextextended(display_name, 0)) where display_name is not null;
comment on index archive.members_name is 'The members with a name, to tell apart those with the same.';
alter table archive.members
    alter column display_name set statistics 0,
    alter column avatar_url set statistics 0,
    alter column shown_name set statistics 0,
    -- As in archive.events.
    alter column room_id set statistics 0;
alter table archive.current_state alter column room_id set statistics 0;
