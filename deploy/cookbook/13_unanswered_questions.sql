-- Which of a room's last questions has nobody answered?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
-- An answer is a reply, a message of a thread or a reaction.
with question as materialized (
    select room_id, event_id, position, sent_at, sender_name, body
    from messages
    where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
      and body like '%?'
    order by position desc
    limit 200
), asked as (
    select max(room_id) as room_id, array_agg(event_id) as event_ids from question
)
select question.sent_at, question.sender_name, question.body
from question
where event_id not in (
    select m.in_reply_to from messages m
    where m.room_id = (select room_id from asked) and m.in_reply_to = any ((select event_ids from asked)::text[])
    union all
    select m.thread_root from messages m
    where m.room_id = (select room_id from asked) and m.thread_root = any ((select event_ids from asked)::text[])
    union all
    select r.relates_to from reactions r
    where r.room_id = (select room_id from asked) and r.relates_to = any ((select event_ids from asked)::text[]))
order by question.position desc
limit 20;
