-- What was said before and after a message of which only the event id is known?
-- In place of the subquery in chosen, which takes some message that was answered, put an event id: '$abc'.
with chosen as (
    select room_id, position
    from messages
    where event_id = (select in_reply_to from messages where in_reply_to is not null limit 1)
)
select near.sent_at, near.sender_name, near.body
from chosen
cross join lateral (
    (select m.position, m.sent_at, m.sender_name, m.body
     from messages m
     where m.room_id = chosen.room_id and m.position <= chosen.position
     order by m.position desc
     limit 11)
    union all
    (select m.position, m.sent_at, m.sender_name, m.body
     from messages m
     where m.room_id = chosen.room_id and m.position > chosen.position
     order by m.position
     limit 10)
) near
order by near.position;
