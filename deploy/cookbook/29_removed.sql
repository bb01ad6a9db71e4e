-- Who was kicked or banned, by whom and why?
-- All rooms; add `and room_id = '!abc:example.org'` for one.
select left_at, room_id, user_id, display_name, ended, ended_by, reason
from membership_history
where ended in ('kick', 'ban')
order by left_at desc
limit 50;
