-- What was said in a room on one day?
-- In place of the two subqueries put a room id and a day: '!abc:example.org' and date '2026-01-31'. The days are those of UTC.
with chosen as (
    select room_id, day
    from activity
    where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
      and day <= current_date
    order by day desc
    limit 1
)
select m.sent_at, m.sender_name, m.body
from chosen
join messages m
    on m.room_id = chosen.room_id
    and m.sent_at >= chosen.day::timestamp at time zone 'UTC' and m.sent_at < (chosen.day + 1)::timestamp at time zone 'UTC'
order by m.position;
