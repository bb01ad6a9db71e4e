-- Each page asks which of its events were redacted before they came. Few redactions wait for their targets at any time, so
-- reading those is a hundredth of the work of looking up every event of the page among all redactions.
create index redactions_waiting on archive.redactions (room_key, recorded_at, redaction_event_id) where state = 'pending';
comment on index archive.redactions_waiting is 'The redactions of a room whose targets are not archived yet, for the writer.';
