-- Counted by the transaction that stores, redacts or erases the events, so that nobody has to count messages to learn who
-- talks most.
create table archive.activity (
    day date not null,
    messages int not null default 0,
    edits int not null default 0,
    reactions int not null default 0,
    room_id text collate "C" not null,
    sender text collate "C" not null,
    primary key (room_id, day, sender) with (fillfactor = 100)
);
comment on table archive.activity is 'What each sender has sent in each room on each day, by the clock of the sender''s server. Redacted events do not count.';
comment on column archive.activity.day is 'Day in UTC; -infinity: the time is unknown.';
comment on column archive.activity.messages is 'Number of messages, as in the view messages.';
comment on column archive.activity.edits is 'Number of edits.';
comment on column archive.activity.reactions is 'Number of reactions.';
comment on column archive.activity.room_id is 'Room.';
comment on column archive.activity.sender is 'Sender''s user id.';

create function archive.is_message(type text, content jsonb) returns boolean
    language sql immutable parallel safe
    return type in ('m.room.message', 'm.room.encrypted', 'm.sticker', 'm.poll.start', 'org.matrix.msc3381.poll.start',
                    'm.poll.end', 'org.matrix.msc3381.poll.end', 'm.location', 'org.matrix.msc3488.location')
        -- Of a type that a client does not know it shows the text, if there is one (MSC1767).
        or (type not in ('m.reaction', 'm.room.redaction', 'm.poll.response', 'org.matrix.msc3381.poll.response', 'm.beacon',
                         'org.matrix.msc3672.beacon')
            and jsonb_typeof(content) = 'object'
            and content ?| array['m.text', 'org.matrix.msc1767.text', 'm.message', 'org.matrix.msc1767.message']
            and (jsonb_typeof(content -> 'm.text') in ('array', 'string')
                 or jsonb_typeof(content -> 'org.matrix.msc1767.text') in ('array', 'string')
                 or jsonb_typeof(content -> 'm.message') = 'array'
                 or jsonb_typeof(content -> 'org.matrix.msc1767.message') = 'array'));
comment on function archive.is_message(text, jsonb) is 'Whether a client shows an event of this type and content as a message.';

create function archive.activity_kind(
    type text, state_key text, relates_to text, rel_type text, redacted_by text, content jsonb, hidden_type text
) returns text
    language sql immutable parallel safe
    return case
           when state_key is not null or redacted_by is not null then null
           when rel_type = 'm.replace' and relates_to is not null then 'edit'
           when 'm.reaction' in (type, hidden_type)
               then case when rel_type = 'm.annotation' and relates_to is not null then 'reaction' end
           when hidden_type is null and archive.is_message(type, content) then 'message'
           end;
comment on function archive.activity_kind(text, text, text, text, text, jsonb, text) is 'What archive.activity counts an event as: message, edit or reaction; null: nothing.';

-- A user whose content was erased: what their events are now counted as.
create function archive.recount_activity(room_id text, sender text) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    with deleted as (
        delete from archive.activity a
        where a.room_id = recount_activity.room_id and a.sender = recount_activity.sender
        returning a.messages)
    update archive.rooms r
    set message_count = r.message_count - (select coalesce(sum(d.messages), 0) from deleted d)
    where r.room_id = recount_activity.room_id;
    insert into archive.activity (room_id, day, sender, messages, edits, reactions)
    select recount_activity.room_id, coalesce((e.sent_at at time zone 'UTC')::date, '-infinity'), recount_activity.sender,
           count(*) filter (where kind = 'message'), count(*) filter (where kind = 'edit'),
           count(*) filter (where kind = 'reaction')
    from archive.events e
    cross join lateral archive.activity_kind(e.type, e.state_key, e.relates_to, e.rel_type, e.redacted_by, e.content,
                                             e.hidden_type) as kind
    where archive.any_room(e.origin_server_ts)
      and e.room_id = recount_activity.room_id and e.sender = recount_activity.sender and kind is not null
    group by 2;
    update archive.rooms r
    set message_count = r.message_count + (select coalesce(sum(a.messages), 0) from archive.activity a
                                           where a.room_id = r.room_id and a.sender = recount_activity.sender)
    where r.room_id = recount_activity.room_id;
end
$$;
comment on function archive.recount_activity(text, text) is 'Counts a sender''s events in a room anew.';
revoke execute on function archive.recount_activity(text, text) from public;
