-- Who said a phrase in a room, since a time?
-- In place of the words, the room and the time put yours. A phrase stands in double quotes.
select sent_at, sender_name, marked
from search('"good morning"', room_id => (select room_id from rooms order by event_count desc nulls last limit 1),
            since => timestamptz '2020-01-01 00:00Z', max_results => 50);
