-- Who is in a room, and who may do what?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
select shown_name, user_id, power_level
from members
where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
  and membership = 'join'
order by power_level desc, shown_name;
