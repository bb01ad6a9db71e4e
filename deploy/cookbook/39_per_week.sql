-- How did each room do in each week, compared with the week before?
-- All rooms; add `where room_id = '!abc:example.org'` to the subquery for one.
select room_id, week::date, messages, people, messages - lag(messages) over (partition by room_id order by week) as change
from (
    select room_id, date_trunc('week', day::timestamp) as week, sum(messages) as messages, count(distinct sender) as people
    from activity
    where day > '-infinity' and day <= current_date
    group by room_id, week
) weekly
order by week desc, messages desc
limit 100;
