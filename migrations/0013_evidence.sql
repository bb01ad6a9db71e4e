-- Evidence: events as their servers signed them, and the servers' public keys. With it, `backscroll evidence` proves a message
-- to a third party although the homeserver has forgotten it or is gone. Filled with evidence.keep = true only.
create table archive.evidence (
    room_id text collate "C" not null,
    event_id text collate "C" not null,
    sender text collate "C" not null,
    member text collate "C",
    signed bytea not null,
    stored_at timestamptz not null default now(),
    primary key (room_id, event_id)
);
comment on table archive.evidence is 'Events as their servers signed them. A redaction or an erasure leaves what it leaves of an event; hash and signatures of that still fit.';
comment on column archive.evidence.room_id is 'Room.';
comment on column archive.evidence.event_id is 'The event. The archive may not have it otherwise.';
comment on column archive.evidence.sender is 'Its sender, for erasures.';
comment on column archive.evidence.member is 'The user whose membership it is, for erasures; null: it is none.';
comment on column archive.evidence.signed is 'The event as canonical JSON, byte for byte: without its id from room version 3 on, and without unsigned. Not jsonb, which would change the bytes that were signed.';
comment on column archive.evidence.stored_at is 'When it was stored.';
-- As with the content of events: samples of it would outlast a redaction.
alter table archive.evidence alter column signed set statistics 0;

create table archive.server_keys (
    server_name text collate "C" not null,
    key_id text collate "C" not null,
    public_key bytea not null,
    valid_until_ts bigint not null,
    is_expired boolean not null,
    response text not null,
    fetched_at timestamptz not null default now(),
    primary key (server_name, key_id, public_key, is_expired)
);
comment on table archive.server_keys is 'The public keys of homeservers, by their own word. A dead server''s keys vanish, and with them the proof of what it has sent.';
comment on column archive.server_keys.server_name is 'Homeserver.';
comment on column archive.server_keys.key_id is 'The key''s id, such as ed25519:a_1.';
comment on column archive.server_keys.public_key is 'The Ed25519 key.';
comment on column archive.server_keys.valid_until_ts is 'Until when it is valid, or, if it has expired, was in use: in milliseconds since 1970.';
comment on column archive.server_keys.is_expired is 'Whether the server no longer used it when it made this list.';
comment on column archive.server_keys.response is 'The list of keys as the server signed it, as canonical JSON.';
comment on column archive.server_keys.fetched_at is 'When the archive learnt of it.';
