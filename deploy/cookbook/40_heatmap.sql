-- At which hours of which weekdays is a room busy?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
-- In place of UTC put your time zone: 'Europe/Vienna'.
select to_char(sent_at at time zone 'UTC', 'ID Dy') as weekday,
       count(*) filter (where hour < 6) as night, count(*) filter (where hour between 6 and 11) as morning,
       count(*) filter (where hour between 12 and 17) as afternoon, count(*) filter (where hour >= 18) as evening,
       mode() within group (order by hour) as busiest_hour
from (
    select sent_at, extract(hour from sent_at at time zone 'UTC') as hour
    from messages
    where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
      and sent_at is not null
) m
group by weekday
order by weekday;
