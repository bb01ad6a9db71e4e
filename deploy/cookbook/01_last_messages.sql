-- What was said last in a room?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
select sent_at, sender_name, body
from messages
where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
order by position desc
limit 50;
