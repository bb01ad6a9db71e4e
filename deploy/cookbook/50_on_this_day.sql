-- What was said on this day in earlier years?
-- All rooms; the day is that of UTC.
select m.sent_at, m.room_id, m.sender_name, m.body
from (
    select room_id, date_trunc('day', now(), 'UTC') - generate_series(1, 10) * interval '1 year' as day
    from rooms
) past
cross join lateral (
    select * from messages m
    where m.room_id = past.room_id and m.sent_at >= past.day and m.sent_at < past.day + interval '1 day'
    order by m.sent_at
    limit 20
) m
order by m.sent_at desc
limit 100;
