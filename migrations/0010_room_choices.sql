-- What `backscroll rooms` decided, over the configuration. A running daemon is woken by NOTIFY backscroll_rooms and reads it
-- before each /sync, so nothing needs a restart.
create table archive.room_choices (
    room_id text collate "C" primary key,
    wanted boolean,
    paused boolean not null default false,
    chosen_at timestamptz not null default now(),
    -- A row that decides nothing would still change the fingerprint of the choice, and with it cost a whole /sync.
    check (paused or wanted is not null)
);
comment on table archive.room_choices is 'Rooms that `backscroll rooms` decided about at run time; goes before the configuration.';
comment on column archive.room_choices.room_id is 'Matrix room id; the room need not be in the archive yet.';
comment on column archive.room_choices.wanted is 'true: added; false: removed; null: as the configuration says.';
comment on column archive.room_choices.paused is 'Whether nothing is fetched of the room until it is resumed; then a gap is opened and filled.';
comment on column archive.room_choices.chosen_at is 'When the last of these was decided.';
