-- Who talks most in a room?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
select sender_name, sum(messages) as messages, count(*) as days, min(day) as first, max(day) as last
from activity
where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
group by sender, sender_name
order by messages desc
limit 20;
