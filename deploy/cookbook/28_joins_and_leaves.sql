-- How many people joined and left a room in each month?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
with stay as (
    select user_id, joined_at, left_at
    from membership_history
    where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
)
select month::date, sum(joined) as joined, sum(gone) as left, sum(sum(joined) - sum(gone)) over (order by month) as members
from (
    select date_trunc('month', joined_at, 'UTC') as month, 1 as joined, 0 as gone from stay
    union all
    select date_trunc('month', left_at, 'UTC'), 0, 1 from stay where left_at is not null
) moves
group by month
order by month;
