-- What was answered last in a room, and to what?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
select original.sender_name as asked_by, original.body as original, reply.sender_name as answered_by, reply.body as reply
from (
    select room_id, position, in_reply_to, sender_name, body
    from messages
    where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
      and in_reply_to is not null
    order by position desc
    limit 20
) reply
left join messages original on original.room_id = reply.room_id and original.event_id = reply.in_reply_to
order by reply.position desc;
