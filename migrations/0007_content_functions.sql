-- Functions that read event content, for the views. An event's content comes from strangers. A field of another type than
-- the specification's counts as absent, and no value may raise an error.

create function archive.text_of(value jsonb) returns text
    language sql immutable parallel safe
    return case jsonb_typeof(value) when 'string' then value #>> '{}' end;
comment on function archive.text_of(jsonb) is 'A JSON string as text; null for any other value.';

create function archive.name_of(value jsonb) returns text
    language sql immutable parallel safe
    return case when archive.text_of(value) ~ '[^\s\u0085\u00a0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]'
                then archive.text_of(value) end;
comment on function archive.name_of(jsonb) is 'A JSON string as a name; null for any other value and for a string without any visible character.';

create function archive.mxc_of(value jsonb) returns text
    language sql immutable parallel safe
    return case when archive.text_of(value) like 'mxc://%' then archive.text_of(value) end;
comment on function archive.mxc_of(jsonb) is 'A JSON string that is an mxc: URI; null for any other value.';

create function archive.alias_of(value jsonb) returns text
    language sql immutable parallel safe
    return case when archive.text_of(value) like '#%:%' then archive.text_of(value) end;
comment on function archive.alias_of(jsonb) is 'A JSON string that is a room alias; null for any other value.';

