-- How many messages has each conversation, its upgrades counted as one room?
-- All rooms.
select r.display_name, top.rooms, top.messages, top.people
from (
    select c.conversation_id, count(distinct c.room_id) as rooms, sum(a.messages) as messages,
           count(distinct a.sender) as people
    from conversations c
    join (select room_id, sender, sum(messages) as messages from activity group by room_id, sender) a on a.room_id = c.room_id
    group by c.conversation_id
    order by messages desc
    limit 20
) top
join rooms r on r.room_id = top.conversation_id
order by top.messages desc;
