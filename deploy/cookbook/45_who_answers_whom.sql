-- Who answers whom?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
select reply.sender_name as who, original.sender_name as whom, count(*) as answers
from messages reply
join messages original on original.room_id = reply.room_id and original.event_id = reply.in_reply_to
where reply.room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
  and reply.in_reply_to is not null and reply.sender <> original.sender
group by who, whom
order by answers desc
limit 20;
