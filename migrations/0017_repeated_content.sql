-- A redacted state event that the account may not see is not archived, yet the server repeats its content in the event that
-- replaced it. These are found by what they replace.
create index events_repeating on archive.events (room_key, replaces_state) where prev_content is not null;
comment on index archive.events_repeating is 'The events that repeat the content of a given one, for redactions.';
