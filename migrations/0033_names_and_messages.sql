-- The views show what a Matrix client shows: each follows the specification's rules for what it lists. A field of another
-- type than the specification's counts as absent.

create function archive.text_of(value jsonb) returns text
    language sql immutable parallel safe
    return case jsonb_typeof(value) when 'string' then value #>> '{}' end;
comment on function archive.text_of(jsonb) is 'A JSON string as text; null for any other value.';

create function archive.name_of(value jsonb) returns text
    language sql immutable parallel safe
    return case when archive.text_of(value) ~ '[^\s\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]' then archive.text_of(value) end;
comment on function archive.name_of(jsonb) is 'A JSON string as a name; null for any other value and for a string in which nothing can be seen.';

create function archive.mxc_of(value jsonb) returns text
    language sql immutable parallel safe
    return case when archive.text_of(value) like 'mxc://%' then archive.text_of(value) end;
comment on function archive.mxc_of(jsonb) is 'A JSON string that is the URI of media; null for any other value.';

-- Specification, "m.room.topic" (m.text), and MSC1767: an array of representations, of which the first counts that can be
-- understood; without mimetype it is plain text. Before that the same was a string, or stood in m.message.
create function archive.plain_text(content jsonb) returns text
    language sql immutable parallel safe
    return coalesce(
        jsonb_path_query_first(content, '$."m.text"[*] ? ((!exists (@.mimetype) || @.mimetype starts with "text/plain") && @.body.type() == "string").body') #>> '{}',
        archive.text_of(content -> 'org.matrix.msc1767.text'),
        archive.text_of(content -> 'm.text'),
        jsonb_path_query_first(content, '$."org.matrix.msc1767.text"[*] ? ((!exists (@.mimetype) || @.mimetype starts with "text/plain") && @.body.type() == "string").body') #>> '{}',
        jsonb_path_query_first(content, '$."m.message"[*] ? ((!exists (@.mimetype) || @.mimetype starts with "text/plain") && @.body.type() == "string").body') #>> '{}',
        jsonb_path_query_first(content, '$."org.matrix.msc1767.message"[*] ? ((!exists (@.mimetype) || @.mimetype starts with "text/plain") && @.body.type() == "string").body') #>> '{}');
comment on function archive.plain_text(jsonb) is 'The plain text of extensible content: m.text, or one of the forms that it had before; null: none.';

create function archive.html_text(content jsonb) returns text
    language sql immutable parallel safe
    return coalesce(
        jsonb_path_query_first(content, '$."m.text"[*] ? (@.mimetype starts with "text/html" && @.body.type() == "string").body') #>> '{}',
        archive.text_of(content -> 'org.matrix.msc1767.html'),
        archive.text_of(content -> 'm.html'),
        jsonb_path_query_first(content, '$."org.matrix.msc1767.text"[*] ? (@.mimetype starts with "text/html" && @.body.type() == "string").body') #>> '{}',
        jsonb_path_query_first(content, '$."m.message"[*] ? (@.mimetype starts with "text/html" && @.body.type() == "string").body') #>> '{}',
        jsonb_path_query_first(content, '$."org.matrix.msc1767.message"[*] ? (@.mimetype starts with "text/html" && @.body.type() == "string").body') #>> '{}');
comment on function archive.html_text(jsonb) is 'The HTML of extensible content: as archive.plain_text.';

-- Specification, "Rich replies": clients remove the fallback that older ones put before a reply.
create function archive.without_reply_fallback(body text) returns text
    language sql immutable parallel safe
    return regexp_replace(body, '^(?:> [^\n]*(?:\n|$))+\n?', '');
comment on function archive.without_reply_fallback(text) is 'A reply''s plain text without the lines before it that quote what it answers.';

create function archive.without_html_reply_fallback(formatted_body text) returns text
    language sql immutable parallel safe
    return regexp_replace(formatted_body, '^<mx-reply(?:\s[^>]*?)??>.*?</mx-reply>', '');
comment on function archive.without_html_reply_fallback(text) is 'A reply''s HTML without the mx-reply element before it.';

create function archive.poll_question(content jsonb) returns text
    language sql immutable parallel safe
    return coalesce(
        archive.plain_text(content #> '{m.poll,question}'),
        archive.plain_text(content #> '{org.matrix.msc3381.poll.start,question}'),
        archive.plain_text(content #> '{m.poll.start,question}'));
comment on function archive.poll_question(jsonb) is 'What a poll asks (MSC3381); null: nothing.';

-- Names alike are looked up by a hash: a name may be longer than what an index entry holds, and what an index or its
-- statistics hold of a name would outlast its redaction.
create index events_member_name on archive.events (room_key, hashtextextended(content ->> 'displayname', 0))
    where type = 'm.room.member';
comment on index archive.events_member_name is 'The memberships that show a name, to tell apart members who call themselves alike.';

create function archive.level_of(value jsonb) returns numeric
    language sql immutable parallel safe
    return case jsonb_typeof(value)
           when 'number' then trunc(value::numeric)
           when 'string' then case when value #>> '{}' ~ '^\s*[+-]?[0-9]{1,18}\s*$' then (value #>> '{}')::numeric end
           end;
comment on function archive.level_of(jsonb) is 'A power level: a whole number, in old rooms also as a string; null for any other value.';

-- Apart, so that PostgreSQL can put archive.creators into the query that calls it.
create function archive.additional_creators(sender text, content jsonb) returns text[]
    language sql immutable parallel safe
    return array(
        select user_id #>> '{}'
        from jsonb_array_elements(case jsonb_typeof(content -> 'additional_creators')
                                  when 'array' then content -> 'additional_creators' else '[]' end)
            with ordinality as additional (user_id, place)
        where jsonb_typeof(user_id) = 'string' and user_id #>> '{}' <> sender
        group by user_id
        order by min(place));
comment on function archive.additional_creators(text, jsonb) is 'Who a create event names as creators besides its sender.';

create function archive.creators(room_version text, sender text, content jsonb) returns text[]
    language sql immutable parallel safe
    return case
           when room_version in ('1', '2', '3', '4', '5', '6', '7', '8', '9', '10')
               then array[coalesce(archive.text_of(content -> 'creator'), sender)]
           when room_version = '11' or content -> 'additional_creators' is null then array[sender]
           else array[sender] || archive.additional_creators(sender, content)
           end;
comment on function archive.creators(text, text, jsonb) is 'Who created a room, by its version: content.creator to 10, the create event''s sender in 11, also additional_creators from 12 on.';

create function archive.power_level(levels jsonb, room_version text, creators text[], user_id text) returns numeric
    language sql immutable parallel safe
    return case
           when user_id = any (creators) and room_version not in ('1', '2', '3', '4', '5', '6', '7', '8', '9', '10', '11')
               then 'Infinity'
           when levels is null then case when user_id = any (creators) then 100 else 0 end
           else coalesce(archive.level_of(levels -> 'users' -> user_id), archive.level_of(levels -> 'users_default'), 0)
           end;
comment on function archive.power_level(jsonb, text, text[], text) is 'A user''s power level (specification, "m.room.power_levels"); infinite for creators from room version 12 on.';

create or replace view public.members as
select r.room_id, s.state_key as user_id, archive.text_of(e.content -> 'membership') as membership,
       known.display_name, known.avatar_url,
       archive.text_of(e.content -> 'reason') as reason, e.sender, e.event_id, archive.sent_at(e.origin_server_ts) as sent_at,
       -- Specification, "Calculating the display name for a user".
       case when known.display_name is null then s.state_key
            when exists (
                select from archive.events alike
                join archive.current_state held
                    on held.room_key = alike.room_key and held.type = 'm.room.member' and held.state_key = alike.state_key
                    and held.event_id = alike.event_id
                where alike.room_key = s.room_key and alike.type = 'm.room.member'
                  and hashtextextended(alike.content ->> 'displayname', 0) = hashtextextended(known.display_name, 0)
                  and archive.text_of(alike.content -> 'displayname') = known.display_name
                  and alike.content ->> 'membership' in ('join', 'invite') and alike.state_key <> s.state_key)
                then known.display_name || ' (' || s.state_key || ')'
            else known.display_name end as shown_name,
       archive.power_level(levels.content, r.room_version, made.creators, s.state_key) as power_level,
       s.room_key
from archive.current_state s
join archive.rooms r using (room_key)
join archive.events e on e.room_key = s.room_key and e.event_id = s.event_id
-- A kick, a ban and many a leave have no profile: clients go on showing that of the membership before.
cross join lateral (
    select case
           when e.content ->> 'membership' not in ('leave', 'ban') then null
           when e.prev_content ->> 'membership' in ('join', 'invite', 'knock') then e.prev_content
           else (select before.content
                 from archive.events before
                 where before.room_key = s.room_key and before.type = 'm.room.member' and before.state_key = s.state_key
                   and before.content ->> 'membership' in ('join', 'invite', 'knock')
                 order by before.position desc nulls last
                 limit 1)
           end as content
) last
cross join lateral (
    select coalesce(archive.name_of(e.content -> 'displayname'), archive.name_of(last.content -> 'displayname')) as display_name,
           coalesce(archive.mxc_of(e.content -> 'avatar_url'), archive.mxc_of(last.content -> 'avatar_url')) as avatar_url
    -- Kept apart, it is worked out once.
    offset 0
) known
left join archive.current_state level_state
    on level_state.room_key = s.room_key and level_state.type = 'm.room.power_levels' and level_state.state_key = ''
left join archive.events levels on levels.room_key = level_state.room_key and levels.event_id = level_state.event_id
left join archive.current_state create_state
    on create_state.room_key = s.room_key and create_state.type = 'm.room.create' and create_state.state_key = ''
left join archive.events "create" on "create".room_key = create_state.room_key and "create".event_id = create_state.event_id
cross join lateral (select archive.creators(r.room_version, "create".sender, "create".content) as creators offset 0) made
where s.type = 'm.room.member';
comment on view public.members is 'Current membership of every user that a room has seen.';
comment on column public.members.membership is 'join, leave, invite, ban or knock.';
comment on column public.members.display_name is 'Display name in this room, of who has left or was banned the last one; null: none. Others may have the same: see shown_name.';
comment on column public.members.avatar_url is 'mxc: URI of the avatar in this room, of who has left or was banned the last one; null: none.';
comment on column public.members.shown_name is 'What a client shows: the display name, followed by the user id where another member has the same; the user id where there is none.';
comment on column public.members.power_level is 'Power level; infinite for creators from room version 12 on.';
comment on column public.members.room_key is 'The room''s internal key, for room_key(…).';

create or replace view public.messages as
select r.room_id, e.event_id, e.position, e.sender,
       coalesce((select m.shown_name from public.members m where m.room_key = e.room_key and m.user_id = e.sender), e.sender)
           as sender_name,
       archive.sent_at(e.origin_server_ts) as sent_at,
       archive.text_of(shown.content -> 'msgtype') as msgtype,
       case when e.type in ('m.poll.start', 'org.matrix.msc3381.poll.start')
            then coalesce(archive.poll_question(shown.content), archive.plain_text(shown.content))
            -- An edit has no fallback. Nor has a reply whose HTML has none: then the quotation is the sender's own.
            when said.is_reply and edit.content is null
                 and (shown.content ->> 'format' is distinct from 'org.matrix.custom.html'
                      or shown.content ->> 'formatted_body' is null or shown.content ->> 'formatted_body' like '<mx-reply%')
            then archive.without_reply_fallback(archive.text_of(shown.content -> 'body'))
            else coalesce(archive.text_of(shown.content -> 'body'), archive.plain_text(shown.content)) end as body,
       archive.sent_at(edit.origin_server_ts) as edited_at,
       coalesce(edit.edit_count, 0) as edit_count,
       e.redacted_by is not null as redacted,
       e.relates_to, e.rel_type,
       -- What relates to another event cannot be the root of a thread (specification, "Threading").
       case when e.rel_type = 'm.thread' and root.rel_type is null then e.relates_to end as thread_root,
       case when said.is_reply then archive.text_of(e.content #> '{m.relates_to,m.in_reply_to,event_id}') end as in_reply_to,
       e.room_key,
       e.type,
       case when shown.content ->> 'format' = 'org.matrix.custom.html'
            then case when said.is_reply and edit.content is null
                      then archive.without_html_reply_fallback(archive.text_of(shown.content -> 'formatted_body'))
                      else archive.text_of(shown.content -> 'formatted_body') end
            else archive.html_text(shown.content) end as formatted_body,
       case when shown.content ->> 'msgtype' in ('m.file', 'm.image', 'm.audio', 'm.video')
            then coalesce(archive.text_of(shown.content -> 'filename'), archive.text_of(shown.content -> 'body')) end as filename,
       case when shown.content ->> 'msgtype' = 'm.location' or e.type in ('m.location', 'org.matrix.msc3488.location')
            then coalesce(archive.text_of(shown.content -> 'geo_uri'), archive.text_of(shown.content #> '{m.location,uri}'),
                          archive.text_of(shown.content #> '{org.matrix.msc3488.location,uri}')) end as geo_uri
from archive.events e
join archive.rooms r using (room_key)
left join archive.events root on root.room_key = e.room_key and root.event_id = e.relates_to
left join lateral (
    -- A valid edit is by the same sender, of the same type, with m.new_content, of an event that is neither redacted nor
    -- state; the latest wins by origin_server_ts, then by event id (specification, "Event replacements"). That of an
    -- encrypted edit is encrypted.
    select x.content, x.origin_server_ts, count(*) over () as edit_count
    from archive.events x
    where x.room_key = e.room_key and x.relates_to = e.event_id and x.rel_type = 'm.replace'
      and x.sender = e.sender and x.type = e.type and x.state_key is null and x.redacted_by is null
      and e.redacted_by is null
      and (x.type = 'm.room.encrypted' or jsonb_typeof(x.content -> 'm.new_content') = 'object')
    order by x.origin_server_ts desc nulls last, x.event_id desc
    limit 1
) edit on true
cross join lateral (
    -- What an encrypted event says is not in its content, whatever else is.
    select case when e.type <> 'm.room.encrypted' then coalesce(edit.content -> 'm.new_content', e.content) end as content
) shown
cross join lateral (
    -- In a thread, m.in_reply_to may be there only for clients that know no threads.
    select jsonb_typeof(e.content #> '{m.relates_to,m.in_reply_to,event_id}') = 'string'
           and not (e.rel_type is not distinct from 'm.thread'
                    and e.content @> '{"m.relates_to": {"is_falling_back": true}}') as is_reply
) said
where e.state_key is null
  -- Whether an edit is valid or not, it is no message of its own.
  and (e.rel_type is distinct from 'm.replace' or e.relates_to is null)
  -- One that was redacted with the message that it edits says no more that it was one; that message does.
  and (e.redacted_by is null
       or not exists (select from archive.events redaction
                      where redaction.room_key = e.room_key and redaction.event_id = e.redacted_by
                        and redaction.redacts <> e.event_id))
  and (e.type in ('m.room.message', 'm.room.encrypted', 'm.sticker', 'm.poll.start', 'org.matrix.msc3381.poll.start',
                  'm.poll.end', 'org.matrix.msc3381.poll.end', 'm.location', 'org.matrix.msc3488.location')
       -- Of a type that a client does not know it shows the text, if there is one (MSC1767).
       or (e.type not in ('m.reaction', 'm.room.redaction', 'm.poll.response', 'org.matrix.msc3381.poll.response', 'm.beacon',
                          'org.matrix.msc3672.beacon')
           and e.content ?| array['m.text', 'org.matrix.msc1767.text', 'm.message', 'org.matrix.msc1767.message']));
comment on view public.messages is 'What a reader of the room sees as messages: text and media, stickers, polls, locations, and the text of whatever else brings one; order by position. The latest valid edit is applied, edits themselves are not listed; an encrypted message has no body. Of an edit that was redacted alone nothing tells any more that it was one: it is listed as a redacted message.';
comment on column public.messages.sender_name is 'Sender''s name as a client shows it, by their current membership: members.shown_name; the user id of who has none.';
comment on column public.messages.msgtype is 'm.text, m.image, …; null if redacted or encrypted, or of a type that has none.';
comment on column public.messages.body is 'Text as last edited, without the quotation that older clients put before a reply; a poll''s question; a file''s caption or, if it is the same as filename, name. Null if redacted, encrypted or no text.';
comment on column public.messages.edited_at is 'When the latest valid edit was sent; null: never edited.';
comment on column public.messages.relates_to is 'Event that the message names in m.relates_to.';
comment on column public.messages.rel_type is 'How it relates, as the message says.';
comment on column public.messages.thread_root is 'First message of the thread that it belongs to.';
comment on column public.messages.in_reply_to is 'Message that it answers; null in a thread where the answer is only for clients that know no threads.';
comment on column public.messages.type is 'Event type: m.room.message, m.room.encrypted, m.sticker, m.poll.start, …';
comment on column public.messages.formatted_body is 'The same text as HTML, which clients prefer, and must clean before they show it; null: none.';
comment on column public.messages.filename is 'Of a file, image, audio or video: its name. If body differs, that is a caption.';
comment on column public.messages.geo_uri is 'Of a location: its geo: URI.';

-- A reaction counts once for each sender and key, as long as it and its target stand; neither a reaction nor an edit can be
-- reacted to (specification, "Event annotations and reactions").
create or replace view public.reactions as
select r.room_id, e.event_id, e.position, e.relates_to, archive.text_of(e.content #> '{m.relates_to,key}') as key, e.sender,
       coalesce((select m.shown_name from public.members m where m.room_key = e.room_key and m.user_id = e.sender), e.sender)
           as sender_name,
       archive.sent_at(e.origin_server_ts) as sent_at,
       e.room_key
from archive.events e
join archive.rooms r using (room_key)
join archive.events target on target.room_key = e.room_key and target.event_id = e.relates_to
where e.rel_type = 'm.annotation' and e.relates_to is not null and e.type = 'm.reaction' and e.state_key is null
  and e.redacted_by is null and archive.text_of(e.content #> '{m.relates_to,key}') <> ''
  and target.redacted_by is null
  and (target.rel_type is null or target.rel_type not in ('m.annotation', 'm.replace') or target.relates_to is null)
  and not exists (
      select from archive.events earlier
      where earlier.room_key = e.room_key and earlier.relates_to = e.relates_to and earlier.rel_type = 'm.annotation'
        and earlier.type = 'm.reaction' and earlier.state_key is null and earlier.redacted_by is null
        and earlier.sender = e.sender and earlier.content #> '{m.relates_to,key}' = e.content #> '{m.relates_to,key}'
        and (earlier.position, earlier.event_id) < (e.position, e.event_id));
comment on view public.reactions is 'Reactions that stand, each once by target, sender and key: of equal ones the first. Those to a redacted message, and to an event that the archive does not have in the room, are not shown.';
comment on column public.reactions.key is 'The reaction, mostly an emoji; never empty.';
comment on column public.reactions.sender_name is 'Their name as a client shows it, as in messages.';
