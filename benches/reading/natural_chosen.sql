-- For natural.sh: a room of a million events, two others, and what there is in the first, as settings of psql.
with chosen as (
    select max(r.room_id) filter (where r.number = 1) as room, max(r.room_id) filter (where r.number = 2) as room2,
           max(r.room_id) filter (where r.number = 5) as room3
    from loading.rooms r
), said as (
    select e.event_id, e.position, e.sender
    from chosen c join archive.events e on e.room_id = c.room
    where e.type = 'm.room.message' and e.position > -500000::bigint * 65536
    order by e.position
    limit 1
)
select setting
from chosen c
cross join said
cross join lateral (values
    ('room=' || c.room), ('room2=' || c.room2), ('room3=' || c.room3), ('event=' || said.event_id), ('pos=' || said.position),
    ('name=' || (select r.name from public.rooms r where r.room_id = c.room)), ('user=' || said.sender),
    ('shown=' || (select m.display_name from archive.members m where m.room_id = c.room and m.user_id = said.sender)),
    ('user2=' || (select e.sender from archive.events e
                  where e.room_id = c.room and e.position > said.position and e.sender <> said.sender
                  order by e.position limit 1)),
    ('root=' || (select e.thread_root from archive.events e where e.room_id = c.room and e.thread_root is not null limit 1)),
    ('answered=' || (select e.in_reply_to from archive.events e where e.room_id = c.room and e.in_reply_to is not null limit 1)),
    ('reacted=' || (select e.relates_to from archive.events e where e.room_id = c.room and e.type = 'm.reaction' limit 1)),
    ('edited=' || (select e.relates_to from archive.events e where e.room_id = c.room and e.rel_type = 'm.replace' limit 1)),
    ('word=' || (select w.word from loading.words w where w.language = 2 and w.rank = 1000))
) settings (setting);
