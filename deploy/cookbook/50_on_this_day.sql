-- What was said on this day in earlier years?
-- All rooms; the day is that of UTC.
select m.sent_at, m.room_id, m.sender_name, m.body
from generate_series(1, 10) as years
cross join lateral (select date_trunc('day', now(), 'UTC') - years * interval '1 year' as day) past
join rooms r on true
cross join lateral (
    select * from messages m
    where m.room_id = r.room_id and m.sent_at >= past.day and m.sent_at < past.day + interval '1 day'
    order by m.sent_at
    limit 20
) m
order by m.sent_at desc
limit 100;
