-- Of those who began to write in a month, how many write in the months after?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
with active as (
    select distinct sender, date_trunc('month', day::timestamp) as month
    from activity
    where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
      and messages > 0 and day > '-infinity' and day <= current_date
),
begun as (select sender, min(month) as began from active group by sender)
select began::date,
       count(*) filter (where month = began) as people,
       count(*) filter (where month = began + interval '1 month') as "after 1 month",
       count(*) filter (where month = began + interval '2 months') as "after 2 months",
       count(*) filter (where month = began + interval '3 months') as "after 3 months",
       count(*) filter (where month = began + interval '6 months') as "after 6 months"
from begun
join active using (sender)
group by began
order by began;
