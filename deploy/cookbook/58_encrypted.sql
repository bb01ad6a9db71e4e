-- How much of this room can I read?
-- All rooms with encrypted messages. missing_keys: how many sessions `backscroll keys import` would have to bring.
select r.room_id, r.display_name, count(*) as encrypted, count(*) filter (where e.decryption = 'ok') as readable,
       round(100.0 * count(*) filter (where e.decryption = 'ok') / count(*), 1) as percent,
       min(e.sent_at) filter (where e.decryption <> 'ok') as first_unreadable,
       (select count(distinct u.session_id) from undecryptable u
        where u.room_id = r.room_id and u.reason like 'no key%') as missing_keys
from rooms r
join events e on e.room_id = r.room_id
where e.type = 'm.room.encrypted' and e.decryption is not null
group by r.room_id, r.display_name
order by percent, r.room_id;
