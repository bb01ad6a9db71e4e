-- Which are the largest files?
-- All rooms; add `and room_id = '!abc:example.org'` for one.
select pg_size_pretty(size) as size, filename, mimetype, sender_name, sent_at, room_id, url
from files
where size is not null
order by files.size desc
limit 20;
