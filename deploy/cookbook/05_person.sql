-- What did a person say last, in all rooms?
-- In place of the subquery, which takes who has talked most in the last known week, put a user id: '@alice:example.org'.
select m.sent_at, m.room_id, m.body
from messages m
where m.sender = (
    select sender from activity
    where day > (select max(day) from activity where day <= current_date) - 7
    group by sender order by sum(messages) desc limit 1)
order by m.sent_at desc
limit 50;
