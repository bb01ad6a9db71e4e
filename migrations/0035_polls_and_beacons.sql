-- Polls (MSC3381), with the unstable names under which clients send them: org.matrix.msc3381.*.
create function archive.poll_of(content jsonb) returns jsonb
    language sql immutable parallel safe
    return coalesce(content -> 'm.poll', content -> 'org.matrix.msc3381.poll.start', content -> 'm.poll.start');
comment on function archive.poll_of(jsonb) is 'The block of a poll''s content that describes it.';

create function archive.poll_answers(content jsonb) returns jsonb
    language sql immutable parallel safe
    return case when jsonb_typeof(archive.poll_of(content) -> 'answers') = 'array' then coalesce(
        (select jsonb_agg(jsonb_build_object(
                    'id', coalesce(archive.text_of(answer -> 'm.id'), archive.text_of(answer -> 'id')),
                    'text', archive.plain_text(answer)) order by place)
         from jsonb_array_elements(archive.poll_of(content) -> 'answers') with ordinality as given (answer, place)
         where place <= 20 and coalesce(archive.text_of(answer -> 'm.id'), archive.text_of(answer -> 'id')) is not null),
        '[]') else '[]' end;
comment on function archive.poll_answers(jsonb) is 'What may be chosen in a poll: [{"id", "text"}], at most the first 20.';

create function archive.poll_selection_limit(content jsonb) returns int
    language sql immutable parallel safe
    return case when jsonb_typeof(archive.poll_of(content) -> 'max_selections') = 'number'
                then case when (archive.poll_of(content) -> 'max_selections')::numeric >= 1
                          then trunc(least((archive.poll_of(content) -> 'max_selections')::numeric, 20))::int else 1 end
                else 1 end;
comment on function archive.poll_selection_limit(jsonb) is 'How many answers of a poll one may choose; 1 where it does not say.';

