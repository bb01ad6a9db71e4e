-- How long after it was sent did the archive get a message?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
-- It looks at the last 1,000 events. The time of sending is by the clock of the sender's server.
select percentile_cont(array[0.5, 0.9, 0.99]) within group (order by received_at - sent_at) as delays,
       min(received_at - sent_at) as least, max(received_at - sent_at) as most
from (
    select received_at, sent_at
    from events
    where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
      and position is not null and state_key is null
    order by position desc
    limit 1000
) e;
