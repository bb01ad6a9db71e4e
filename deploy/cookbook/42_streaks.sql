-- Who has written on the most days in a row?
-- All rooms; add `where room_id = '!abc:example.org'` to the innermost query for one.
select sender, count(*) as days, min(day) as first, max(day) as last
from (
    -- Days in a row have the same difference between the day and its number.
    select sender, day, day - row_number() over (partition by sender order by day)::int as run
    from (
        select distinct sender, day
        from activity
        where messages > 0 and day > '-infinity' and day <= current_date
    ) active
) numbered
group by sender, run
order by days desc
limit 20;
