-- How does a room read as a plain text log?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'. Run it by psql -At.
select format('[%s] <%s> %s', to_char(sent_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), sender_name,
              case when redacted then '(redacted)'
                   when body is null then '(' || coalesce(msgtype, type) || ')'
                   else body || case when edit_count > 0 then ' (edited)' else '' end end) as line
from (
    select *
    from messages
    where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
    order by position desc
    limit 200
) last
order by position;
