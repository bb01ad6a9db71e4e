-- Which threads of a room were the last to get a reply?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
select root_sender_name, root_body, reply_count, participant_count, last_reply_at
from threads
where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
order by last_position desc
limit 20;
