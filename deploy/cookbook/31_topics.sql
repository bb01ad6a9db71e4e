-- Which topics has a room had?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
select sent_at, sender, content ->> 'topic' as topic, prev_content ->> 'topic' as before
from state_history
where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
  and type = 'm.room.topic' and state_key = ''
order by position;
