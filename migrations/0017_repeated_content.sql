-- A redacted state event that the account may not see is not archived, yet the server repeats its content in the event that
-- replaced it. These are found by what they replace.
create index events_repeating on archive.events (room_key, replaces_state) where prev_content is not null;
comment on index archive.events_repeating is 'The events that repeat the content of a given one, for redactions.';

comment on column archive.accounts.rooms_filter is 'The choice of rooms (configuration and room_choices) that the last whole state was stored with; after a decision about a room, a text like no choice, so that the next response is a whole state.';
comment on column archive.walks.restarted is 'Whether the walk was begun anew from the newest event because the server refused its cursor; once, until the daemon is started again.';
