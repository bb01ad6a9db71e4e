-- Who was in a room at a time, under which name and with which power?
-- In place of chosen put a room id and a time: members_at('!abc:example.org', '2026-01-31 12:00Z').
with chosen as (
    select room_id, day - 90 as day
    from activity
    where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
      and day <= current_date
    order by activity.day desc
    limit 1
)
select m.user_id, m.display_name, m.power_level, m.sent_at as since, m.source
from chosen
cross join lateral members_at(chosen.room_id, chosen.day::timestamptz) m
where m.membership = 'join'
order by m.power_level desc, m.user_id;
