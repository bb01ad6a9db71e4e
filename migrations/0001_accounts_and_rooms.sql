-- Two schemas: `archive` holds the tables, which are ours to change by migration; `public` gets only views and functions
-- for readers (0005), which stay stable. Nothing here has a foreign key from an event: the writer guarantees it under the
-- room's lock, and a constraint trigger per event is a cost that every page would pay.
create schema if not exists archive;
comment on schema archive is 'Backscroll''s tables. Read the views in schema public instead: these may change with any version.';

create table archive.accounts (
    account_key int generated always as identity primary key,
    user_id text collate "C" not null unique,
    homeserver text not null,
    device_id text,
    -- The forward checkpoint. It must only move in the transaction that stores what its response held, by
    -- compare-and-set on the old value.
    since text,
    synced_at timestamptz,
    rooms_filter text,
    created_at timestamptz not null default now()
);
comment on table archive.accounts is 'The Matrix account whose view is archived, with its place in the forward stream. Never an access token.';
comment on column archive.accounts.account_key is 'Internal key.';
comment on column archive.accounts.user_id is 'The archiving account''s Matrix user id.';
comment on column archive.accounts.homeserver is 'Base URL of the homeserver that the account was used on.';
comment on column archive.accounts.device_id is 'Device that a password login made, used again at the next login; null with a ready-made token.';
comment on column archive.accounts.since is 'Token of the next /sync: next_batch of the last response whose rows are committed. Opaque.';
comment on column archive.accounts.synced_at is 'When the last /sync response was committed.';
comment on column archive.accounts.rooms_filter is 'rooms.include and rooms.exclude as last applied; when they change, the next /sync asks for the full state.';
comment on column archive.accounts.created_at is 'When this account was first used with this archive.';

create table archive.rooms (
    room_key int generated always as identity primary key,
    room_id text collate "C" not null unique,
    room_version text,
    membership text not null check (membership in ('join', 'leave', 'ban', 'invite', 'knock')),
    watched boolean not null default true,
    -- True once a full snapshot of the state was stored. A room that is not bootstrapped must not be followed by deltas:
    -- `limited: false` does not prove that nothing is missing (protocol trap 28).
    bootstrapped boolean not null default false,
    -- Set by the transaction that has reason to doubt archive.current_state, cleared by the one that compares it.
    state_suspect boolean not null default false,
    -- The gap of a rejoin reaches down to it. The `since` of then would hide what arrived while the account was away
    -- and the sync went on.
    left_since text,
    history_state text not null default 'none'
        check (history_state in ('none', 'walking', 'stalled', 'truncated', 'complete')),
    history_reason text,
    event_count bigint not null default 0,
    created_at timestamptz not null default now()
);
comment on table archive.rooms is 'The rooms that the account is or was in.';
comment on column archive.rooms.room_key is 'Internal key, first column of every per-room key.';
comment on column archive.rooms.room_id is 'Matrix room id.';
comment on column archive.rooms.room_version is 'Room version, from the create event; null until that is stored. Decides how redactions prune.';
comment on column archive.rooms.membership is 'The account''s own membership as the server last told it.';
comment on column archive.rooms.watched is 'Whether the configuration asks for this room; an unwatched room keeps its rows and gets no new ones.';
comment on column archive.rooms.bootstrapped is 'Whether a full snapshot of the room''s state has been stored.';
comment on column archive.rooms.state_suspect is 'Whether the current state is to be compared with the server''s: two branches may disagree about it.';
comment on column archive.rooms.left_since is 'The since of the /sync that told that the account is not in the room any more; null while it is.';
comment on column archive.rooms.history_state is 'none: not begun; walking; stalled: needs a look, see history_reason; truncated: the server gives no more though the room''s start was not reached; complete: the create event was reached.';
comment on column archive.rooms.history_reason is 'Why history_state is stalled or truncated, in words.';
comment on column archive.rooms.event_count is 'Number of rows in archive.events, kept by the transaction that adds them so that reading it costs nothing.';
comment on column archive.rooms.created_at is 'When the archive first heard of the room.';

create table archive.stripped_state (
    room_key int not null,
    type text collate "C" not null,
    state_key text collate "C" not null,
    sender text not null,
    content jsonb not null,
    primary key (room_key, type, state_key)
);
comment on table archive.stripped_state is 'What an invite or knock shows of a room: unsigned, untrusted, without event ids, so kept apart from events and dropped on join.';
comment on column archive.stripped_state.room_key is 'Room.';
comment on column archive.stripped_state.type is 'Event type.';
comment on column archive.stripped_state.state_key is 'State key.';
comment on column archive.stripped_state.sender is 'Claimed sender.';
comment on column archive.stripped_state.content is 'Claimed content.';
