-- Which messages got the most reactions?
-- All rooms; add `where room_id = '!abc:example.org'` to the subquery for one.
select m.sent_at, m.sender_name, m.body, top.reactions, top.keys
from (
    select room_id, relates_to, count(*) as reactions, array_agg(distinct key) as keys
    from reactions
    group by room_id, relates_to
    order by count(*) desc
    limit 20
) top
join messages m on m.room_id = top.room_id and m.event_id = top.relates_to
order by top.reactions desc;
