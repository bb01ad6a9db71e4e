-- More views for readers: what people ask of an archive. They keep queries fast as the views before them do. A field of
-- another type than the specification's counts as absent.

create function archive.whole_number(value jsonb) returns bigint
    language sql immutable parallel safe
    return case when jsonb_typeof(value) = 'number'
                then case when (value #>> '{}')::numeric between 0 and 9007199254740991
                          then trunc((value #>> '{}')::numeric)::bigint end end;
comment on function archive.whole_number(jsonb) is 'A JSON number from 0 to 2^53 - 1, without its fraction; null for any other value.';

create index events_room_thread on archive.events (room_id, thread_root, position) where thread_root is not null;
comment on index archive.events_room_thread is 'The threads of a room, and a thread of a known room in its order. 5 bytes an event.';
create index events_polls on archive.events (room_id, position)
    where type in ('m.poll.start', 'org.matrix.msc3381.poll.start');
comment on index archive.events_polls is 'The polls of a room in its order. Less than a byte an event.';

-- Which edits are valid says the specification, "Event replacements". The writer has the same conditions, in
-- archive.settle_relations().
create view public.message_versions as
select e.room_id, e.event_id, e.event_id as version_id, 1 as version, false as is_edit, e.position, e.sender,
       coalesce(member.shown_name, e.sender) collate "default" as sender_name, e.sent_at, coalesce(d.type, e.type) as type,
       archive.text_of(said.content -> 'msgtype') as msgtype,
       archive.message_body(coalesce(d.type, e.type), said.content, e.in_reply_to, false) collate "default" as body,
       archive.message_html(said.content, e.in_reply_to, false) collate "default" as formatted_body,
       e.redacted_by is null as is_valid, e.edited_by is null or d.type is not null and d.edited_content is null as is_shown,
       case when e.redacted_by is not null then 'the message is redacted' end as reason,
       e.type = 'm.room.encrypted' as is_encrypted, case when d.type is not null then d.trust end as trust
from archive.events e
left join archive.members member on member.room_id = e.room_id and member.user_id = e.sender
left join archive.decrypted_events d on d.room_id = e.room_id and d.event_id = e.event_id
-- What an encrypted event says is not in its content, whatever else is.
cross join lateral (select case when e.type <> 'm.room.encrypted' then e.content else d.content end as content) said
where archive.any_room(e.origin_server_ts) and e.state_key is null
  and (e.rel_type is distinct from 'm.replace' or e.relates_to is null)
  -- An edit that was redacted together with its message does not say any more that it was an edit, see the view messages.
  and (e.redacted_by is null or not archive.was_redacted_with_another(e.room_id, e.event_id, e.redacted_by))
  and archive.is_message(e.type, e.content) and e.hidden_type is null
union all
select x.room_id, x.relates_to, x.event_id,
       1 + x.place::int,
       true, x.position, x.sender, coalesce(member.shown_name, x.sender) collate "default", x.sent_at, coalesce(d.type, x.type),
       archive.text_of(said.content -> 'msgtype'),
       archive.message_body(coalesce(d.type, x.type), said.content, null, true) collate "default",
       archive.message_html(said.content, null, true) collate "default",
       fault.reason is null,
       fault.reason is null and e.edited_by is not distinct from x.event_id
           and (x.type <> 'm.room.encrypted' or d.type is not null or message.type is null),
       fault.reason, x.type = 'm.room.encrypted', case when d.type is not null then d.trust end
from (
    -- The latest edit wins by origin_server_ts, then by event id. An edit without a time is older than all others. The edits
    -- of a message are numbered in one go, since there can be tens of thousands. Conditions on event_id and room_id are used
    -- before, all others after the edits have been numbered.
    select o.room_id, o.relates_to, o.event_id, o.position, o.sender, o.sent_at, o.type, o.content, o.redacted_by,
           row_number() over (partition by o.room_id, o.relates_to order by o.origin_server_ts nulls first, o.event_id) as place
    from archive.events o
    where archive.any_room(o.origin_server_ts) and o.rel_type = 'm.replace' and o.relates_to is not null and o.state_key is null
) x
left join archive.events e on e.room_id = x.room_id and e.event_id = x.relates_to
left join archive.members member on member.room_id = x.room_id and member.user_id = x.sender
left join archive.decrypted_events d on d.room_id = x.room_id and d.event_id = x.event_id
left join archive.decrypted_events message on message.room_id = x.room_id and message.event_id = x.relates_to
cross join lateral (
    select case when x.type = 'm.room.encrypted' then coalesce(d.content -> 'm.new_content', d.content)
                when jsonb_typeof(x.content -> 'm.new_content') = 'object' then x.content -> 'm.new_content'
                else x.content end as content
) said
cross join lateral (
    select case when x.redacted_by is not null then 'the edit is redacted'
                when e.event_id is null then 'the message is not archived'
                when e.redacted_by is not null then 'the message is redacted'
                when e.state_key is not null then 'it edits a state event'
                when e.rel_type = 'm.replace' and e.relates_to is not null then 'it edits an edit'
                when x.sender <> e.sender then 'another user sent the message'
                when x.type <> e.type then 'the message has another type'
                when x.type <> 'm.room.encrypted' and jsonb_typeof(x.content -> 'm.new_content') is distinct from 'object'
                then 'it has no m.new_content'
                when d.type <> message.type then 'the message has another type'
                when d.type is not null and jsonb_typeof(d.content -> 'm.new_content') is distinct from 'object'
                then 'it has no m.new_content' end as reason
) fault;
comment on view public.message_versions is 'Every version of a message: what was sent first, and each edit, valid or not. Also edits whose message is not archived. A redacted edit names its message no more: it is not listed here. Choose by event_id or room_id: to choose by other columns alone, all edits are read.';
comment on column public.message_versions.room_id is 'Matrix room id.';
comment on column public.message_versions.event_id is 'The message. Of an edit: the event that it names, whatever that is.';
comment on column public.message_versions.version_id is 'The event that brought this version: the message itself, or the edit.';
comment on column public.message_versions.version is '1: the message as it was first sent, whether archived or not; its edits follow from 2 on, by the time that their sender gives.';
comment on column public.message_versions.is_edit is 'Whether this version is an edit.';
comment on column public.message_versions.position is 'Place of version_id in the room''s order.';
comment on column public.message_versions.sender is 'Who sent this version.';
comment on column public.message_versions.sender_name is 'Their name as a client shows it.';
comment on column public.message_versions.sent_at is 'When this version was sent, as the sender''s server says.';
comment on column public.message_versions.type is 'Event type of this version, of an encrypted one the decrypted type.';
comment on column public.message_versions.msgtype is 'm.text, m.image, …; null if redacted, or encrypted and not decrypted, or of a type that has none.';
comment on column public.message_versions.body is 'Text of this version, as in messages: without the quotation before a reply; null if redacted, not decrypted, or no text.';
comment on column public.message_versions.formatted_body is 'The same text as HTML; null: none.';
comment on column public.message_versions.is_valid is 'Whether the specification''s rules let this version count; see reason.';
comment on column public.message_versions.is_shown is 'Whether this is the version that the view messages shows.';
comment on column public.message_versions.reason is 'Why this version is not valid, in words; null: it is.';
comment on column public.message_versions.is_encrypted is 'Whether this version was sent encrypted.';
comment on column public.message_versions.trust is 'Of a decrypted version: where its session is from, as in messages.';

create view public.threads as
select t.room_id, t.thread_root,
       -- Subqueries, so that PostgreSQL looks up the roots of the rows that it returns, and not of those that a limit leaves out.
       (select m.sender from public.messages m where m.room_id = t.room_id and m.event_id = t.thread_root) as root_sender,
       (select m.sender_name from public.messages m
        where m.room_id = t.room_id and m.event_id = t.thread_root) as root_sender_name,
       (select m.body from public.messages m where m.room_id = t.room_id and m.event_id = t.thread_root) as root_body,
       (select m.sent_at from public.messages m where m.room_id = t.room_id and m.event_id = t.thread_root) as root_sent_at,
       t.reply_count,
       (select case when count(m.sender) = 0 then t.senders else array_agg(m.sender) || array_remove(t.senders, min(m.sender)) end
        from public.messages m where m.room_id = t.room_id and m.event_id = t.thread_root) as participants,
       (select cardinality(t.senders) + count(*) filter (where m.sender <> all (t.senders))
        from public.messages m where m.room_id = t.room_id and m.event_id = t.thread_root)::int as participant_count,
       t.first_reply_at, t.last_reply_at, t.last_event_id, t.last_position
from (
    -- By position, because senders choose the time.
    select e.room_id, e.thread_root, count(*) as reply_count, array_agg(distinct e.sender) as senders,
           (array_agg(e.sent_at order by e.position))[1] as first_reply_at,
           (array_agg(e.sent_at order by e.position desc nulls last))[1] as last_reply_at,
           (array_agg(e.event_id order by e.position desc nulls last))[1] as last_event_id,
           max(e.position) as last_position
    from archive.events e
    where archive.any_room(e.origin_server_ts)
      and e.thread_root is not null and e.state_key is null and e.redacted_by is null
    group by e.room_id, e.thread_root
) t;
comment on view public.threads is 'Threads: the message that began each, who took part, and the last reply. Redacted replies do not count. The latest threads of a room: where room_id = … order by last_position desc limit 20.';
comment on column public.threads.room_id is 'Matrix room id.';
comment on column public.threads.thread_root is 'The event that began the thread.';
comment on column public.threads.root_sender is 'Who sent it; null: it is not archived, or no message.';
comment on column public.threads.root_sender_name is 'Their name as a client shows it.';
comment on column public.threads.root_body is 'Its text as last edited; null: none, or not archived.';
comment on column public.threads.root_sent_at is 'When it was sent.';
comment on column public.threads.reply_count is 'Number of replies.';
comment on column public.threads.participants is 'User ids of who took part: the root''s sender, then the others by user id.';
comment on column public.threads.participant_count is 'How many these are.';
comment on column public.threads.first_reply_at is 'When the first reply by position was sent.';
comment on column public.threads.last_reply_at is 'When the last reply by position was sent.';
comment on column public.threads.last_event_id is 'The last reply by position.';
comment on column public.threads.last_position is 'Its place in the room''s order.';

create view public.poll_results as
select p.room_id, p.poll_id, p.position, p.sender, p.sent_at, p.question, p.kind, p.max_selections, p.ended_at,
       answer.place::int as place, answer.id as answer_id, answer.text as answer,
       case when p.kind = 'disclosed' or p.end_event_id is not null
            then (select count(*) from unnest(voted.answer_ids) as vote (answer_id) where vote.answer_id = answer.id)
            end as votes,
       case when p.kind = 'disclosed' or p.end_event_id is not null
            then array(select vote.sender from unnest(voted.answer_ids, voted.senders) as vote (answer_id, sender)
                       where vote.answer_id = answer.id order by vote.sender)
            end as voters
from public.polls p
cross join lateral (
    select array_agg(v.answer_id) as answer_ids, array_agg(v.sender) as senders
    from public.poll_votes v
    where v.room_id = p.room_id and v.poll_id = p.poll_id
) voted
cross join lateral (
    -- Of equal ids, the view poll_votes shows the same text.
    select min(a.place) as place, a.answer ->> 'id' as id, min(a.answer ->> 'text') as text
    from jsonb_array_elements(p.answers) with ordinality as a (answer, place)
    group by a.answer ->> 'id'
) answer;
comment on view public.poll_results is 'The answers of each poll with the votes for them, by the rules of poll_votes; also answers without votes. In the order of the poll: order by position, place.';
comment on column public.poll_results.room_id is 'Matrix room id.';
comment on column public.poll_results.poll_id is 'The event that began the poll.';
comment on column public.poll_results.position is 'Its place in the room''s order.';
comment on column public.poll_results.sender is 'Who asks.';
comment on column public.poll_results.sent_at is 'When the poll was begun.';
comment on column public.poll_results.question is 'What the poll asks.';
comment on column public.poll_results.kind is 'disclosed: votes show at once; undisclosed: when the poll has ended.';
comment on column public.poll_results.max_selections is 'How many answers a vote may choose.';
comment on column public.poll_results.ended_at is 'When the poll was ended; null: it has not been.';
comment on column public.poll_results.place is 'Place of the answer in the poll, from 1 on.';
comment on column public.poll_results.answer_id is 'Id of the answer.';
comment on column public.poll_results.answer is 'Text of the answer; null: it has none.';
comment on column public.poll_results.votes is 'Number of votes for it; null: they do not show before the poll has ended.';
comment on column public.poll_results.voters is 'User ids of who voted for it; null as votes.';

create view public.pins as
select s.room_id, pin.place::int as place, pin.event_id, m.sender, m.sender_name, m.body, m.sent_at,
       coalesce(since.sender, e.sender) as pinned_by,
       case when since.event_id is null then e.sent_at else since.sent_at end as pinned_at,
       coalesce(since.event_id, e.event_id) as pin_event_id
from archive.current_state s
join archive.events e on e.room_id = s.room_id and e.event_id = s.event_id
cross join lateral (
    select row_number() over (order by min(listed.place)) as place, listed.value #>> '{}' as event_id
    from jsonb_array_elements(case when jsonb_typeof(e.content -> 'pinned') = 'array' then e.content -> 'pinned' else '[]' end)
         with ordinality listed (value, place)
    where jsonb_typeof(listed.value) = 'string'
    group by listed.value
) pin
left join lateral (
    -- The oldest list since which every list has the event. A redacted list is left out: what it had is not known.
    select h.event_id, h.sender, h.sent_at
    from archive.events h
    where h.room_id = s.room_id and h.type = 'm.room.pinned_events' and h.state_key = '' and h.position <= e.position
      and h.redacted_by is null
      and h.position > coalesce((
          select without.position
          from archive.events without
          where without.room_id = s.room_id and without.type = 'm.room.pinned_events' and without.state_key = ''
            and without.position < e.position and without.redacted_by is null
            and not coalesce(jsonb_typeof(without.content -> 'pinned') = 'array' and without.content -> 'pinned' ? pin.event_id,
                             false)
          order by without.position desc
          limit 1), -9223372036854775808)
    order by h.position
    limit 1
) since on true
left join lateral (
    select message.sender, message.sender_name, message.body, message.sent_at
    from public.messages message
    where message.room_id = s.room_id and message.event_id = pin.event_id
    limit 1
) m on true
where s.type = 'm.room.pinned_events' and s.state_key = '';
comment on view public.pins is 'Pinned events of each room, in the order of the list: order by place. Also those that are not archived.';
comment on column public.pins.room_id is 'Matrix room id.';
comment on column public.pins.place is 'Place in the list, from 1 on.';
comment on column public.pins.event_id is 'The pinned event.';
comment on column public.pins.sender is 'Who sent it; null: it is not archived, or no message.';
comment on column public.pins.sender_name is 'Their name as a client shows it.';
comment on column public.pins.body is 'Its text as last edited; null: none, redacted or not archived.';
comment on column public.pins.sent_at is 'When it was sent.';
comment on column public.pins.pinned_by is 'Who pinned it: the sender of pin_event_id.';
comment on column public.pins.pinned_at is 'When it was pinned: the time of pin_event_id.';
comment on column public.pins.pin_event_id is 'The state event since which it is pinned without a break; where the history is not archived, the oldest archived one.';

create view public.membership_history as
select span.room_id, span.user_id,
       coalesce(
           (select archive.name_of(e.content -> 'displayname')
            from archive.events e
            where e.room_id = span.room_id and e.type = 'm.room.member' and e.state_key = span.user_id
              and e.position >= span.position and (e.position < span.left_position or span.left_position is null)
              and e.content ->> 'membership' = 'join'
            order by e.position desc
            limit 1),
           archive.name_of(span.content -> 'displayname')) as display_name,
       span.sent_at as joined_at, span.left_at, span.event_id as joined_event, span.left_event,
       span.position as joined_position, span.left_position,
       case when span.next_membership = 'leave' and span.ended_by = span.user_id then 'leave'
            when span.next_membership = 'leave' then 'kick'
            else span.next_membership end as ended,
       span.ended_by, archive.text_of(span.next_content -> 'reason') as reason,
       case when span.membership_before = 'invite' then span.sender_before end as invited_by,
       case when span.membership_before = 'invite' then span.sent_before end as invited_at
from (
    select turn.room_id, turn.user_id, turn.membership, turn.content, turn.sent_at, turn.event_id, turn.position,
           turn.membership_before, turn.sender_before, turn.sent_before,
           lead(turn.membership) over next as next_membership, lead(turn.sent_at) over next as left_at,
           lead(turn.event_id) over next as left_event, lead(turn.position) over next as left_position,
           lead(turn.sender) over next as ended_by, lead(turn.content) over next as next_content
    from (
        select e.room_id, e.state_key as user_id, e.event_id, e.sender, e.origin_server_ts, e.sent_at, e.position, e.content,
               place.place,
               e.content ->> 'membership' as membership,
               lag(e.content ->> 'membership') over before as membership_before,
               lag(e.sender) over before as sender_before, lag(e.sent_at) over before as sent_before
        -- The join with the rooms lets PostgreSQL find a user in each room by the index on (room_id, type, state_key).
        from archive.rooms r
        join archive.events e on e.room_id = r.room_id
        -- Only those of events without a position are looked up.
        left join archive.current_state s
            on s.room_id = e.room_id and s.type = 'm.room.member'
               and s.state_key = case when e.position is null then e.state_key end and s.event_id = e.event_id
        cross join lateral (
            -- An event without a position comes last if it is the current one, else first.
            select coalesce(e.position, case when s.event_id is null then -9223372036854775808 else 9223372036854775807 end)
                as place
        ) place
        where e.type = 'm.room.member' and e.state_key is not null
          and e.content ->> 'membership' in ('join', 'leave', 'invite', 'ban', 'knock')
        window before as (partition by e.room_id, e.state_key order by place.place, e.origin_server_ts, e.event_id)
    ) turn
    -- A member event that changes only the name or the avatar ends no stay.
    where turn.membership is distinct from turn.membership_before
    window next as (partition by turn.room_id, turn.user_id order by turn.place, turn.origin_server_ts, turn.event_id)
) span
where span.membership = 'join';
comment on view public.membership_history is 'Who was in a room from when to when: one row for each stay, by the order of the timeline. A change of name or avatar ends none.';
comment on column public.membership_history.room_id is 'Matrix room id.';
comment on column public.membership_history.user_id is 'User id.';
comment on column public.membership_history.display_name is 'The last display name of this stay; null: none.';
comment on column public.membership_history.joined_at is 'When the stay began, as the member''s server says.';
comment on column public.membership_history.left_at is 'When it ended; null if left_event is null: it has not.';
comment on column public.membership_history.joined_event is 'The member event that began it; where the history is not archived, the oldest archived one.';
comment on column public.membership_history.left_event is 'The member event that ended it; null: the user is still in the room, as far as is archived.';
comment on column public.membership_history.joined_position is 'Place of joined_event in the room''s order; null: known from the room''s state, not placed.';
comment on column public.membership_history.left_position is 'Place of left_event in the room''s order; null: none, or not placed.';
comment on column public.membership_history.ended is 'leave: the user left; kick: another user removed them; ban; null: it has not ended.';
comment on column public.membership_history.ended_by is 'Who ended it.';
comment on column public.membership_history.reason is 'The reason that they gave; null: none.';
comment on column public.membership_history.invited_by is 'Who had invited the user; null: nobody, or they knocked.';
comment on column public.membership_history.invited_at is 'When that was.';

create view public.conversations as
with recursive link as materialized (
    select u.room_id as old_room_id, u.successor as new_room_id from public.upgrades u
), walk as (
    -- A room has at most one successor and one predecessor. So a line that begins at a room without a successor meets no room
    -- twice, and the rooms of a circle are in none.
    select r.room_id as conversation_id, r.room_id, 0 as depth
    from archive.rooms r
    where r.room_id not in (select link.old_room_id from link)
    union all
    select walk.conversation_id, link.old_room_id, walk.depth + 1
    from walk join link on link.new_room_id = walk.room_id
)
select walk.conversation_id, walk.room_id,
       max(walk.depth) over (partition by walk.conversation_id) - walk.depth as generation
from walk
union all
select r.room_id, r.room_id, 0
from archive.rooms r
where r.room_id not in (select walk.room_id from walk);
comment on view public.conversations is 'Rooms that were upgraded, joined: each room with the newest room of its line. Two rooms belong together by the view upgrades. Rooms that name each other in a circle stand alone.';
comment on column public.conversations.conversation_id is 'Room id of the newest room of the line; of a room that was never upgraded, its own.';
comment on column public.conversations.room_id is 'Matrix room id.';
comment on column public.conversations.generation is '0: the oldest room of the line; then ascending.';

create view public.files as
select e.room_id, e.event_id, e.position, e.sender, coalesce(member.shown_name, e.sender) collate "default" as sender_name, e.sent_at,
       named.filename, archive.text_of(info.info -> 'mimetype') as mimetype, archive.whole_number(info.info -> 'size') as size,
       coalesce(archive.mxc_of(shown.content -> 'url'), archive.mxc_of(shown.content -> 'file' -> 'url')) as url,
       archive.mxc_of(shown.content -> 'url') is null and jsonb_typeof(shown.content -> 'file') is not distinct from 'object'
           as is_encrypted,
       coalesce(d.type, e.type) as type, archive.text_of(shown.content -> 'msgtype') as msgtype,
       archive.whole_number(info.info -> 'w') as width, archive.whole_number(info.info -> 'h') as height,
       archive.whole_number(info.info -> 'duration') as duration_ms,
       case when archive.text_of(shown.content -> 'body') is distinct from named.filename
            then archive.text_of(shown.content -> 'body') end as caption,
       coalesce(archive.mxc_of(info.info -> 'thumbnail_url'), archive.mxc_of(info.info -> 'thumbnail_file' -> 'url'))
           as thumbnail_url,
       case when d.type is not null then d.trust end as trust
from archive.events e
left join archive.members member on member.room_id = e.room_id and member.user_id = e.sender || ''
left join archive.decrypted_events d on d.room_id = e.room_id and d.event_id = e.event_id
cross join lateral (
    select archive.shown_content(e.type, e.content, e.edited_content, d.content, d.edited_content) as content
) shown
cross join lateral (select shown.content -> 'info' as info) info
cross join lateral (
    select case when coalesce(d.type, e.type) = 'm.room.message'
                then coalesce(archive.text_of(shown.content -> 'filename'), archive.text_of(shown.content -> 'body'))
           end as filename
) named
where archive.any_room(e.origin_server_ts)
  and (coalesce(d.type, e.type) = 'm.sticker'
       or coalesce(d.type, e.type) = 'm.room.message'
          and shown.content ->> 'msgtype' in ('m.file', 'm.image', 'm.audio', 'm.video'))
  and e.state_key is null and e.redacted_by is null and (e.rel_type is distinct from 'm.replace' or e.relates_to is null);
comment on view public.files is 'Files, images, audio, videos and stickers that were sent, as last edited, without redacted ones. What an encrypted message holds is known once it was decrypted.';
comment on column public.files.room_id is 'Matrix room id.';
comment on column public.files.event_id is 'The message.';
comment on column public.files.position is 'Its place in the room''s order.';
comment on column public.files.sender is 'Sender''s user id.';
comment on column public.files.sender_name is 'Their name as a client shows it.';
comment on column public.files.sent_at is 'When it was sent, as the sender''s server says.';
comment on column public.files.filename is 'Name of the file; null of a sticker.';
comment on column public.files.mimetype is 'MIME type, as the sender says.';
comment on column public.files.size is 'Size in bytes, as the sender says; null: not said, or no size that a file can have.';
comment on column public.files.url is 'mxc: URI of the file.';
comment on column public.files.is_encrypted is 'Whether the file is encrypted; the message then holds the key.';
comment on column public.files.type is 'Event type: m.room.message or m.sticker, of an encrypted message the decrypted one.';
comment on column public.files.msgtype is 'm.file, m.image, m.audio or m.video; null of a sticker.';
comment on column public.files.width is 'Width in pixels, as the sender says.';
comment on column public.files.height is 'Height in pixels, as the sender says.';
comment on column public.files.duration_ms is 'Length of audio or video in milliseconds, as the sender says.';
comment on column public.files.caption is 'Text that was sent with the file; of a sticker, what it shows; null: none.';
comment on column public.files.thumbnail_url is 'mxc: URI of a smaller picture of it; null: none.';
comment on column public.files.trust is 'Of a decrypted message: where its session is from, as in messages.';

create view public.activity as
select a.room_id, a.day, a.sender, coalesce(member.shown_name, a.sender) collate "default" as sender_name, a.messages, a.edits, a.reactions
from archive.activity a
left join archive.members member on member.room_id = a.room_id and member.user_id = a.sender
-- All that was sent on such a day has been redacted.
where a.messages > 0 or a.edits > 0 or a.reactions > 0;
comment on view public.activity is 'How much each user sent in each room on each day. Kept while events are stored, so that nothing is counted at reading. Redacted events do not count.';
comment on column public.activity.room_id is 'Matrix room id.';
comment on column public.activity.day is 'Day in UTC, by the clock of the sender''s server; -infinity: the time is unknown.';
comment on column public.activity.sender is 'Sender''s user id.';
comment on column public.activity.sender_name is 'Their name as a client shows it.';
comment on column public.activity.messages is 'Number of messages, as in the view messages.';
comment on column public.activity.edits is 'Number of edits.';
comment on column public.activity.reactions is 'Number of reactions.';

create view public.redacted_events as
select d.room_id, d.target_event_id as event_id, e.type, e.state_key, e.position, e.sender,
       -- Subqueries, so that PostgreSQL looks up the names of the rows that it returns.
       coalesce((select m.shown_name from archive.members m where m.room_id = d.room_id and m.user_id = e.sender),
                e.sender) collate "default" as sender_name,
       e.sent_at, d.redaction_event_id as redacted_by, redaction.sender as redacted_by_sender,
       coalesce((select m.shown_name from archive.members m where m.room_id = d.room_id and m.user_id = redaction.sender),
                redaction.sender) collate "default" as redacted_by_name,
       archive.text_of(redaction.content -> 'reason') as reason, redaction.sent_at as redacted_at
-- It begins with the redactions, which have an index by room; redacted events have none. A lateral with a limit looks up
-- each event by its key. PostgreSQL would read the whole room for a plain join, because it takes a room for smaller than it is.
from archive.redactions d
cross join lateral (
    select x.type, x.state_key, x.position, x.sender, x.sent_at
    from archive.events x
    where x.room_id = d.room_id and x.event_id = d.target_event_id and x.redacted_by = d.redaction_event_id
    limit 1
) e
left join lateral (
    select x.sender, x.content, x.sent_at
    from archive.events x
    where x.room_id = d.room_id and x.event_id = d.redaction_event_id
    limit 1
) redaction on true
where d.state = 'applied';
comment on view public.redacted_events is 'What was redacted, by whom, why and when. Edits that were redacted with their message are listed, too.';
comment on column public.redacted_events.room_id is 'Matrix room id.';
comment on column public.redacted_events.event_id is 'The redacted event.';
comment on column public.redacted_events.type is 'Its type.';
comment on column public.redacted_events.state_key is 'Its state key; null: no state event.';
comment on column public.redacted_events.position is 'Its place in the room''s order.';
comment on column public.redacted_events.sender is 'Who sent it.';
comment on column public.redacted_events.sender_name is 'Their name as a client shows it.';
comment on column public.redacted_events.sent_at is 'When it was sent.';
comment on column public.redacted_events.redacted_by is 'The event that redacted it.';
comment on column public.redacted_events.redacted_by_sender is 'Who sent that one; null: it is not archived.';
comment on column public.redacted_events.redacted_by_name is 'Their name as a client shows it.';
comment on column public.redacted_events.reason is 'The reason that they gave; null: none.';
comment on column public.redacted_events.redacted_at is 'When it was redacted, by the time of that event; null: not known.';
