-- When was a person in which room?
-- In place of the subquery, which takes who has talked most, put a user id: '@alice:example.org'.
select room_id, display_name, joined_at, left_at, ended, ended_by, reason
from membership_history
where user_id = (select sender from activity group by sender order by sum(messages) desc limit 1)
order by joined_at;
