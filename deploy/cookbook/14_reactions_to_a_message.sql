-- Who reacted to a message, and how?
-- In place of the subquery, which takes some message with a reaction, put an event id: '$abc'.
select key, count(*), array_agg(sender_name order by position) as by_whom
from reactions
where relates_to = (
    select relates_to from reactions
    where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
    limit 1)
group by key
order by count(*) desc;
