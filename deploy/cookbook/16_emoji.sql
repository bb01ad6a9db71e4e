-- Which reactions are used most?
-- All rooms; add `where room_id = '!abc:example.org'` for one.
select key, count(*) as times, count(distinct sender) as people
from reactions
group by key
order by times desc
limit 20;
