-- What did a person say in one room?
-- In place of the two subqueries put a room id and a user id.
select m.sent_at, m.body
from messages m
where m.room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
  and m.sender = (
      select sender from activity
      where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
      group by sender order by sum(messages) desc limit 1)
order by m.sent_at desc
limit 50;
