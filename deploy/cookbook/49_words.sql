-- Which words does a room use most?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'. It looks at the last 10,000 messages.
select word, count(*) as times, count(distinct sender) as people
from (
    select sender, body
    from messages
    where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
    order by position desc
    limit 10000
) m
cross join lateral regexp_split_to_table(lower(m.body), '[^[:alnum:]'']+') as word
where length(word) > 3
group by word
order by times desc
limit 50;
