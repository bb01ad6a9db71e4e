-- What kinds of events does a room consist of?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
select type, state_key is not null as is_state, count(*) as events, min(sent_at) as first, max(sent_at) as last
from events
where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
group by type, is_state
order by events desc;
