-- Who spoke under another name than today's?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
select m.sent_at, m.sender_name_then, m.sender_name, m.body
from (
    select *
    from messages
    where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
    order by position desc
    limit 500
) m
where m.sender_name_then <> m.sender_name
order by m.position;
