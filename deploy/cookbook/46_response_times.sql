-- How fast is somebody answered?
-- In place of (select room_id from rooms …), which takes the largest room, put a room id: '!abc:example.org'.
-- Only replies count, and only within a day.
select original.sender_name, count(*) as answers,
       percentile_cont(0.5) within group (order by reply.sent_at - original.sent_at) as median,
       percentile_cont(0.9) within group (order by reply.sent_at - original.sent_at) as "nine of ten within"
from messages reply
join messages original on original.room_id = reply.room_id and original.event_id = reply.in_reply_to
where reply.room_id = (select room_id from rooms order by event_count desc nulls last limit 1)
  and reply.sender <> original.sender
  and reply.sent_at between original.sent_at and original.sent_at + interval '1 day'
group by original.sender_name
having count(*) >= 5
order by median
limit 20;
