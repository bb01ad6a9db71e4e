-- Whether what is in quarantine was redacted can be asked without reading it, when `redactions.policy` is honour again after it
-- was retain, and for each redaction that comes.
alter table archive.quarantine add column event_ids text[] collate "C";
comment on column archive.quarantine.event_ids is 'The ids of the events that it names or claims to be; null: not looked at yet, it was stored by an earlier version.';
create index quarantine_events on archive.quarantine using gin (event_ids);
comment on index archive.quarantine_events is 'What is in quarantine of an event, for redactions.';

comment on column archive.events.redacted_by is 'The event that redacted this one; of an edit, also the one that redacted the message which it edits.';
comment on column public.events.redacted_by is 'The event that redacted this one; of an edit, also the one that redacted the message which it edits; null: not redacted.';
comment on column archive.redactions.redaction_event_id is 'The event that redacts. The edits of a message are redacted by what redacts the message.';
comment on table archive.originals is 'What a redacted event said. Filled only with redactions.policy = "retain", and left as it is by a change of that; in no reader''s view.';
select archive.renew_reader_views();