-- Specification, "m.room.topic" (m.text), and MSC1767: content has an array of representations. The first one that a client
-- understands counts; without mimetype it is plain text. Earlier forms were a string, or an array in m.message.
create function archive.plain_text(content jsonb) returns text
    language sql immutable parallel safe
    return coalesce(
        jsonb_path_query_first(content, '$."m.text"[*] ? ((!(@.mimetype.type() == "string") || @.mimetype starts with "text/plain") && @.body.type() == "string").body') #>> '{}',
        archive.text_of(content -> 'org.matrix.msc1767.text'),
        archive.text_of(content -> 'm.text'),
        jsonb_path_query_first(content, '$."org.matrix.msc1767.text"[*] ? ((!(@.mimetype.type() == "string") || @.mimetype starts with "text/plain") && @.body.type() == "string").body') #>> '{}',
        jsonb_path_query_first(content, '$."m.message"[*] ? ((!(@.mimetype.type() == "string") || @.mimetype starts with "text/plain") && @.body.type() == "string").body') #>> '{}',
        jsonb_path_query_first(content, '$."org.matrix.msc1767.message"[*] ? ((!(@.mimetype.type() == "string") || @.mimetype starts with "text/plain") && @.body.type() == "string").body') #>> '{}');
comment on function archive.plain_text(jsonb) is 'The plain text of extensible content: m.text, or one of its earlier forms; null: none.';

create function archive.html_text(content jsonb) returns text
    language sql immutable parallel safe
    return coalesce(
        jsonb_path_query_first(content, '$."m.text"[*] ? (@.mimetype starts with "text/html" && @.body.type() == "string").body') #>> '{}',
        archive.text_of(content -> 'org.matrix.msc1767.html'),
        archive.text_of(content -> 'm.html'),
        jsonb_path_query_first(content, '$."org.matrix.msc1767.text"[*] ? (@.mimetype starts with "text/html" && @.body.type() == "string").body') #>> '{}',
        jsonb_path_query_first(content, '$."m.message"[*] ? (@.mimetype starts with "text/html" && @.body.type() == "string").body') #>> '{}',
        jsonb_path_query_first(content, '$."org.matrix.msc1767.message"[*] ? (@.mimetype starts with "text/html" && @.body.type() == "string").body') #>> '{}');
comment on function archive.html_text(jsonb) is 'The HTML of extensible content: m.text, or one of its earlier forms; null: none.';

create function archive.topic_of(content jsonb) returns text
    language sql immutable parallel safe
    return case when archive.name_of(content -> 'topic') is not null
                then coalesce(archive.plain_text(content -> 'm.topic'), archive.text_of(content -> 'topic')) end;
comment on function archive.topic_of(jsonb) is 'The topic of an m.room.topic event. Null if it has no topic, whatever else it has.';

-- Specification, "Rich replies": clients remove the fallback that older clients put before a reply.
create function archive.without_reply_fallback(body text) returns text
    language sql immutable parallel safe
    return regexp_replace(body, '^(?:> [^\n]*(?:\n|$))+\n?', '');
comment on function archive.without_reply_fallback(text) is 'Plain text of a reply without the lines before it that quote the answered message.';

create function archive.without_html_reply_fallback(formatted_body text) returns text
    language sql immutable parallel safe
    return regexp_replace(formatted_body, '^<mx-reply(?:\s[^>]*?)??>.*?</mx-reply>', '');
comment on function archive.without_html_reply_fallback(text) is 'HTML of a reply without the mx-reply element before it.';

-- Polls (MSC3381), also with the unstable names that clients use: org.matrix.msc3381.*.
create function archive.poll_of(content jsonb) returns jsonb
    language sql immutable parallel safe
    return coalesce(content -> 'm.poll', content -> 'org.matrix.msc3381.poll.start', content -> 'm.poll.start');
comment on function archive.poll_of(jsonb) is 'The object in a poll''s content that describes the poll.';

create function archive.poll_question(content jsonb) returns text
    language sql immutable parallel safe
    return coalesce(
        archive.plain_text(content #> '{m.poll,question}'),
        archive.plain_text(content #> '{org.matrix.msc3381.poll.start,question}'),
        archive.plain_text(content #> '{m.poll.start,question}'));
comment on function archive.poll_question(jsonb) is 'The question of a poll; null: none.';

create function archive.poll_answers(content jsonb) returns jsonb
    language sql immutable parallel safe
    return case when jsonb_typeof(archive.poll_of(content) -> 'answers') = 'array' then coalesce(
        (select jsonb_agg(jsonb_build_object(
                    'id', coalesce(archive.text_of(answer -> 'm.id'), archive.text_of(answer -> 'id')),
                    'text', archive.plain_text(answer)) order by place)
         from jsonb_array_elements(archive.poll_of(content) -> 'answers') with ordinality as given (answer, place)
         where place <= 20 and coalesce(archive.text_of(answer -> 'm.id'), archive.text_of(answer -> 'id')) is not null),
        '[]') else '[]' end;
comment on function archive.poll_answers(jsonb) is 'The possible answers of a poll: [{"id", "text"}], at most the first 20.';

create function archive.poll_selection_limit(content jsonb) returns int
    language sql immutable parallel safe
    return case when jsonb_typeof(archive.poll_of(content) -> 'max_selections') = 'number'
                then case when (archive.poll_of(content) -> 'max_selections')::numeric >= 1
                          then trunc(least((archive.poll_of(content) -> 'max_selections')::numeric, 20))::int else 1 end
                else 1 end;
comment on function archive.poll_selection_limit(jsonb) is 'How many answers of a poll a voter may choose; 1 if it does not say.';

create function archive.poll_selections(content jsonb) returns jsonb
    language sql immutable parallel safe
    return coalesce(content -> 'm.selections', content #> '{org.matrix.msc3381.poll.response,answers}',
                    content #> '{m.poll.response,answers}');
comment on function archive.poll_selections(jsonb) is 'The answers that a vote chooses.';

-- What a message says: its own content, or the m.new_content of an edit. PostgreSQL puts both functions into the query that
-- calls them.
create function archive.message_body(type text, content jsonb, in_reply_to text, is_edit boolean) returns text
    language sql immutable parallel safe
    return case when type in ('m.poll.start', 'org.matrix.msc3381.poll.start')
                then coalesce(archive.poll_question(content), archive.plain_text(content))
                -- An edit has no fallback. Nor has a reply whose HTML has none: then the quotation is the sender's own.
                when in_reply_to is not null and not is_edit
                     and (content ->> 'format' is distinct from 'org.matrix.custom.html'
                          or archive.text_of(content -> 'formatted_body') is null
                          or content ->> 'formatted_body' like '<mx-reply%')
                then coalesce(archive.without_reply_fallback(archive.text_of(content -> 'body')), archive.plain_text(content))
                else coalesce(archive.text_of(content -> 'body'), archive.plain_text(content)) end;
comment on function archive.message_body(text, jsonb, text, boolean) is 'The text of a message, without the quotation that older clients put before a reply; the question of a poll; null: none.';

create function archive.message_html(content jsonb, in_reply_to text, is_edit boolean) returns text
    language sql immutable parallel safe
    return case when content ->> 'format' = 'org.matrix.custom.html'
                then case when in_reply_to is not null and not is_edit
                          then archive.without_html_reply_fallback(archive.text_of(content -> 'formatted_body'))
                          else archive.text_of(content -> 'formatted_body') end
                else archive.html_text(content) end;
comment on function archive.message_html(jsonb, text, boolean) is 'The text of a message as HTML, without the quotation that older clients put before a reply; null: none.';

-- Live locations (MSC3672, MSC3489).
create function archive.milliseconds_of(value jsonb) returns bigint
    language sql immutable parallel safe
    return case when jsonb_typeof(value) = 'number'
                then case when value::numeric between 0 and 9007199254740991 then trunc(value::numeric)::bigint end end;
comment on function archive.milliseconds_of(jsonb) is 'A time or a duration in milliseconds; null for any other value.';

create function archive.beacon_of(content jsonb) returns jsonb
    language sql immutable parallel safe
    return coalesce(content -> 'm.beacon_info', content -> 'org.matrix.msc3672.beacon_info', content);
comment on function archive.beacon_of(jsonb) is 'The object in the content of a beacon_info event that describes the live location.';

create function archive.measured_ts(content jsonb, origin_server_ts bigint) returns bigint
    language sql immutable parallel safe
    return coalesce(archive.milliseconds_of(content -> 'm.ts'), archive.milliseconds_of(content -> 'org.matrix.msc3488.ts'),
                    case when origin_server_ts between -9007199254740991 and 9007199254740991 then origin_server_ts end);
comment on function archive.measured_ts(jsonb, bigint) is 'When a location was measured, in milliseconds since 1970; null if it says no time that can be.';

create function archive.level_of(value jsonb) returns numeric
    language sql immutable parallel safe
    return case jsonb_typeof(value)
           when 'number' then trunc(value::numeric)
           when 'string' then case when value #>> '{}' ~ '^\s*[+-]?[0-9]{1,18}\s*$' then (value #>> '{}')::numeric end
           end;
comment on function archive.level_of(jsonb) is 'A power level: a whole number, in old rooms also as a string; null for any other value.';

-- A function of its own, so that PostgreSQL can put archive.creators into the query that calls it.
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
comment on function archive.additional_creators(text, jsonb) is 'The creators that a create event names besides its sender.';

create function archive.creators(room_version text, sender text, content jsonb) returns text[]
    language sql immutable parallel safe
    return case
           when room_version in ('1', '2', '3', '4', '5', '6', '7', '8', '9', '10')
               then array[coalesce(archive.text_of(content -> 'creator'), sender)]
           when room_version = '11' or content -> 'additional_creators' is null then array[sender]
           else array[sender] || archive.additional_creators(sender, content)
           end;
comment on function archive.creators(text, text, jsonb) is 'Who created a room, by its version: content.creator up to 10; the create event''s sender in 11; from 12 on also additional_creators.';

create function archive.power_level(levels jsonb, room_version text, creators text[], user_id text) returns numeric
    language sql immutable parallel safe
    return case
           when user_id = any (creators) and room_version not in ('1', '2', '3', '4', '5', '6', '7', '8', '9', '10', '11')
               then 'Infinity'
           when levels is null then case when user_id = any (creators) then 100 else 0 end
           else coalesce(archive.level_of(levels -> 'users' -> user_id), archive.level_of(levels -> 'users_default'), 0)
           end;
comment on function archive.power_level(jsonb, text, text[], text) is 'A user''s power level (specification, "m.room.power_levels"); infinite for creators from room version 12 on.';

-- Specification, "Calculating the display name for a room".
create function archive.list_names(names text[], others bigint) returns text
    language sql immutable parallel safe
    return (
        select case when cardinality(items) = 0 then null
                    when cardinality(items) <= 2 then array_to_string(items, ' and ')
                    else array_to_string(items[:cardinality(items) - 1], ', ') || ', and ' || items[cardinality(items)] end
        from (select names || case when others = 1 then array['1 other']
                                   when others > 1 then array[others || ' others'] else '{}' end) as list (items));
comment on function archive.list_names(text[], bigint) is 'Names in a sentence, with the number of others: A and B; A, B, and 3 others.';

-- A security definer, because readers may not read archive.accounts.
create function archive.account_user_id() returns text
    language sql stable parallel safe security definer set search_path = pg_catalog, pg_temp
    -- As a text: Citus reads that alone.
    as $$ select a.user_id from archive.accounts a order by a.synced_at desc nulls last, a.account_key limit 1 $$;
comment on function archive.account_user_id() is 'User id of the archiving account. Its own name is not part of a room''s name.';

-- The members of a room.
--
-- A display name is shown with the user id if another member with membership join or invite has the same (specification,
-- "Calculating the display name for a user"). So a change of one member can change the names of others: exactly if the number
-- of such members with a name changes between 0, 1 and more. Only then are the others looked at.
create function archive.refresh_members(room_id text, user_ids text[]) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    changed_names text[];
begin
    with asked as (
        select distinct asked.user_id from unnest(user_ids) as asked (user_id)
    ),
    -- The row as it is and as it is to be, still without shown_name. Each lateral reads one row by its key.
    compared as materialized (
        select asked.user_id, old.old_row, event.event_id as new_event_id, event.membership as new_membership,
               coalesce(archive.name_of(event.content -> 'displayname'), archive.name_of(event.last -> 'displayname'))
                   as new_name,
               coalesce(archive.mxc_of(event.content -> 'avatar_url'), archive.mxc_of(event.last -> 'avatar_url'))
                   as new_avatar,
               coalesce(event.membership in ('join', 'invite'), false) as new_counts
        from asked
        left join lateral (
            select m as old_row from archive.members m where m.room_id = room_id and m.user_id = asked.user_id limit 1
        ) old on true
        left join lateral (
            select e.event_id, e.content, archive.text_of(e.content -> 'membership') as membership,
                   -- A kick, a ban and many leaves have no profile. Clients go on showing that of the membership before.
                   case
                   when e.content ->> 'membership' not in ('leave', 'ban') then null
                   when e.prev_content ->> 'membership' in ('join', 'invite', 'knock') then e.prev_content
                   else (select before.content
                         from archive.events before
                         where before.room_id = room_id and before.type = 'm.room.member' and before.state_key = asked.user_id
                           and before.content ->> 'membership' in ('join', 'invite', 'knock')
                         order by before.position desc nulls last, before.event_id
                         limit 1)
                   end as last
            from archive.current_state s
            join archive.events e on e.room_id = room_id and e.event_id = s.event_id
            where s.room_id = room_id and s.type = 'm.room.member' and s.state_key = asked.user_id
            limit 1
        ) event on true
    ),
    gone as (
        delete from archive.members m
        where m.room_id = room_id
          and m.user_id = any (array(select c.user_id from compared c
                                     where (c.old_row).user_id is not null and c.new_event_id is null))
    ),
    -- Per name: how many of the asked users count for it, before and after, and the rows that are to have it.
    named as (
        select side.name, sum(side.old_counts) as old_asked, sum(side.new_counts) as new_asked,
               array_agg(side.new_row) filter (where side.is_new) as new_rows
        from (
            select (c.old_row).display_name as name,
                   coalesce((c.old_row).membership in ('join', 'invite'), false)::int as old_counts, 0 as new_counts,
                   null::archive.members as new_row, false as is_new
            from compared c
            where (c.old_row).display_name is not null
            union all
            select c.new_name, 0, c.new_counts::int,
                   -- shown_name is only filled to make a row of it.
                   row(room_id, c.user_id, c.new_event_id, c.new_membership, c.new_name, c.new_avatar, '')::archive.members,
                   true
            from compared c
            where c.new_event_id is not null
        ) side
        group by side.name
    ),
    -- How many of the other members count for it: 0, 1 or 2, where 2 is any larger number.
    counted as materialized (
        select named.*,
               (select count(*)
                from (select from archive.members m
                      where m.room_id = room_id and hashtextextended(m.display_name, 0) = hashtextextended(named.name, 0)
                        and m.display_name = named.name and m.membership in ('join', 'invite')
                      limit named.old_asked + 2) known) - named.old_asked as others
        from named
    ),
    fresh as (
        select n.room_id, n.user_id, n.event_id, n.membership, n.display_name, n.avatar_url,
               case when n.display_name is null then n.user_id
                    when counted.others + counted.new_asked
                             - coalesce(n.membership in ('join', 'invite'), false)::int > 0
                        then n.display_name || ' (' || n.user_id || ')'
                    else n.display_name end as shown_name
        from counted cross join lateral unnest(counted.new_rows) n
    ),
    stored as (
        insert into archive.members as m (room_id, user_id, event_id, membership, display_name, avatar_url, shown_name)
        select f.* from fresh f
        where (select old from archive.members old where old.room_id = room_id and old.user_id = f.user_id)
            is distinct from row(f.room_id, f.user_id, f.event_id, f.membership, f.display_name, f.avatar_url,
                                 f.shown_name)::archive.members
        on conflict on constraint members_pkey do update
        set event_id = excluded.event_id, membership = excluded.membership, display_name = excluded.display_name,
            avatar_url = excluded.avatar_url, shown_name = excluded.shown_name
    )
    select array_agg(c.name) into changed_names
    from counted c
    where c.name is not null and least(c.others + c.old_asked, 2) <> least(c.others + c.new_asked, 2);
    if changed_names is null then
        return;
    end if;
    -- The others with those names. What was stored above is right already, and so is not met by the last condition.
    update archive.members m
    set shown_name = named.shown_name
    from (
        select other.user_id,
               case when other.counting - coalesce(other.membership in ('join', 'invite'), false)::int > 0
                    then other.display_name || ' (' || other.user_id || ')'
                    else other.display_name end as shown_name,
               other.shown_name as old_name
        from unnest(changed_names) as changed (name)
        cross join lateral (
            select count(*) as counting
            from (select from archive.members m
                  where m.room_id = room_id and hashtextextended(m.display_name, 0) = hashtextextended(changed.name, 0)
                    and m.display_name = changed.name and m.membership in ('join', 'invite')
                  limit 2) known
            offset 0
        ) known
        cross join lateral (
            select m.user_id, m.display_name, m.membership, m.shown_name, known.counting
            from archive.members m
            where m.room_id = room_id and hashtextextended(m.display_name, 0) = hashtextextended(changed.name, 0)
              and m.display_name = changed.name
            offset 0
        ) other
    ) named
    where m.room_id = room_id and m.user_id = named.user_id and named.shown_name <> named.old_name;
end
$$;
comment on function archive.refresh_members(text, text[]) is 'Makes the rows of archive.members of these users agree with archive.current_state and archive.events, and renews the shown names of all others with the same names. To be called by the transaction that moves their state or changes their events.';

-- History brings older member events. They only matter to members whose own event has no profile.
create function archive.refresh_left_members(room_id text, user_ids text[]) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    left_ids constant text[] := array(
        select m.user_id from archive.members m
        where m.room_id = room_id and m.user_id = any (user_ids)
          and (m.membership is null or m.membership in ('leave', 'ban')));
begin
    if left_ids <> '{}' then
        perform archive.refresh_members(room_id, left_ids);
    end if;
end
$$;
comment on function archive.refresh_left_members(text, text[]) is 'archive.refresh_members for those of these users that have left or were banned. To be called by the transaction that stores older member events of them.';
revoke execute on function archive.refresh_members(text, text[]), archive.refresh_left_members(text, text[]) from public;
