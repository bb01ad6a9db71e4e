-- Queues all events for the search as a backward walk does: a row for each page of a hundred events, the rooms in turn.
insert into archive.search_queue (room_id, lower, upper)
    select room_id, min(position), max(position)
    from (select room_id, position, (-position - 1) / 65536 / 100 as page from archive.events where position is not null) e
    group by room_id, page
    order by page, room_id;
