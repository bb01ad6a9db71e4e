-- What is pinned in a room, by whom and since when?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
select place, sender_name, body, sent_at, pinned_by, pinned_at
from pins
where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
order by place;
