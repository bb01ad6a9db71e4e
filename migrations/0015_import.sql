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
