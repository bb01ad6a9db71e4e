-- What was answered to a message?
-- In place of the subquery, which takes some message that has a reply, put an event id: '$abc'.
select sent_at, sender_name, body
from messages
where in_reply_to = (select in_reply_to from messages where in_reply_to is not null limit 1)
order by position;
