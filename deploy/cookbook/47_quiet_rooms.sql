-- In which rooms has nobody written for long?
-- A room counts as quiet after 30 days without a message.
select r.room_id, r.display_name, last.day as last_day, current_date - last.day as days
from rooms r
left join lateral (
    select a.day
    from activity a
    where a.room_id = r.room_id and a.messages > 0 and a.day > '-infinity' and a.day <= current_date
    order by a.day desc
    limit 1
) last on true
where last.day is null or last.day < current_date - 30
order by last.day nulls first;
