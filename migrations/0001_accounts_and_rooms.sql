-- The archive's schema, in files by subject: accounts and rooms, events, state, walks and gaps, activity, the writer's lease,
-- the functions that read event content, encryption, the views for readers, search, evidence, verification, and the roles.
--
-- Schema `archive` holds the tables, which only Backscroll changes. Schema `public` gets views and functions for readers,
-- which stay stable.
--
-- Every table of events or state has the room's id as the first column of its keys. So all rows of a room can be on one
-- server of a distributed database (deploy/citus.sql), and inserting costs the same in a large archive as in a small one.
-- There are no foreign keys and no triggers: the writer guarantees the links between rows under the room's lock, and a
-- check for each row would slow down every page.
create schema if not exists archive;
comment on schema archive is 'Backscroll''s tables. Read the views in schema public instead: these may change with any version.';

create table archive.accounts (
    account_key bigint generated always as identity primary key,
    user_id text collate "C" not null unique,
    homeserver text not null,
    device_id text,
    -- Where the next /sync goes on. Only the transaction that stores a /sync response changes it, and only if it still has
    -- the value that the request was made with. So no response is lost, and none is stored by two programs.
    since text,
    synced_at timestamptz,
    rooms_filter text,
    homeserver_error text,
    homeserver_failing_since timestamptz,
    created_at timestamptz not null default now()
);
comment on table archive.accounts is 'The Matrix account whose view is archived, with how far its /sync is stored. Never an access token.';
comment on column archive.accounts.account_key is 'Internal key.';
comment on column archive.accounts.user_id is 'The archiving account''s Matrix user id.';
comment on column archive.accounts.homeserver is 'Base URL of the homeserver that the account was used on.';
comment on column archive.accounts.device_id is 'Device that a password login made, used again at the next login; null with a ready-made token.';
comment on column archive.accounts.since is 'Token of the next /sync: next_batch of the last response whose rows are committed. Opaque.';
comment on column archive.accounts.synced_at is 'When the last /sync response was committed.';
comment on column archive.accounts.rooms_filter is 'Which rooms were chosen (settings and room_choices) when the last /sync with a full state was stored. If the choice differs, the next /sync asks for the full state again. A decision about a room sets a text that is no choice, which causes that.';
comment on column archive.accounts.homeserver_error is 'Why the homeserver did not answer the last /sync requests; null: it answered the last one. No content of events.';
comment on column archive.accounts.homeserver_failing_since is 'Since when the homeserver does not answer; null: it answers.';
comment on column archive.accounts.created_at is 'When this account was first used with this archive.';

create table archive.rooms (
    room_id text collate "C" primary key,
    room_version text,
    membership text not null check (membership in ('join', 'leave', 'ban', 'invite', 'knock')),
    watched boolean not null default true,
    -- Until its full state is stored, no /sync response that only has changes may be stored for the room. Even a response
    -- with `limited: false` may leave out state from before.
    bootstrapped boolean not null default false,
    -- The transaction that stores something which makes archive.current_state doubtful sets it. The transaction that compares
    -- archive.current_state with the homeserver's state clears it.
    state_suspect boolean not null default false,
    -- If the account joins again, the gap begins here. The account's `since` is later: it would leave out what was sent
    -- while the account was away.
    left_since text,
    history_state text not null default 'none'
        check (history_state in ('none', 'walking', 'stalled', 'truncated', 'complete')),
    history_reason text,
    event_count bigint not null default 0,
    message_count bigint not null default 0,
    created_at timestamptz not null default now(),
    verified_at timestamptz
);
comment on table archive.rooms is 'The rooms that the account is or was in, those that the operator had archived without being in them, and those that were imported.';
comment on column archive.rooms.room_id is 'Matrix room id.';
comment on column archive.rooms.room_version is 'Room version, from the create event; null until that is stored. Decides how redactions prune.';
comment on column archive.rooms.membership is 'The account''s own membership, as the homeserver last said. Of a room that the account never was in, as far as is known: leave.';
comment on column archive.rooms.watched is 'Whether the configuration asks for this room; an unwatched room keeps its rows, and nothing of it is fetched.';
comment on column archive.rooms.bootstrapped is 'Whether the full state of the room has been stored once.';
comment on column archive.rooms.state_suspect is 'Whether the current state must be compared with the homeserver''s, because two branches of the room''s graph may differ about it.';
comment on column archive.rooms.left_since is 'The `since` of the /sync request whose response said that the account has left the room; null: the account is in it.';
comment on column archive.rooms.history_state is 'How far the homeserver''s history is fetched. none: not begun; walking: being fetched; stalled: the operator must look at history_reason; truncated: the homeserver returns no older events, and the room''s first event is not archived; complete: the create event is archived.';
comment on column archive.rooms.history_reason is 'Why history_state is stalled or truncated, in words.';
comment on column archive.rooms.event_count is 'Number of rows in archive.events. The transaction that adds events counts them here.';
comment on column archive.rooms.message_count is 'Sum of archive.activity.messages of the room, kept by the same transactions.';
comment on column archive.rooms.created_at is 'When the archive first heard of the room.';
comment on column archive.rooms.verified_at is 'When a recorded verification last agreed with the homeserver, or proved the room.';

