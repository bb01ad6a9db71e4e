-- Every event once. The key begins with the room because ids of rooms of version 1 and 2 are chosen by servers and can
-- collide across rooms, and because it keeps the insert's cost flat as the archive grows.
create table archive.events (
    room_key int not null,
    event_id text collate "C" not null,
    -- `order by position` is the room's order. Live events append at +2^16, a discontinuity leaps +2^40, history goes
    -- -2^16 an event, what is found between two known events lands between them. A position must never change once
    -- given; null means known, but not (yet) seen in the timeline.
    position bigint,
    type text collate "C" not null,
    sender text collate "C" not null,
    state_key text collate "C",
    origin_server_ts bigint,
    content jsonb not null,
    redacts text collate "C",
    redacted_by text collate "C",
    replaces_state text collate "C",
    prev_content jsonb,
    relates_to text collate "C",
    rel_type text collate "C",
    -- The exact bytes, only where the columns alone would not give the event back: jsonb has no NUL, no lone surrogate,
    -- no duplicate key, no 1e400 and no -0.
    raw bytea,
    stable_sha256 bytea not null,
    received_at timestamptz not null default now(),
    primary key (room_key, event_id)
);
comment on table archive.events is 'Every event that the account was shown, once per room.';
comment on column archive.events.room_key is 'Room.';
comment on column archive.events.event_id is 'Matrix event id.';
comment on column archive.events.position is 'Place in the room''s order; never changes once given; null: known from the room''s state, not placed in the timeline.';
comment on column archive.events.type is 'Event type. U+F8FE escapes what text cannot hold: U+F8FE 0 is NUL, U+F8FE 1 is U+F8FE, U+F8FE d800…dfff a lone surrogate.';
comment on column archive.events.sender is 'Sender''s user id.';
comment on column archive.events.state_key is 'State key; null: not a state event (the empty string is one).';
comment on column archive.events.origin_server_ts is 'Milliseconds since 1970 as the sender''s server claims; never an order. Null where the server''s value is no 64-bit integer (then raw has it).';
comment on column archive.events.content is 'Content as served, after redaction. Where raw is set, a copy with what jsonb cannot hold replaced.';
comment on column archive.events.redacts is 'Target of an m.room.redaction, by the room version''s rule.';
comment on column archive.events.redacted_by is 'The event that redacted this one.';
comment on column archive.events.replaces_state is 'State event that this one replaced on its own branch, as the server says.';
comment on column archive.events.prev_content is 'Content of the replaced state event as served, pruned when that was redacted.';
comment on column archive.events.relates_to is 'm.relates_to.event_id of the content.';
comment on column archive.events.rel_type is 'm.relates_to.rel_type of the content: m.replace, m.annotation, m.thread, …';
comment on column archive.events.raw is 'The event''s exact JSON bytes where the columns alone would not give it back, else null.';
comment on column archive.events.stable_sha256 is 'SHA-256 over the canonical JSON of what stays the same in every copy that a server gives of the event.';
comment on column archive.events.received_at is 'When the row was stored.';

-- Serves `order by position` with a room filter, and the writer's look for neighbours.
create unique index events_position on archive.events (room_key, position);
comment on index archive.events_position is 'A room in order; two events never share a place.';
-- Serves the views messages (edits) and reactions.
create index events_relation on archive.events (room_key, relates_to) where relates_to is not null;
comment on index archive.events_relation is 'Edits, reactions and thread replies of an event.';
-- Serves state_history and the pruning of prev_content in the successors of a redacted state event.
create index events_state on archive.events (room_key, type, state_key, position) where state_key is not null;
comment on index archive.events_state is 'All values of a state key in order.';

create table archive.redactions (
    room_key int not null,
    target_event_id text collate "C" not null,
    redaction_event_id text collate "C" not null,
    state text not null check (state in ('pending', 'applied', 'refused')),
    recorded_at timestamptz not null default now(),
    primary key (room_key, target_event_id, redaction_event_id)
);
comment on table archive.redactions is 'Which event redacts which. Kept for ever, because redacting a redaction erases the link from the event itself; applied whichever of the two arrives first.';
comment on column archive.redactions.room_key is 'Room of both: a redaction across rooms has no effect.';
comment on column archive.redactions.target_event_id is 'The event to be redacted.';
comment on column archive.redactions.redaction_event_id is 'The event that redacts.';
comment on column archive.redactions.state is 'pending: the target is not stored; applied; refused: the target may not be redacted (a create event).';
comment on column archive.redactions.recorded_at is 'When the archive learnt of it.';

create table archive.originals (
    room_key int not null,
    event_id text collate "C" not null,
    content jsonb not null,
    raw bytea,
    redacted_at timestamptz not null default now(),
    primary key (room_key, event_id)
);
comment on table archive.originals is 'What a redacted event said. Filled only with redactions.policy = "retain"; in no reader''s view.';
comment on column archive.originals.room_key is 'Room.';
comment on column archive.originals.event_id is 'The redacted event.';
comment on column archive.originals.content is 'Its content before the redaction.';
comment on column archive.originals.raw is 'Its exact bytes, where they had been kept.';
comment on column archive.originals.redacted_at is 'When the archive applied the redaction.';

create table archive.quarantine (
    quarantine_id bigint generated always as identity primary key,
    room_key int,
    raw bytea not null,
    raw_sha256 bytea not null,
    reason text not null,
    received_at timestamptz not null default now()
);
-- The same bytes served again must not make a second row.
create unique index quarantine_raw on archive.quarantine (room_key, raw_sha256) nulls not distinct;
comment on index archive.quarantine_raw is 'What is served twice is kept once.';
comment on table archive.quarantine is 'What a server sent as an event and could not become a row of archive.events, byte for byte.';
comment on column archive.quarantine.quarantine_id is 'Internal key.';
comment on column archive.quarantine.room_key is 'Room whose answer held it.';
comment on column archive.quarantine.raw is 'The bytes as served.';
comment on column archive.quarantine.raw_sha256 is 'SHA-256 of raw.';
comment on column archive.quarantine.reason is 'Why it could not be an event.';
comment on column archive.quarantine.received_at is 'When it was first served.';
