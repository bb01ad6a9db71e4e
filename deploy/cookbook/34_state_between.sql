-- What changed in a room's state between two times?
-- In place of chosen put a room id and two times.
with chosen as (
    select room_id, (day - 90)::timestamptz as from_time, day::timestamptz as to_time
    from activity
    where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
      and day <= current_date
    order by day desc
    limit 1
),
before as (select s.* from chosen cross join lateral state_at(chosen.room_id, chosen.from_time) s),
after as (select s.* from chosen cross join lateral state_at(chosen.room_id, chosen.to_time) s)
select type, state_key, before.content as before, after.content as after, after.sender, after.sent_at
from before
full join after using (type, state_key)
where before.event_id is distinct from after.event_id
order by type, state_key;
