-- How far has the fetching of history come?
-- All rooms.
select b.room_id, r.event_count, b.state, b.pages, b.events, b.rate, b.oldest_reached, b.last_error, b.updated_at
from backfill b
join rooms r using (room_id)
order by (b.state = 'complete'), b.updated_at desc;
