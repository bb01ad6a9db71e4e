create function archive.sent_at(origin_server_ts bigint) returns timestamptz
    language sql immutable parallel safe
    -- The sender chooses the number. PostgreSQL cannot represent every number as a time.
    return case when origin_server_ts between -62135596800000 and 9007199254740991
                then timestamptz 'epoch' + origin_server_ts * interval '1 millisecond' end;
comment on function archive.sent_at(bigint) is 'Milliseconds since 1970 as a time; null if PostgreSQL cannot represent that time.';

-- Specification, "Rich replies" and "Threading": in a thread, m.in_reply_to may be only for clients that do not know threads.
create function archive.in_reply_to(rel_type text, content jsonb) returns text
    language sql immutable parallel safe
    return case when jsonb_typeof(content #> '{m.relates_to,m.in_reply_to,event_id}') = 'string'
                     -- An event id has at most 255 bytes. A longer text would not fit into an index entry.
                     and octet_length(content #>> '{m.relates_to,m.in_reply_to,event_id}') <= 255
                     and not (rel_type is not distinct from 'm.thread' and content @> '{"m.relates_to": {"is_falling_back": true}}')
                then content #>> '{m.relates_to,m.in_reply_to,event_id}' end;
comment on function archive.in_reply_to(text, jsonb) is 'The event that a message answers; null if it answers none.';

-- Every event once. The key contains the room because servers choose the ids of events in rooms of versions 1 and 2, so they
-- can be the same in two rooms. The columns of fixed length come first, which saves the bytes of alignment.
create table archive.events (
    -- `order by position` is the room's order. Live events are appended at +2^16, above a gap at +2^40, and history goes
    -- down by 2^16 for each event. An event that is found between two known events is placed between them. A position never
    -- changes, except by `backscroll resequence`. Null: the event is known, but not (yet) seen in the timeline.
    position bigint,
    origin_server_ts bigint,
    sent_at timestamptz generated always as (archive.sent_at(origin_server_ts)) stored,
    received_at timestamptz not null default now(),
    edited_at timestamptz,
    edit_count int,
    room_id text collate "C" not null,
    event_id text collate "C" not null,
    type text collate "C" not null,
    sender text collate "C" not null,
    state_key text collate "C",
    relates_to text collate "C",
    rel_type text collate "C",
    thread_root text collate "C",
    in_reply_to text collate "C" generated always as (archive.in_reply_to(rel_type, content)) stored,
    redacts text collate "C",
    redacted_by text collate "C",
    replaces_state text collate "C",
    edited_by text collate "C",
    hidden_type text collate "C",
    stable_sha256 bytea not null,
    content jsonb not null,
    -- The content of the latest valid edit, so that a message is read without looking for its edits. The transaction that
    -- stores or redacts an edit also writes it here.
    edited_content jsonb,
    prev_content jsonb,
    -- The exact bytes, only if the columns do not give the event back: jsonb has no NUL, no lone surrogate, no duplicate key,
    -- no 1e400 and no -0.
    raw bytea,
    primary key (room_id, event_id)
) with (
    -- PostgreSQL also vacuums a table after inserts. At its usual pace, a backfill beside it took a fifth longer and wrote a
    -- seventh more WAL. This pace, of some two thousand events a second, is enough for a real homeserver.
    autovacuum_vacuum_cost_delay = 50
);
comment on table archive.events is 'Every event that the account was shown, once per room, and those that were imported (archive.imported_events).';
comment on column archive.events.position is 'Place in the room''s order; never changes once given; null: known from the room''s state, not placed in the timeline.';
comment on column archive.events.origin_server_ts is 'Milliseconds since 1970 as the sender''s server claims; never an order. Null where the server''s value is no 64-bit integer (then raw has it).';
comment on column archive.events.sent_at is 'origin_server_ts as a time; null if PostgreSQL cannot represent it.';
comment on column archive.events.received_at is 'When the row was stored; for an event that was imported first: when the homeserver gave it.';
comment on column archive.events.edited_at is 'When the latest valid edit was sent; null: never edited.';
comment on column archive.events.edit_count is 'Number of valid edits; null: none.';
comment on column archive.events.room_id is 'Matrix room id.';
comment on column archive.events.event_id is 'Matrix event id.';
comment on column archive.events.type is 'Event type. U+F8FE escapes what text cannot hold: U+F8FE 0 is NUL, U+F8FE 1 is U+F8FE, U+F8FE d800…dfff a lone surrogate.';
comment on column archive.events.sender is 'Sender''s user id.';
comment on column archive.events.state_key is 'State key; null: not a state event (the empty string is one).';
comment on column archive.events.relates_to is 'm.relates_to.event_id of the content.';
comment on column archive.events.rel_type is 'm.relates_to.rel_type of the content: m.replace, m.annotation, m.thread, …';
comment on column archive.events.thread_root is 'First message of the thread that it belongs to; null if it belongs to none, or names an event that cannot begin one.';
comment on column archive.events.in_reply_to is 'Event that it answers; null in a thread if the answer is only for clients that do not know threads.';
comment on column archive.events.redacts is 'Target of an m.room.redaction, by the room version''s rule.';
comment on column archive.events.redacted_by is 'The event that redacted this one; of an edit, also the one that redacted the message which it edits.';
comment on column archive.events.replaces_state is 'State event that this one replaced on its own branch, as the server says.';
comment on column archive.events.edited_by is 'Event id of the latest valid edit; null: never edited.';
comment on column archive.events.hidden_type is 'Of an encrypted event that says no message: the type of what it says, such as m.poll.response. Null: everything else, also what was not decrypted. So the views list messages without reading archive.decrypted_events.';
comment on column archive.events.stable_sha256 is 'SHA-256 over the canonical JSON of what stays the same in every copy that a server gives of the event.';
comment on column archive.events.content is 'Content as served, after redaction. Where raw is set, a copy with what jsonb cannot hold replaced.';
comment on column archive.events.edited_content is 'm.new_content of the latest valid edit; null: never edited, or encrypted.';
comment on column archive.events.prev_content is 'Content of the replaced state event as served, pruned when that was redacted.';
comment on column archive.events.raw is 'The event''s exact JSON bytes where the columns alone would not give it back, else null.';

-- Some indexes below do not begin with the room, such as that of event ids. A reader of some rooms must not use them: `explain
-- (analyze)` shows how many rows an index found that a condition then removed, and those would be of other rooms. So these
-- indexes are partial, with this condition, which is always true. PostgreSQL uses a partial index only for a query that states
-- its condition. The views for readers of all rooms do. What readers of some rooms read has origin_server_ts within an
-- expression (see archive.renew_reader_views), so no query of theirs can state it. It costs nothing, because PostgreSQL puts
-- the function's body into the query.
create function archive.any_room(origin_server_ts bigint) returns boolean
    language sql immutable parallel safe
    return origin_server_ts is null or origin_server_ts is not null;
comment on function archive.any_room(bigint) is 'Always true. A query of archive.events that states it may use the indexes that do not begin with the room.';

-- Each index says which question it serves, and what it costs: its size, divided by the number of all events of the room or the
-- archive, when it is built at once. History is stored from the newest event to the oldest, which makes the indexes by position
-- and by time up to 1.8 times as large, and that of the key 1.3 times, until Backscroll builds them anew
-- (archive.index_builds). Where new events come at the end of a room or a sender and never between others, pages are filled up.
create unique index events_position on archive.events (room_id, position) with (fillfactor = 100);
create index events_time on archive.events (room_id, sent_at) with (fillfactor = 100);
create index events_sent_at on archive.events (sent_at) with (fillfactor = 100) where archive.any_room(origin_server_ts);
create index events_room_relation on archive.events (room_id, relates_to, sender) where relates_to is not null;
create index events_id on archive.events using hash (event_id) where archive.any_room(origin_server_ts);
create index events_sender on archive.events (sender, sent_at, room_id) with (fillfactor = 100) where archive.any_room(origin_server_ts);
create index events_relation on archive.events (relates_to)
    where relates_to is not null and archive.any_room(origin_server_ts);
create index events_thread on archive.events (thread_root, position)
    where thread_root is not null and archive.any_room(origin_server_ts);
create index events_reply on archive.events (in_reply_to)
    where in_reply_to is not null and archive.any_room(origin_server_ts);
create index events_state on archive.events (room_id, type, state_key, position) where state_key is not null;
create index events_repeating on archive.events (room_id, replaces_state) where prev_content is not null;
comment on index archive.events_pkey is 'An event of a known room. 105 bytes an event.';
comment on index archive.events_position is 'A room in its order: the last or next events of a position, and the writer''s look for neighbours. 53 bytes an event.';
comment on index archive.events_time is 'A stretch of time in a room. 53 bytes an event.';
comment on index archive.events_sent_at is 'The newest events of all rooms, and a stretch of time in all rooms. 21 bytes an event.';
comment on index archive.events_id is 'An event by its id alone. A hash index, because it is a third smaller than a B-tree. 34 bytes an event.';
comment on index archive.events_sender is 'A person''s events, newest first. With the room, so that those in one room are found without reading the others. 87 bytes an event.';
comment on index archive.events_room_relation is 'The edits, reactions and votes of an event of a known room, for the views and the writer. With the sender, so that of thousands of reactions each is compared only with those of its sender. 16 bytes an event.';
comment on index archive.events_relation is 'The edits, reactions, thread replies and votes of an event. 6 bytes an event.';
comment on index archive.events_thread is 'A thread in its order. 3 bytes an event.';
comment on index archive.events_reply is 'The replies to a message. 3 bytes an event.';
comment on index archive.events_state is 'All values of a state key in order, and a room''s state at a position. 6 bytes an event.';
comment on index archive.events_repeating is 'The state events that repeat in prev_content what a given one said. When that is redacted, what they repeat goes, too. 2 bytes an event.';

-- A reaction has a type and a relation. PostgreSQL takes these for independent of each other, expects a hundredth of
-- the reactions that there are, and does not read them in parallel.
create statistics archive.events_kinds (mcv) on type, rel_type, hidden_type from archive.events;
comment on statistics archive.events_kinds is 'Which types of events have which relations, so that queries of reactions, edits and votes are planned well.';

-- Edits whose message is not archived yet: in a backward walk, an edit comes before its message. Few wait at any time.
create table archive.waiting_edits (
    room_id text collate "C" not null,
    message_id text collate "C" not null,
    edit_id text collate "C" not null,
    primary key (room_id, message_id, edit_id)
);
comment on table archive.waiting_edits is 'Edits whose message is not archived. The transaction that stores the message applies them.';
comment on column archive.waiting_edits.room_id is 'Room.';
comment on column archive.waiting_edits.message_id is 'The message that is edited.';
comment on column archive.waiting_edits.edit_id is 'The edit, a row of archive.events.';

create table archive.redactions (
    room_id text collate "C" not null,
    target_event_id text collate "C" not null,
    redaction_event_id text collate "C" not null,
    state text not null check (state in ('pending', 'applied', 'refused')),
    recorded_at timestamptz not null default now(),
    primary key (room_id, target_event_id, redaction_event_id)
);
comment on table archive.redactions is 'Which event redacts which. Kept for ever, because redacting a redaction erases the link from the event itself; applied whichever of the two arrives first.';
comment on column archive.redactions.room_id is 'Room of both: a redaction across rooms has no effect.';
comment on column archive.redactions.target_event_id is 'The event to be redacted.';
comment on column archive.redactions.redaction_event_id is 'The event that redacts. The edits of a message are redacted by what redacts the message.';
comment on column archive.redactions.state is 'pending: the target is not stored; applied; refused: the target may not be redacted (a create event).';
comment on column archive.redactions.recorded_at is 'When the archive learnt of it.';
-- Each page asks which of its events were redacted before they came. Few redactions wait for their targets, so reading those
-- is a hundredth of the work of looking up every event of the page among all redactions.
create index redactions_waiting on archive.redactions (room_id, recorded_at, redaction_event_id) where state = 'pending';
comment on index archive.redactions_waiting is 'The redactions of a room whose targets are not archived yet, for the writer.';

create table archive.replaced_copies (
    room_id text collate "C" not null,
    event_id text collate "C" not null,
    received_at timestamptz not null,
    replaced_at timestamptz not null default now(),
    primary key (room_id, event_id, replaced_at)
);
comment on table archive.replaced_copies is 'Which events were stored anew, because the homeserver gave a better copy: in full what it had served without its content, or at all what was known from a file only. `verify` then knows why the hash of such an event is another one than when its day was sealed.';
comment on column archive.replaced_copies.room_id is 'Room.';
comment on column archive.replaced_copies.event_id is 'The event, a row of archive.events.';
comment on column archive.replaced_copies.received_at is 'When the copy was stored that was replaced.';
comment on column archive.replaced_copies.replaced_at is 'When it was replaced.';

create table archive.originals (
    room_id text collate "C" not null,
    event_id text collate "C" not null,
    content jsonb not null,
    raw bytea,
    redacted_at timestamptz not null default now(),
    primary key (room_id, event_id)
);
comment on table archive.originals is 'What a redacted event said. Filled only with redactions.policy = "retain", and left as it is by a change of that; in no reader''s view.';
comment on column archive.originals.room_id is 'Room.';
comment on column archive.originals.event_id is 'The redacted event.';
comment on column archive.originals.content is 'Its content before the redaction.';
comment on column archive.originals.raw is 'Its exact bytes, where they had been kept.';
comment on column archive.originals.redacted_at is 'When the archive applied the redaction.';

-- The same bytes, served again, make no second row.
create table archive.quarantine (
    room_id text collate "C" not null,
    raw_sha256 bytea not null,
    raw bytea not null,
    reason text not null,
    event_ids text[] collate "C",
    received_at timestamptz not null default now(),
    primary key (room_id, raw_sha256)
);
comment on table archive.quarantine is 'What a server sent as an event, or as another part of an answer, and could not be read, byte for byte, until it is redacted or erased.';
comment on column archive.quarantine.room_id is 'Room whose response held it; the empty string: it belongs to no room that there can be.';
comment on column archive.quarantine.raw_sha256 is 'SHA-256 of raw without what servers add (unsigned, age, …) and without this room''s own room_id.';
comment on column archive.quarantine.raw is 'The bytes as served.';
comment on column archive.quarantine.reason is 'Why it could not be read.';
comment on column archive.quarantine.event_ids is 'The ids of the events that it names or claims to be; null: not looked at yet, it was stored by an earlier version.';
comment on column archive.quarantine.received_at is 'When it was first served.';
create index quarantine_events on archive.quarantine using gin (event_ids);
comment on index archive.quarantine_events is 'What is in quarantine of an event, for redactions.';

-- In a table of its own: a redaction must find it though nothing says whose content it is, and few servers cause rows here.
create table archive.unnamed_prev_content (
    room_id text collate "C" not null,
    event_id text collate "C" not null,
    prev_content jsonb not null,
    source text not null check (source in ('served', 'top level')),
    primary key (room_id, event_id)
);
comment on table archive.unnamed_prev_content is 'The content that a state event replaced, as served without the name of the event that had it. Any redaction that may concern it removes it.';
comment on column archive.unnamed_prev_content.room_id is 'Room.';
comment on column archive.unnamed_prev_content.event_id is 'The state event that was served with it.';
comment on column archive.unnamed_prev_content.prev_content is 'What was before it, by this copy.';
comment on column archive.unnamed_prev_content.source is 'served: in unsigned, which is the homeserver''s; top level: where a sender may write, too.';

-- Statistics are samples of the content. They would outlast a redaction or an erasure. No query chooses by these columns.
alter table archive.events
    alter column content set statistics 0,
    alter column edited_content set statistics 0,
    alter column prev_content set statistics 0,
    alter column raw set statistics 0,
    -- PostgreSQL must not know which rooms are large. It thinks that a room which its statistics do not have is empty, and
    -- then reads all of it by events_position, where events_pkey would lead to the event. Without statistics it takes every
    -- room for a 200th of the table.
    alter column room_id set statistics 0;
alter table archive.originals
    alter column content set statistics 0,
    alter column raw set statistics 0;
alter table archive.quarantine alter column raw set statistics 0;
alter table archive.unnamed_prev_content alter column prev_content set statistics 0;

-- The links between events that readers need in the rows themselves. Called once for each page or response, after its events
-- are stored.
create function archive.settle_relations(
    room_id text, edit_ids text[], message_ids text[], reply_ids text[], related_ids text[]
) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    edited_positions bigint[];
    encrypted_ids text[];
begin
    insert into archive.waiting_edits (room_id, message_id, edit_id)
    select settle_relations.room_id, edit.relates_to, edit.event_id
    from unnest(edit_ids) as asked (event_id)
    -- Lateral with a limit: one look-up in the primary key for each id, whatever the statistics are.
    cross join lateral (
        select e.event_id, e.relates_to from archive.events e
        where e.room_id = settle_relations.room_id and e.event_id = asked.event_id and e.redacted_by is null
        limit 1
    ) edit
    where not exists (
        select from archive.events m where m.room_id = settle_relations.room_id and m.event_id = edit.relates_to)
    on conflict do nothing;

    -- A valid edit is by the same sender, of the same type, with m.new_content, of an event that is neither redacted nor state.
    -- The latest wins by origin_server_ts, then by event id (specification, "Event replacements"). The new content of an
    -- encrypted edit is encrypted.
    with edited as (
        update archive.events m
        set edited_by = latest.edited_by, edited_at = latest.edited_at, edit_count = latest.edit_count,
            edited_content = latest.edited_content
        from (
            select message.event_id, edit.event_id as edited_by, edit.sent_at as edited_at, edit.edit_count,
                   edit.new_content as edited_content
            from unnest(message_ids) as asked (event_id)
            cross join lateral (
                select e.event_id, e.sender, e.type, e.state_key, e.redacted_by from archive.events e
                where e.room_id = settle_relations.room_id and e.event_id = asked.event_id
                limit 1
            ) message
            left join lateral (
                select x.event_id, x.sent_at, count(*) over () as edit_count,
                       case when x.type <> 'm.room.encrypted' then x.content -> 'm.new_content' end as new_content
                from archive.events x
                where x.room_id = settle_relations.room_id and x.relates_to = message.event_id and x.rel_type = 'm.replace'
                  and x.sender = message.sender and x.type = message.type and x.state_key is null and x.redacted_by is null
                  and message.state_key is null and message.redacted_by is null
                  and (x.type = 'm.room.encrypted' or jsonb_typeof(x.content -> 'm.new_content') = 'object')
                order by x.origin_server_ts desc nulls last, x.event_id desc
                limit 1
            ) edit on true
        ) latest
        where m.room_id = settle_relations.room_id and m.event_id = latest.event_id
          and (m.edited_by, m.edited_at, m.edit_count, m.edited_content)
              is distinct from (latest.edited_by, latest.edited_at, latest.edit_count::int, latest.edited_content)
        returning m.event_id, m.position, m.type
    )
    select array_agg(edited.position) filter (where edited.position is not null),
           array_agg(edited.event_id) filter (where edited.type = 'm.room.encrypted')
    into edited_positions, encrypted_ids from edited;
    if encrypted_ids is not null then
        perform archive.settle_decrypted(settle_relations.room_id, encrypted_ids);
    end if;
    -- What the messages said before is not found any more.
    if edited_positions is not null then
        perform archive.forget_search(settle_relations.room_id, edited_positions);
    end if;

    delete from archive.waiting_edits w
    where w.room_id = settle_relations.room_id and w.message_id = any (message_ids)
      and exists (select from archive.events m
                  where m.room_id = settle_relations.room_id and m.event_id = w.message_id);

    -- An event that relates to another one cannot begin a thread (specification, "Threading"), unless it was redacted.
    update archive.events r set thread_root = r.relates_to
    from archive.events root
    where root.room_id = settle_relations.room_id and root.event_id = any (message_ids) and root.rel_type is null
      and r.room_id = settle_relations.room_id and r.relates_to = root.event_id and r.rel_type = 'm.thread'
      and r.thread_root is null;
    update archive.events r set thread_root = null
    where r.room_id = settle_relations.room_id and r.event_id = any (reply_ids)
      and exists (select from archive.events root
                  where root.room_id = settle_relations.room_id and root.event_id = r.thread_root
                    and root.rel_type is not null);
    update archive.events r set thread_root = null
    where archive.any_room(r.origin_server_ts) and r.room_id = settle_relations.room_id and r.thread_root = any (related_ids);
end
$$;
comment on function archive.settle_relations(text, text[], text[], text[], text[]) is 'Brings edited_by, edited_at, edit_count, edited_content and thread_root of a room''s events up to date: edit_ids: new edits; message_ids: messages whose edits may have changed; reply_ids: new replies in threads; related_ids: new events that relate to others.';
revoke execute on function archive.settle_relations(text, text[], text[], text[], text[]) from public;
