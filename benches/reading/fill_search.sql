-- Fills the search from archive.search_queue, a transaction for each call.
set synchronous_commit = off;
\timing on
do $$
declare next record;
begin
    loop
        select * into next from archive.next_search_ranges(true);
        exit when next.room_id is null;
        perform archive.fill_search(next.room_id, next.ranges);
        commit;
    end loop;
end
$$;
