-- Who is in a room and has never said anything?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
select m.shown_name, m.user_id, m.sent_at as last_member_event
from members m
where m.room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
  and m.membership = 'join'
  and not exists (select from activity a where a.room_id = m.room_id and a.sender = m.user_id and a.messages > 0)
order by m.sent_at;
