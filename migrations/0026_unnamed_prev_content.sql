-- What a homeserver says a state event replaced without naming that event, as at the top level of the event in the old
-- client-server API (specification v1.1 and before). In a table of its own: a redaction must find it though nothing says whose
-- content it is, and few servers make rows here.
create table archive.unnamed_prev_content (
    room_key int not null,
    event_id text collate "C" not null,
    prev_content jsonb not null,
    source text not null check (source in ('served', 'top level')),
    primary key (room_key, event_id)
);
alter table archive.unnamed_prev_content alter column prev_content set statistics 0;
comment on table archive.unnamed_prev_content is 'The content that a state event replaced, as served without the name of the event that had it. Any redaction that may concern it removes it.';
comment on column archive.unnamed_prev_content.room_key is 'Room.';
comment on column archive.unnamed_prev_content.event_id is 'The state event that was served with it.';
comment on column archive.unnamed_prev_content.prev_content is 'What was before it, by this copy.';
comment on column archive.unnamed_prev_content.source is 'served: in unsigned, which is the homeserver''s; top level: where a sender may write, too.';

comment on table archive.quarantine is 'What a server sent as an event, or as another part of an answer, and could not be read, byte for byte, until it is redacted or erased.';
comment on column archive.quarantine.room_key is 'Room whose answer held it; null: it belongs to no room that there can be.';
comment on column archive.quarantine.reason is 'Why it could not be read.';
