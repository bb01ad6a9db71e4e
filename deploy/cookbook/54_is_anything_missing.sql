-- Is anything missing from the archive, and why?
-- All rooms. No row: nothing is known to be missing.
select r.room_id, r.display_name, r.history_state, r.history_reason, g.state as gap, g.reason, g.opened_at, g.events as found
from rooms r
left join gaps g on g.room_id = r.room_id and g.state <> 'closed'
where r.history_state <> 'complete' or r.history_reason is not null or g.gap_id is not null
order by r.room_id;
