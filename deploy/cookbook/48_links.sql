-- Which links were shared most in a room?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
select link[1] as link, count(*) as times, count(distinct sender) as people, max(sent_at) as last
from messages
cross join lateral regexp_matches(body, 'https?://[^\s<>"''()]+', 'g') as link
where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
  and body like '%http%'
group by link[1]
order by times desc, last desc
limit 50;
