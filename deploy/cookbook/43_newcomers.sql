-- Who wrote for the first time lately?
-- The last 30 days of what is archived. All rooms; add `where room_id = '!abc:example.org'` for one.
select room_id, sender, sender_name, min(day) as first_day, sum(messages) as messages
from activity
where messages > 0
group by room_id, sender, sender_name
having min(day) > (select max(day) from activity where day <= current_date) - 30
order by first_day desc, messages desc
limit 50;
