-- A homeserver that comes back from a backup takes the account's `since` for a token of the future and says nothing
-- (protocol trap 23): what it hands out under the same numbers again would never be asked for. So what it told last is
-- kept, and asked for when touch with the server was lost.
create table archive.anchors (
    room_key int primary key,
    event_id text collate "C" not null
);
comment on table archive.anchors is 'The last events of the last /sync response that had any. A server that does not know them has lost what it told.';
comment on column archive.anchors.room_key is 'Room.';
comment on column archive.anchors.event_id is 'Last event of the room''s timeline in that response.';
