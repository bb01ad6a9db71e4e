-- What was said in a room and in those that it was upgraded from, as one?
-- In place of the subquery, which takes the longest line of upgrades, put the newest room's id.
select m.sent_at, m.room_id, m.sender_name, m.body
from conversations c
cross join lateral (
    select * from messages m
    where m.room_id = c.room_id
    order by m.position desc
    limit 100
) m
where c.conversation_id = (select conversation_id from conversations order by generation desc limit 1)
order by c.generation desc, m.position desc
limit 100;