create function archive.poll_selections(content jsonb) returns jsonb
    language sql immutable parallel safe
    return coalesce(content -> 'm.selections', content #> '{org.matrix.msc3381.poll.response,answers}',
                    content #> '{m.poll.response,answers}');
comment on function archive.poll_selections(jsonb) is 'What a vote chooses.';

create view public.polls as
select r.room_id, e.event_id as poll_id, e.position, e.sender, archive.sent_at(e.origin_server_ts) as sent_at,
       archive.poll_question(shown.content) as question,
       case when archive.poll_of(shown.content) ->> 'kind' in ('m.disclosed', 'm.poll.disclosed',
                                                               'org.matrix.msc3381.poll.disclosed')
            then 'disclosed' else 'undisclosed' end as kind,
       archive.poll_selection_limit(shown.content) as max_selections,
       archive.poll_answers(shown.content) as answers,
       ended.event_id as end_event_id, archive.sent_at(ended.origin_server_ts) as ended_at,
       ended.origin_server_ts as end_ts,
       e.room_key
from archive.events e
join archive.rooms r using (room_key)
left join archive.current_state level_state
    on level_state.room_key = e.room_key and level_state.type = 'm.room.power_levels' and level_state.state_key = ''
left join archive.events levels on levels.room_key = level_state.room_key and levels.event_id = level_state.event_id
left join archive.current_state create_state
    on create_state.room_key = e.room_key and create_state.type = 'm.room.create' and create_state.state_key = ''
left join archive.events "create" on "create".room_key = create_state.room_key and "create".event_id = create_state.event_id
left join lateral (
    -- As in messages.
    select x.content
    from archive.events x
    where x.room_key = e.room_key and x.relates_to = e.event_id and x.rel_type = 'm.replace'
      and x.sender = e.sender and x.type = e.type and x.state_key is null and x.redacted_by is null
      and jsonb_typeof(x.content -> 'm.new_content') = 'object'
    order by x.origin_server_ts desc nulls last, x.event_id desc
    limit 1
) edit on true
cross join lateral (select coalesce(edit.content -> 'm.new_content', e.content) as content) shown
left join lateral (
    -- The first end counts that is by the poll's sender, or by one who may redact what others say.
    select x.event_id, x.origin_server_ts
    from archive.events x
    where x.room_key = e.room_key and x.relates_to = e.event_id and x.rel_type = 'm.reference'
      and x.type in ('m.poll.end', 'org.matrix.msc3381.poll.end') and x.state_key is null and x.redacted_by is null
      and x.origin_server_ts is not null
      and (x.sender = e.sender
           or archive.power_level(levels.content, r.room_version,
                                  archive.creators(r.room_version, "create".sender, "create".content), x.sender)
              >= greatest(coalesce(archive.level_of(levels.content -> 'redact'), 50),
                          coalesce(archive.level_of(levels.content -> 'events' -> 'm.room.redaction'),
                                   archive.level_of(levels.content -> 'events_default'), 0)))
    order by x.origin_server_ts, x.event_id
    limit 1
) ended on true
where e.type in ('m.poll.start', 'org.matrix.msc3381.poll.start') and e.state_key is null and e.redacted_by is null
  and (e.rel_type is distinct from 'm.replace' or e.relates_to is null);
comment on view public.polls is 'Polls that stand, as last edited (MSC3381). How they were answered is in poll_votes.';
comment on column public.polls.room_id is 'Matrix room id.';
comment on column public.polls.poll_id is 'Event id of the poll.';
comment on column public.polls.position is 'Place in the room''s order.';
comment on column public.polls.sender is 'Who asks.';
comment on column public.polls.sent_at is 'When the poll was sent, as its server claims.';
comment on column public.polls.question is 'What it asks.';
comment on column public.polls.kind is 'disclosed: votes show at once; undisclosed: not before its end.';
comment on column public.polls.max_selections is 'How many answers one may choose.';
comment on column public.polls.answers is 'What may be chosen, in order: [{"id", "text"}].';
comment on column public.polls.end_event_id is 'The event that ended it: the first by its sender or by one who may now redact what others say; null: it is open.';
comment on column public.polls.ended_at is 'When it ended, as the server of who ended it claims; null: it is open.';
comment on column public.polls.end_ts is 'The same in milliseconds since 1970.';
comment on column public.polls.room_key is 'The room''s internal key, for room_key(…).';

create view public.poll_votes as
select p.room_id, p.poll_id, chosen.answer_id, chosen.answer, vote.sender,
       coalesce((select m.shown_name from public.members m where m.room_key = p.room_key and m.user_id = vote.sender), vote.sender)
           as sender_name,
       vote.event_id, archive.sent_at(vote.origin_server_ts) as sent_at, p.room_key
from public.polls p
cross join lateral (
    -- Of each sender the last vote, valid or not, of those that were sent before the end.
    select distinct on (x.sender) x.sender, x.event_id, x.origin_server_ts, archive.poll_selections(x.content) as selections
    from archive.events x
    where x.room_key = p.room_key and x.relates_to = p.poll_id and x.rel_type = 'm.reference'
      and x.type in ('m.poll.response', 'org.matrix.msc3381.poll.response') and x.state_key is null and x.redacted_by is null
      and (p.end_ts is null or x.origin_server_ts <= p.end_ts)
    order by x.sender, x.origin_server_ts desc nulls last, x.event_id desc
) vote
cross join lateral (
    -- Cut to max_selections; an answer that the poll does not have spoils the vote; the same twice counts once.
    select known.id as answer_id, min(known.text) as answer, bool_and(known.id is not null) over () as is_valid
    from jsonb_array_elements(case jsonb_typeof(vote.selections) when 'array' then vote.selections else '[]' end) with ordinality
        as selection (value, place)
    left join jsonb_to_recordset(p.answers) as known (id text, text text) on known.id = archive.text_of(selection.value)
    where selection.place <= p.max_selections
    group by known.id
) chosen
where chosen.is_valid and (p.kind = 'disclosed' or p.end_event_id is not null);
comment on view public.poll_votes is 'How polls were answered: one row for each answer that a vote chooses. Of each sender the last vote before the end counts; one with an answer that the poll does not have counts as none. Those of an undisclosed poll are shown from its end on.';
comment on column public.poll_votes.room_id is 'Matrix room id.';
comment on column public.poll_votes.poll_id is 'Event id of the poll.';
comment on column public.poll_votes.answer_id is 'Id of the answer.';
comment on column public.poll_votes.answer is 'Text of the answer.';
comment on column public.poll_votes.sender is 'Who voted.';
comment on column public.poll_votes.sender_name is 'Their name as a client shows it, as in messages.';
comment on column public.poll_votes.event_id is 'Event id of the vote.';
comment on column public.poll_votes.sent_at is 'When it was sent, as its server claims.';
comment on column public.poll_votes.room_key is 'The room''s internal key, for room_key(…).';

-- Live locations (MSC3672, MSC3489): a state event begins to share one, each m.beacon says where its sender is then.
create function archive.milliseconds_of(value jsonb) returns bigint
    language sql immutable parallel safe
    return case when jsonb_typeof(value) = 'number'
                then case when value::numeric between 0 and 9007199254740991 then trunc(value::numeric)::bigint end end;
comment on function archive.milliseconds_of(jsonb) is 'A time or a duration in milliseconds; null for any other value.';

create function archive.beacon_of(content jsonb) returns jsonb
    language sql immutable parallel safe
    return coalesce(content -> 'm.beacon_info', content -> 'org.matrix.msc3672.beacon_info', content);
comment on function archive.beacon_of(jsonb) is 'What describes the sharing of a live location in the event that begins it.';

create function archive.measured_ts(content jsonb, origin_server_ts bigint) returns bigint
    language sql immutable parallel safe
    return coalesce(archive.milliseconds_of(content -> 'm.ts'), archive.milliseconds_of(content -> 'org.matrix.msc3488.ts'),
                    origin_server_ts);
comment on function archive.measured_ts(jsonb, bigint) is 'When a location was measured, in milliseconds since 1970.';

create view public.beacons as
select r.room_id, e.event_id as beacon_id, e.position, e.sender,
       coalesce((select m.shown_name from public.members m where m.room_key = e.room_key and m.user_id = e.sender), e.sender)
           as sender_name,
       archive.text_of(archive.beacon_of(e.content) -> 'description') as description,
       archive.sent_at(began.ts) as started_at,
       archive.sent_at(began.ts + began.timeout) as expires_at,
       s.event_id is not null and archive.sent_at(began.ts + began.timeout) > now() as live,
       coalesce(location.count, 0) as location_count, location.geo_uri, archive.sent_at(location.ts) as located_at,
       e.room_key
from archive.events e
join archive.rooms r using (room_key)
left join archive.current_state s
    on s.room_key = e.room_key and s.type = e.type and s.state_key = e.state_key and s.event_id = e.event_id
cross join lateral (
    select archive.measured_ts(archive.beacon_of(e.content), archive.measured_ts(e.content, e.origin_server_ts)) as ts,
           archive.milliseconds_of(archive.beacon_of(e.content) -> 'timeout') as timeout
) began
left join lateral (
    select point.geo_uri, point.ts, count(*) over () as count
    from (
        select coalesce(archive.text_of(x.content #> '{m.location,uri}'),
                        archive.text_of(x.content #> '{org.matrix.msc3488.location,uri}')) as geo_uri,
               archive.measured_ts(x.content, x.origin_server_ts) as ts, x.event_id
        from archive.events x
        where x.room_key = e.room_key and x.relates_to = e.event_id and x.rel_type = 'm.reference' and x.sender = e.sender
          and x.type in ('m.beacon', 'org.matrix.msc3672.beacon') and x.state_key is null and x.redacted_by is null
    ) point
    where point.geo_uri like 'geo:%' and point.ts between began.ts and began.ts + began.timeout
    order by point.ts desc, point.event_id desc
    limit 1
) location on true
where e.type in ('m.beacon_info', 'org.matrix.msc3672.beacon_info') and e.state_key is not null and e.redacted_by is null
  and archive.beacon_of(e.content) -> 'live' = 'true';
comment on view public.beacons is 'Live locations that were shared, each with the last place that was sent. Places are counted that its sender sent in its time. A location sent once is in messages.';
comment on column public.beacons.room_id is 'Matrix room id.';
comment on column public.beacons.beacon_id is 'Event id of the state event that began it, to which each m.beacon relates.';
comment on column public.beacons.position is 'Place in the room''s order.';
comment on column public.beacons.sender is 'Whose location it is.';
comment on column public.beacons.sender_name is 'Their name as a client shows it, as in messages.';
comment on column public.beacons.description is 'What they call it.';
comment on column public.beacons.started_at is 'When it began.';
comment on column public.beacons.expires_at is 'When it ends, or ended, by itself.';
comment on column public.beacons.live is 'Whether it is shared now: neither stopped nor expired.';
comment on column public.beacons.location_count is 'How many places were sent.';
comment on column public.beacons.geo_uri is 'The last place, a geo: URI; null: none was sent.';
comment on column public.beacons.located_at is 'When its sender was there.';
comment on column public.beacons.room_key is 'The room''s internal key, for room_key(…).';
