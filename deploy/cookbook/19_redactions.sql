-- What was redacted last, by whom and why?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
select redacted_at, redacted_by_name, reason, type, sender_name, sent_at, redacted_at - sent_at as stood_for
from redacted_events
where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
order by redacted_at desc nulls last
limit 50;
