-- Events that `backscroll import --from` took from files of other programs, or `backscroll import` from another archive's
-- export of a room that was there already. Nobody vouches for them: once the homeserver
-- gives a copy of such an event, the transaction that stores the copy replaces the imported one, and deletes the row here.
create table archive.imported_events (
    room_id text collate "C" not null,
    event_id text collate "C" not null,
    source text collate "C" not null check (source in ('backscroll-export', 'synapse-export', 'element-json', 'gomuks')),
    imported_at timestamptz not null default now(),
    primary key (room_id, event_id)
);
comment on table archive.imported_events is 'Events of archive.events that are known from another program''s or archive''s file only. The row is deleted when the homeserver gives the event.';
comment on column archive.imported_events.room_id is 'Room.';
comment on column archive.imported_events.event_id is 'The event, a row of archive.events.';
comment on column archive.imported_events.source is 'What wrote the file: backscroll-export: another archive; synapse-export: the command export-data of Synapse; element-json: "Export chat" of Element, whose events are decrypted; gomuks: the database of gomuks.';
comment on column archive.imported_events.imported_at is 'When it was stored.';

create view public.imported_events as
select i.room_id, i.event_id, i.source, i.imported_at from archive.imported_events i;
comment on view public.imported_events is 'The archived events that are known from another program''s or archive''s file only (`backscroll import`). The homeserver has not given them, so nobody vouches for them.';
comment on column public.imported_events.room_id is 'Matrix room id.';
comment on column public.imported_events.event_id is 'Matrix event id.';
comment on column public.imported_events.source is 'What wrote the file: backscroll-export, synapse-export, element-json or gomuks.';
comment on column public.imported_events.imported_at is 'When it was stored.';

create or replace function archive.reader_views() returns name[] language sql immutable parallel safe
    return array['events', 'messages', 'reactions', 'members', 'current_state', 'state_history', 'rooms', 'gaps',
                 'backfill', 'polls', 'poll_votes', 'beacons', 'message_versions', 'threads', 'poll_results', 'pins',
                 'membership_history', 'upgrades', 'conversations', 'files', 'activity', 'redacted_events', 'state_events',
                 'state_changes', 'verifications', 'only_here', 'seals', 'search_status', 'imported_events']::name[];
select archive.renew_reader_views();

comment on table archive.rooms is 'The rooms that the account is or was in, those that the operator had archived without being in them, and those that were imported.';
comment on column archive.rooms.membership is 'The account''s own membership, as the homeserver last said. Of a room that the account never was in, as far as is known: leave.';
comment on column archive.rooms.watched is 'Whether the configuration asks for this room; an unwatched room keeps its rows, and nothing of it is fetched.';
comment on column archive.rooms.history_state is 'How far the homeserver''s history is fetched. none: not begun; walking: being fetched; stalled: the operator must look at history_reason; truncated: the homeserver returns no older events, and the room''s first event is not archived; complete: the create event is archived.';
comment on table archive.events is 'Every event that the account was shown, once per room, and those that were imported (archive.imported_events).';
comment on column archive.events.received_at is 'When the row was stored; for an event that was imported first: when the homeserver gave it.';
