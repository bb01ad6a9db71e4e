-- Where was a word said?
-- In place of the word put yours; several words must all be in the message. Newest first.
select sent_at, room_id, sender_name, marked
from search('hello');
