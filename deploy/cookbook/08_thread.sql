-- What was said in a thread?
-- In place of the subquery, which takes the last thread of the largest room, put the event id of the message that began it: '$abc'.
with chosen as (
    select room_id, thread_root
    from messages
    where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
      and thread_root is not null
    order by position desc
    limit 1
)
select m.sent_at, m.sender_name, m.body
from (
    select r.position, r.sent_at, r.sender_name, r.body
    from messages r
    where r.room_id = (select room_id from chosen) and r.event_id = (select thread_root from chosen)
    union all
    select r.position, r.sent_at, r.sender_name, r.body
    from messages r
    where r.room_id = (select room_id from chosen) and r.thread_root = (select thread_root from chosen)
) m
order by m.position;
