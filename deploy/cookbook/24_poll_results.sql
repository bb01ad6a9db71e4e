-- How did a room's polls end?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'. Votes are null while they do not show.
select question, answer, votes, voters, ended_at
from poll_results
where room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
order by position desc, place
limit 50;
