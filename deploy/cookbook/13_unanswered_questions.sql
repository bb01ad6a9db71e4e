-- Which of a room's last questions has nobody answered?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
-- An answer is a reply, a message of a thread or a reaction.
select question.sent_at, question.sender_name, question.body
from (
    select room_id, event_id, position, sent_at, sender_name, body
    from messages
    where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
      and body like '%?'
    order by position desc
    limit 200
) question
where not exists (select from messages m where m.room_id = question.room_id and m.in_reply_to = question.event_id)
  and not exists (select from messages m where m.room_id = question.room_id and m.thread_root = question.event_id)
  and not exists (select from reactions r where r.room_id = question.room_id and r.relates_to = question.event_id)
order by question.position desc
limit 20;
