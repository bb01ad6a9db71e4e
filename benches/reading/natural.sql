-- Queries as people type them who have read README and \d+, one a line. natural.sh runs them. They need not be the best way to ask.
select * from messages where room_id = :'room' order by position desc limit 50
select * from messages where room_id = :'room' order by sent_at desc limit 50
select sender, body, sent_at from messages where room_id = :'room' order by sent_at limit 50
select m.* from messages m join rooms r on r.room_id = m.room_id where r.name = :'name' order by m.position desc limit 50
select m.sent_at, m.sender_name, m.body from messages m join rooms r using (room_id) where r.name = :'name' order by m.sent_at desc limit 50
select m.sent_at, m.sender_name, m.body from messages m join rooms r using (room_id) where r.display_name = :'name' order by m.sent_at desc limit 20
select m.sent_at, m.sender_name, m.body from messages m join rooms r using (room_id) where r.name ilike 'room 1 %' order by m.sent_at desc limit 20
select m.sent_at, m.sender_name, m.body from messages m join rooms r using (room_id) where r.name = :'name' and m.sent_at >= '2025-03-01' and m.sent_at < '2025-03-02' order by m.sent_at
select count(*) from messages m join rooms r using (room_id) where r.name = :'name'
select m.sender, count(*) from messages m join rooms r using (room_id) where r.name = :'name' group by 1 order by 2 desc limit 10
select r.name, m.sender_name, m.body, m.sent_at from messages m join rooms r using (room_id) order by m.sent_at desc limit 50
select r.display_name, m.sender_name, m.body, m.sent_at from messages m join rooms r using (room_id) where m.sender = :'user' order by m.sent_at desc limit 50
select r.name, count(*) from messages m join rooms r using (room_id) group by r.name order by 2 desc
select r.name, count(*) from messages m join rooms r using (room_id) where m.sent_at > '2025-03-01' and m.sent_at < '2025-03-08' group by r.name order by 2 desc
select r.name, max(m.sent_at) from rooms r left join messages m using (room_id) group by 1
select room_id, max(sent_at) from messages group by room_id
select max(sent_at) from messages where room_id = :'room'
select max(sent_at), min(sent_at) from messages where sender = :'user'
select max(position) from events where room_id = :'room'
select distinct on (room_id) room_id, sender_name, body, sent_at from messages order by room_id, position desc
select * from messages where room_id in (:'room', :'room2') order by sent_at desc limit 50
select * from messages where room_id in (:'room', :'room2', :'room3') order by sent_at limit 50
select * from messages where room_id in (:'room', :'room2') order by position desc limit 50
select * from messages where room_id in (select room_id from rooms where name ilike 'room 1%') order by sent_at desc limit 50
select * from messages where room_id in (select room_id from rooms where name = :'name') order by sent_at desc limit 50
select * from messages where room_id = (select room_id from rooms where name = :'name') order by position desc limit 50
select * from messages limit 10
select * from messages where room_id = :'room' limit 20
select * from messages where room_id = :'room' and body ilike '%berlin%' limit 20
select * from messages where room_id = :'room' and body ilike '%berlin%' order by sent_at desc limit 20
select * from messages where room_id = :'room2' and redacted limit 10
select * from messages where redacted limit 10
select * from messages where room_id = :'room' and msgtype = 'm.image' limit 20
select * from messages where room_id = :'room' and msgtype = 'm.image' order by position desc limit 20
select * from messages where room_id = :'room' and edit_count > 0 order by sent_at desc limit 20
select * from messages where edit_count > 3 limit 20
select * from messages where sender_name = :'shown' order by sent_at desc limit 20
select * from messages where room_id = :'room' and sender_name = :'shown' order by sent_at desc limit 20
select * from messages where room_id = :'room' and sender_name ilike :'shown' || '%' order by sent_at desc limit 20
select * from messages where sender = :'user' limit 20
select * from messages where sender = :'user' order by sent_at limit 20
select * from messages where sender in (:'user', :'user2') order by sent_at desc limit 20
select * from messages where room_id = :'room' and sender in (:'user', :'user2') order by sent_at desc limit 20
select m.* from messages m join members u on u.room_id = m.room_id and u.user_id = m.sender where u.display_name = :'shown' order by m.sent_at desc limit 20
select count(*) from messages where room_id = :'room' and sent_at >= '2025-03-01' and sent_at < '2025-03-02'
select * from messages where sent_at::date = '2025-03-01' and room_id = :'room'
select * from messages where sent_at >= '2025-03-01' and sent_at < '2025-03-02' order by sent_at limit 100
select date_trunc('day', sent_at), count(*) from messages where room_id = :'room' group by 1 order by 1
select date_trunc('hour', sent_at), count(*) from messages where room_id = :'room' and sent_at > '2025-03-01' and sent_at < '2025-04-01' group by 1 order by 1
select * from messages where event_id = :'event'
select * from messages where event_id in (:'event', :'reacted', :'root')
select * from events where event_id = :'event'
select * from messages where room_id = :'room' and position between :pos - 65536 * 25 and :pos + 65536 * 25 order by position
select * from reactions where room_id = :'room' order by position desc limit 50
select * from reactions where room_id = :'room' order by sent_at desc limit 50
select * from reactions order by sent_at desc limit 50
select * from reactions where sender = :'user' order by sent_at desc limit 50
select * from reactions where room_id = :'room' limit 50
select key, count(*) from reactions group by 1 order by 2 desc limit 20
select key, count(*) from reactions where room_id = :'room2' group by 1 order by 2 desc limit 20
select key, count(*) from reactions where relates_to = :'reacted' group by 1
select m.body, count(*) from reactions x join messages m on m.room_id = x.room_id and m.event_id = x.relates_to where x.room_id = :'room2' group by m.event_id, m.body order by 2 desc limit 10
select m.body, count(*) from reactions x join messages m on m.event_id = x.relates_to where m.room_id = :'room2' group by m.event_id, m.body order by 2 desc limit 10
select m.event_id, m.body, (select count(*) from reactions x where x.relates_to = m.event_id) from messages m where m.room_id = :'room' order by m.position desc limit 50
select m.body, array_agg(x.key) from messages m left join reactions x on x.relates_to = m.event_id and x.room_id = m.room_id where m.room_id = :'room' and m.sent_at > '2025-03-01' and m.sent_at < '2025-03-02' group by m.event_id, m.body
select * from threads where room_id = :'room' order by last_reply_at desc limit 20
select * from threads where room_id = :'room2' order by reply_count desc limit 20
select * from threads order by last_reply_at desc limit 20
select * from threads where thread_root = :'root'
select * from threads where room_id = :'room' limit 10
select count(*) from threads where room_id = :'room2'
select * from messages where thread_root = :'root' order by sent_at
select * from message_versions where event_id = :'event'
select * from message_versions where room_id = :'room' order by sent_at desc limit 20
select * from message_versions where room_id = :'room' and is_edit order by sent_at desc limit 20
select v.* from message_versions v join messages m using (room_id, event_id) where m.room_id = :'room' and m.edit_count > 0 and m.sent_at > '2025-03-01' and m.sent_at < '2025-03-02'
select * from message_versions where sender = :'user' and is_edit order by sent_at desc limit 20
select m.event_id, m.body, v.body from messages m join message_versions v on v.event_id = m.event_id where m.event_id = :'edited'
select * from polls where room_id = :'room'
select * from polls order by sent_at desc limit 20
select p.question, v.answer, count(*) from polls p join poll_votes v using (room_id, poll_id) where p.room_id = :'room2' group by p.poll_id, 1, 2
select p.question, v.answer, count(*) from polls p left join poll_votes v on v.poll_id = p.poll_id where p.room_id = :'room2' group by p.poll_id, 1, 2
select * from pins
select * from pins where room_id = :'room'
select * from membership_history where room_id = :'room' order by joined_at desc limit 20
select * from membership_history where joined_at > '2025-03-01' and joined_at < '2025-03-02'
select * from membership_history where user_id = :'user'
select * from membership_history where room_id = :'room2' and user_id = :'user'
select * from membership_history where room_id = :'room' and left_at is null
select * from membership_history where ended = 'ban'
select * from membership_history order by joined_at desc limit 20
select count(*) from membership_history where room_id = :'room2'
select * from conversations
select * from files where room_id = :'room' order by sent_at desc limit 20
select * from files where room_id = :'room' order by position desc limit 20
select * from files order by sent_at desc limit 20
select * from files order by size desc limit 20
select * from files where room_id = :'room2' order by size desc limit 20
select * from files where filename ilike '%report%' limit 20
select * from files where mimetype = 'application/pdf' order by sent_at desc limit 20
select * from files where room_id = :'room' and mimetype like 'image/%' order by sent_at desc limit 20
select mimetype, count(*), sum(size) from files group by 1
select * from files where sender = :'user' order by sent_at desc limit 20
select sum(messages) from activity where room_id = :'room'
select sender_name, sum(messages) from activity where room_id = :'room' group by 1 order by 2 desc limit 10
select sender, sum(messages) from activity where day >= '2025-03-01' and day < '2025-04-01' group by 1 order by 2 desc limit 10
select day, sum(messages) from activity where sender = :'user' group by 1 order by 1
select day, sum(messages) from activity group by 1 order by 1
select r.name, sum(a.messages) from activity a join rooms r using (room_id) group by 1 order by 2 desc
select r.name, a.sender_name, sum(a.messages) from activity a join rooms r using (room_id) where r.name = :'name' group by 1, 2 order by 3 desc limit 10
select * from redacted_events order by redacted_at desc limit 20
select * from redacted_events where room_id = :'room' order by redacted_at desc limit 20
select * from redacted_events where sender = :'user' order by redacted_at desc limit 20
select * from redacted_events where redacted_at > '2025-03-01' and redacted_at < '2025-03-02'
select redacted_by_name, count(*) from redacted_events group by 1 order by 2 desc limit 10
select redacted_by_sender, count(*) from redacted_events where room_id = :'room2' group by 1 order by 2 desc
select * from members where room_id = :'room' and membership = 'join'
select * from members where user_id = :'user'
select * from members where display_name = :'shown'
select * from members where room_id = :'room' and power_level >= 50
select count(*) from members where room_id = :'room' and membership = 'join'
select r.name, count(*) from members m join rooms r using (room_id) where m.membership = 'join' group by 1 order by 2 desc
select * from rooms
select name, topic, message_count from rooms order by message_count desc
select * from rooms where name ilike '%1%'
select * from current_state where room_id = :'room' and type = 'm.room.topic'
select * from current_state where type = 'm.room.name'
select * from state_history where room_id = :'room' and type = 'm.room.topic' order by position desc limit 20
select * from state_history where type = 'm.room.topic' order by sent_at desc limit 20
select * from state_events where type = 'm.room.member' order by sent_at desc limit 20
select * from state_events where room_id = :'room' order by position desc limit 20
select * from state_events where sent_at > '2025-03-01' and sent_at < '2025-03-02'
select * from events where type = 'm.room.member' and sent_at > '2025-03-01' and sent_at < '2025-03-02'
select * from events where room_id = :'room' and type = 'm.room.topic' order by position desc limit 10
select * from events where type = 'm.room.redaction' order by sent_at desc limit 20
select type, count(*) from events group by 1 order by 2 desc
select type, count(*) from events where room_id = :'room2' group by 1 order by 2 desc
select * from events where room_id = :'room' order by position desc limit 50
select * from events order by received_at desc limit 20
select * from events order by sent_at desc limit 20
select * from events where content ->> 'body' ilike '%zebra%' and room_id = :'room' limit 10
select * from events where type = 'm.room.message' and room_id = :'room' limit 10
select * from events where type = 'm.room.encrypted' limit 10
select * from events where room_id = :'room' and type = 'm.room.create'
select * from messages where in_reply_to = :'answered'
select m.body, p.body from messages m join messages p on p.event_id = m.in_reply_to where m.room_id = :'room' order by m.position desc limit 20
select m.body, p.body from messages m join messages p on p.event_id = m.in_reply_to and p.room_id = m.room_id where m.room_id = :'room' and m.in_reply_to is not null order by m.sent_at desc limit 20
select m.event_id, count(a.event_id) from messages m join messages a on a.in_reply_to = m.event_id and a.room_id = m.room_id where m.room_id = :'room2' group by 1 order by 2 desc limit 10
select m.* from messages m where m.room_id = :'room2' and not exists (select from messages a where a.in_reply_to = m.event_id) order by m.sent_at desc limit 20
select * from state_at(:'room', '2025-03-01') where type = 'm.room.topic'
select * from state_at(:'room', timestamptz '2025-03-01') where type = 'm.room.topic'
select * from state_at(:'room', (select position from events where event_id = :'event'))
select * from members_at(:'room', timestamptz '2025-03-01') where membership = 'join'
select * from members_at(:'room', '2025-03-01') where membership = 'join'
select * from members_at(:'room', timestamptz '2025-03-01') where user_id = :'user'
select * from search(:'word')
select * from search(:'word', room_id => :'room')
select count(*) from search(:'word')
select s.* from search(:'word') s join rooms r using (room_id) where r.name = :'name'
select r.name, s.sender_name, s.body from search(:'word', since => '2025-03-01') s join rooms r using (room_id) order by s.sent_at desc
select extract(hour from sent_at), count(*) from messages group by 1 order by 1
select avg(length(body)) from messages where room_id = :'room2'
select sender, avg(length(body)) from messages where room_id = :'room2' group by 1 order by 2 desc limit 10
select sender_name, count(*) from messages where room_id = :'room2' group by 1 order by 2 desc limit 10
select count(distinct sender) from messages where room_id = :'room'
select count(distinct sender) from messages where sent_at > '2025-03-01' and sent_at < '2025-03-08'
select sender, count(*) from messages where sent_at > '2025-03-01' and sent_at < '2025-03-08' group by 1 order by 2 desc limit 10
select * from messages where room_id = :'room' and formatted_body is not null order by position desc limit 20
select * from messages where room_id = :'room' order by position desc offset 1000 limit 50
select * from messages where room_id = :'room' and is_encrypted limit 10
select * from messages where is_encrypted order by sent_at desc limit 10
