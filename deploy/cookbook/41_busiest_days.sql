-- Which were the busiest days?
-- All rooms; add `and room_id = '!abc:example.org'` for one.
select day, room_id, sum(messages) as messages, count(*) as people
from activity
where day > '-infinity' and day <= current_date
group by day, room_id
order by messages desc
limit 20;
