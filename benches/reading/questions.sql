-- The questions of readers with their goals, each asked six times in one session: the first call, and the median of the others.
-- Prints a table in Markdown. With `-v plans=1`, prints each question's plan as well. Needs the data of load.sql, with
-- the search filled.
\set ON_ERROR_STOP on
\pset tuples_only on
\pset format unaligned
set client_min_messages = warning;

create temp table questions (number int generated always as identity, part text, question text, goal_ms int, query text);
create temp table answers (number int, call int, ms float8, results bigint);

create function pg_temp.room(number int) returns text language sql as
    'select quote_literal(room_id) from loading.rooms where number = $1';
create function pg_temp.word(language int, rank int) returns text language sql as
    'select word from loading.words where language = $1 and rank = $2';
-- Something of the room of a million: its event in the middle, the sender of that, a thread, an answered message, a reaction.
create temp table chosen as
select r.room_id, e.event_id, e.position, e.sender, e.sent_at,
       (select t.thread_root from archive.events t where t.room_id = r.room_id and t.thread_root is not null
        group by 1 order by count(*) desc limit 1) as thread_root,
       (select a.in_reply_to from archive.events a where a.room_id = r.room_id and a.in_reply_to is not null
        group by 1 order by count(*) desc limit 1) as in_reply_to,
       (select x.relates_to from archive.events x where x.room_id = r.room_id and x.type = 'm.reaction' limit 1) as reacted_to,
       (select s.state_key from archive.events s where s.room_id = r.room_id and s.type = 'm.room.member'
        group by 1 order by count(*) desc limit 1) as member
from loading.rooms r
cross join lateral (select * from archive.events e where e.room_id = r.room_id and e.type = 'm.room.message'
                      and e.position > (select percentile_disc(0.5) within group (order by position)
                                        from (select position from archive.events p where p.room_id = r.room_id) p)
                    order by e.position limit 1) e
where r.number = 1;

insert into questions (part, question, goal_ms, query)
select 'read', question, 10, format(query, c.room_id, c.event_id, c.position, c.sender, c.sent_at, c.thread_root, c.in_reply_to,
                                    c.reacted_to, c.member)
from chosen c, (values
    ('the last 50 messages of a room', 'select sent_at, sender_name, body from messages where room_id = %1$L order by position desc limit 50'),
    ('the last 50, all columns', 'select * from messages where room_id = %1$L order by position desc limit 50'),
    ('the next 50 from a position on', 'select sent_at, sender_name, body from messages where room_id = %1$L and position > %3$L order by position limit 50'),
    ('a day of a room, first 50', 'select sent_at, sender_name, body from messages where room_id = %1$L and sent_at >= %5$L and sent_at < timestamptz %5$L + interval ''1 day'' order by sent_at limit 50'),
    ('a message by its id alone', 'select * from messages where event_id = %2$L'),
    ('an event by its id alone', 'select * from events where event_id = %2$L'),
    ('a message with the 25 before and after', 'with it as (select room_id, position from events where event_id = %2$L) (select m.* from it cross join lateral (select * from messages m where m.room_id = it.room_id and m.position <= it.position order by m.position desc limit 25) m) union all (select m.* from it cross join lateral (select * from messages m where m.room_id = it.room_id and m.position > it.position order by m.position limit 25) m)'),
    ('a thread, first 50', 'select * from messages where thread_root = %6$L order by position limit 50'),
    ('the first 50 replies to a message', 'select * from messages where in_reply_to = %7$L order by position limit 50'),
    ('all 128 replies to a message', 'select * from messages where in_reply_to = %7$L'),
    ('the reactions to a message', 'select * from reactions where relates_to = %8$L'),
    ('a person''s newest 50 messages', 'select * from messages where sender = %4$L order by sent_at desc limit 50'),
    ('a person''s newest 50 in a room', 'select * from messages where room_id = %1$L and sender = %4$L order by sent_at desc limit 50'),
    ('a state key''s history', 'select * from state_history where room_id = %1$L and type = ''m.room.member'' and state_key = %9$L order by position')
) q (question, query);
insert into questions (part, question, goal_ms, query)
select 'search', q.question || case when r.number is null then ', all rooms' else ', one room' end,
       case when q.question ~ 'Chinese' then 500 when r.number is null then 200 else 50 end,
       format('select * from search(%L%s)', q.query, case when r.number is not null then ', room_id => ' || pg_temp.room(r.number) end)
