-- How many messages were sent on each day?
-- All rooms; add `where room_id = '!abc:example.org'` for one. The days are those of UTC.
select day, sum(messages) as messages, sum(reactions) as reactions, count(distinct sender) as people
from activity
where day > '-infinity' and day <= current_date
group by day
order by day desc
limit 90;
