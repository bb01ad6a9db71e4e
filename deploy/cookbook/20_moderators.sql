-- Who redacts messages of others, and how fast?
-- All rooms; add `and room_id = '!abc:example.org'` for one.
select room_id, redacted_by_name, count(*) as redactions,
       percentile_cont(0.5) within group (order by redacted_at - sent_at) as median_time
from redacted_events
where redacted_by_sender <> sender
group by room_id, redacted_by_name
order by redactions desc
limit 20;
