-- What was a room's state at a time?
-- In place of chosen put a room id and a time: state_at('!abc:example.org', '2026-01-31 12:00Z').
with chosen as (
    select room_id, day - 90 as day
    from activity
    where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
      and day <= current_date
    order by activity.day desc
    limit 1
)
select s.type, s.state_key, s.content, s.sent_at, s.source
from chosen
cross join lateral state_at(chosen.room_id, chosen.day::timestamptz) s
where s.type <> 'm.room.member'
order by s.type, s.state_key;
