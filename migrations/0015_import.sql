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

-- Rows that are imported keep their numbers. Numbers that are given later must be higher, because they are also an order.
create function archive.skip_numbers(of_room text) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    numbered record;
    highest bigint;
begin
    for numbered in
        select format('archive.%I', c.relname) as tab, a.attname as col
        from pg_class c join pg_attribute a on a.attrelid = c.oid
        where c.relnamespace = 'archive'::regnamespace and c.relkind = 'r' and a.attidentity <> ''
          and exists (select from pg_attribute r where r.attrelid = c.oid and r.attname = 'room_id' and not r.attisdropped)
    loop
        execute format('select max(t.%I) from %s t where t.room_id = $1', numbered.col, numbered.tab) into highest using of_room;
        if highest >= nextval(pg_get_serial_sequence(numbered.tab, numbered.col)) then
            perform setval(pg_get_serial_sequence(numbered.tab, numbered.col), highest);
        end if;
    end loop;
end
$$;
comment on function archive.skip_numbers(text) is 'After an import: makes the numbers of new rows of all tables higher than those of this room''s rows.';
revoke execute on function archive.skip_numbers(text) from public;
