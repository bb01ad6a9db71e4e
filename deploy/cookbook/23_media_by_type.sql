-- How much media of which type does each room hold?
-- The sizes are those that the senders claim.
select room_id, mimetype, count(*) as files, pg_size_pretty(sum(size)) as size
from files
group by room_id, mimetype
order by sum(size) desc nulls last
limit 50;
