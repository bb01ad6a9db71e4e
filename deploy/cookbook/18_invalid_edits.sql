-- Who tried to edit what they may not?
-- All rooms; add `and room_id = '!abc:example.org'` for one.
select sent_at, room_id, sender_name, reason, event_id, body
from message_versions
where is_edit and not is_valid and reason = 'another user sent the message'
order by sent_at desc
limit 50;
