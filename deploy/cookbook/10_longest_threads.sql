-- Which threads are the longest?
-- All rooms; add `and e.room_id = '!abc:example.org'` to the subquery for one.
select thread.room_id, root_sender_name, root_body, reply_count, participants, last_reply_at - first_reply_at as went_on_for
from (
    -- First which they are. The view's other columns take longer.
    select e.room_id, e.thread_root
    from events e
    where e.thread_root is not null and e.state_key is null and e.redacted_by is null
    group by e.room_id, e.thread_root
    order by count(*) desc
    limit 20
) top
cross join lateral (select * from threads t where t.room_id = top.room_id and t.thread_root = top.thread_root) thread
order by reply_count desc;
