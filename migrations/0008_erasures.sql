-- What was erased stays erased: the homeserver goes on serving it, so every later answer is held against these rows
-- before anything of it is stored.
create table archive.erasures (
    erasure_id bigint generated always as identity primary key,
    user_id text collate "C" unique,
    room_id text collate "C" unique,
    erased_at timestamptz not null default now(),
    check (num_nonnulls(user_id, room_id) = 1)
);
comment on table archive.erasures is 'Users and rooms whose content `backscroll erase` removed. Such a user''s events are stored without content whenever they are met; such a room is not archived at all. Removing a row allows archiving again, from then on.';
comment on column archive.erasures.erasure_id is 'Internal key.';
comment on column archive.erasures.user_id is 'The user; null: a room was erased.';
comment on column archive.erasures.room_id is 'The room; null: a user was erased.';
comment on column archive.erasures.erased_at is 'When.';