from (values ('a frequent word', pg_temp.word(3, 1), 2), ('a word of 1 in 1,000', pg_temp.word(3, 1000), 2),
             ('a rare word', pg_temp.word(3, 30000), 2), ('an absent word', 'xyzzyqq', 2),
             ('a phrase of two frequent words', '"' || pg_temp.word(3, 3) || ' ' || pg_temp.word(3, 5) || '"', 2),
             ('a phrase of two words of 1 in 50', '"' || pg_temp.word(3, 50) || ' ' || pg_temp.word(3, 60) || '"', 2),
             ('a Chinese word', pg_temp.word(5, 310), 36)) q (question, query, room)
cross join lateral (select null::int as number union all select q.room) r;
insert into questions (part, question, goal_ms, query)
select 'past', question, 100, format(query, c.room_id, c.position, c.sent_at)
from chosen c, (values
    ('state_at of the room of 1,000,000, by position', 'select * from state_at(%1$L, %2$L::bigint)'),
    ('state_at of the room of 1,000,000, by time', 'select * from state_at(%1$L, timestamptz %3$L)'),
    ('members_at of the room of 1,000,000', 'select * from members_at(%1$L, %2$L::bigint)')) q (question, query);
insert into questions (part, question, goal_ms, query) values
    ('count', 'who talks most in a room of 250,000, activity', 50,
     format('select sender, sum(messages) from activity where room_id = %s group by 1 order by 2 desc limit 20', pg_temp.room(2))),
    ('count', 'who talks most in all rooms, activity', 500, 'select sender, sum(messages) from activity group by 1 order by 2 desc limit 20'),
    ('count', 'who talks most in a room of 250,000, messages', 500,
     format('select sender, count(*) from messages where room_id = %s group by 1 order by 2 desc limit 20', pg_temp.room(2))),
    ('count', 'messages a day in a room of 250,000', 500,
     format('select date_trunc(''day'', sent_at), count(*) from messages where room_id = %s group by 1', pg_temp.room(2))),
    ('count', 'count(*) from events', 8000, 'select count(*) from events'),
    ('count', 'who talks most in all rooms, messages', 8000, 'select sender, count(*) from messages group by 1 order by 2 desc limit 20'),
    ('count', 'count(*) from messages', 8000, 'select count(*) from messages'),
    ('count', 'messages a day, all rooms', 8000, 'select date_trunc(''day'', sent_at), count(*) from messages group by 1'),
    ('count', 'the messages that moved people', 8000,
     'select m.sender_name, m.body, top.n from (select room_id, relates_to, count(*) as n from reactions group by 1, 2 order by 3 desc limit 20) top join messages m on m.room_id = top.room_id and m.event_id = top.relates_to order by top.n desc');

do $$
declare
    q record;
    begun timestamptz;
    results bigint;
begin
    for q in select * from questions order by number loop
        for round in 0 .. case when q.part = 'count' then 3 else 5 end loop
            begun := clock_timestamp();
            -- Not a loop over the rows: that is a cursor, for which PostgreSQL takes no parallel plan, as it does for psql.
            execute q.query;
            get diagnostics results = row_count;
            insert into answers values (q.number, round, extract(epoch from clock_timestamp() - begun) * 1000, results);
        end loop;
    end loop;
end
$$;

select '| question | goal ms | first ms | median ms | rows | |' union all select '| --- | ---: | ---: | ---: | ---: | --- |';
select format('| %s | %s | %s | %s | %s | %s |', q.question, q.goal_ms, round(min(a.ms) filter (where a.call = 0)::numeric, 1),
              round((percentile_cont(0.5) within group (order by a.ms) filter (where a.call > 0))::numeric, 1), max(a.results),
              case when percentile_cont(0.5) within group (order by a.ms) filter (where a.call > 0) > q.goal_ms then '**missed**' else '' end)
from questions q join answers a using (number)
group by q.number, q.question, q.goal_ms order by q.number;
select format('| size of all tables and indexes | 2.0 × JSON | | %s × | | |',
              round((select sum(pg_total_relation_size(c.oid)) from pg_class c
                     where c.relnamespace = 'archive'::regnamespace and c.relkind in ('r', 'm')) / (select sum(bytes) from loading.served), 2));

\if :{?plans}
select 'explain (analyze, buffers, costs off) ' || query from questions order by number
\gexec
\endif