create table archive.stripped_state (
    room_id text collate "C" not null,
    type text collate "C" not null,
    state_key text collate "C" not null,
    sender text not null,
    content jsonb not null,
    primary key (room_id, type, state_key)
);
comment on table archive.stripped_state is 'What an invite or a knock shows of a room before the account joins it. It has no event ids and no signatures, so nobody vouches for it. It is removed when the account joins, or the invite or knock ends.';
comment on column archive.stripped_state.room_id is 'Room.';
comment on column archive.stripped_state.type is 'Event type.';
comment on column archive.stripped_state.state_key is 'State key.';
comment on column archive.stripped_state.sender is 'Sender, as the invite or knock says.';
comment on column archive.stripped_state.content is 'Content, as the invite or knock says.';

create table archive.room_choices (
    room_id text collate "C" primary key,
    wanted boolean,
    paused boolean not null default false,
    chosen_at timestamptz not null default now(),
    -- A row that decides nothing would still make the choice another one (archive.accounts.rooms_filter), and so cause a
    -- /sync with the full state.
    check (paused or wanted is not null)
);
comment on table archive.room_choices is 'What `backscroll rooms` was told about a room while Backscroll ran. It goes before the settings.';
comment on column archive.room_choices.room_id is 'Matrix room id; the room need not be in the archive yet.';
comment on column archive.room_choices.wanted is 'true: added; false: removed; null: as the settings say.';
comment on column archive.room_choices.paused is 'Whether nothing is fetched of the room until it is resumed; then a gap is opened and filled.';
comment on column archive.room_choices.chosen_at is 'When the last of these was decided.';

-- The homeserver goes on serving what was erased. So each response is compared with these rows before it is stored.
create table archive.erasures (
    erasure_id bigint generated always as identity primary key,
    user_id text collate "C" unique,
    room_id text collate "C" unique,
    erased_at timestamptz not null default now(),
    check (num_nonnulls(user_id, room_id) = 1)
);
comment on table archive.erasures is 'Users and rooms whose content `backscroll erase` removed. Events of such a user that are fetched later are stored without content. Such a room is not archived. If you delete a row, its user or room is archived again from then on.';
comment on column archive.erasures.erasure_id is 'Internal key.';
comment on column archive.erasures.user_id is 'The user; null: a room was erased.';
comment on column archive.erasures.room_id is 'The room; null: a user was erased.';
comment on column archive.erasures.erased_at is 'When.';

-- A homeserver that was restored from a backup may have given a `since` that it does not remember. Its new events then get
-- numbers below that `since`, so it would never send them, and it reports no error. So the ids of the last events are kept
-- here. After a failure, Backscroll asks the homeserver for them. If it does not know them, it was restored.
create table archive.anchors (
    room_id text collate "C" primary key,
    event_id text collate "C" not null
);
comment on table archive.anchors is 'The last events of the last /sync response that had events. If the homeserver knows older events but not these, it was restored from a backup.';
comment on column archive.anchors.room_id is 'Room.';
comment on column archive.anchors.event_id is 'Last event of the room''s timeline in that response.';

-- PostgreSQL's statistics of a column are samples of its values. They would remain after the content was redacted or erased.
alter table archive.stripped_state alter column content set statistics 0;
