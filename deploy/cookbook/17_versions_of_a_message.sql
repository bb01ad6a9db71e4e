-- What did a message say before each of its edits?
-- In place of the subquery, which takes the last edited message of the largest room, put an event id: '$abc'.
select version, sent_at, sender_name, body, is_shown, reason
from message_versions
where event_id = (
    select event_id from messages
    where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
      and edit_count > 0
    order by position desc limit 1)
order by version;
