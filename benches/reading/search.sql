-- How long search() takes on the data of load.sql: each query five times in one session; the first call and the median.
set client_min_messages = warning;
create temp table questions (number int generated always as identity, question text, query text, room text, sender text, since timestamptz,
                             until timestamptz, by_rank boolean default false);
create temp table answers (number int, call int, ms float8, results int);
create function pg_temp.word(language int, rank int) returns text language sql as 'select word from loading.words where language = $1 and rank = $2';
create function pg_temp.room(number int) returns text language sql as 'select room_id from loading.rooms where number = $1';
insert into questions (question, query, room)
    select q.what || case when r.number is null then ', all rooms' else ', room of ' || r.events end, q.query, r.room_id
    from (values ('frequent word', pg_temp.word(3, 1), pg_temp.word(2, 1)),
                 ('word of 1 in 100', pg_temp.word(3, 100), pg_temp.word(2, 100)),
                 ('word of 1 in 1,000', pg_temp.word(3, 1000), pg_temp.word(2, 1000)),
                 ('word of 1 in 4,000', pg_temp.word(3, 4000), pg_temp.word(2, 4000)),
                 ('rare word', pg_temp.word(3, 30000), pg_temp.word(2, 30000)),
                 ('absent word', 'xyzzyqq', 'xyzzyqq'),
                 ('phrase of two frequent words', '"' || pg_temp.word(3, 3) || ' ' || pg_temp.word(3, 5) || '"',
                                                 '"' || pg_temp.word(2, 3) || ' ' || pg_temp.word(2, 5) || '"'),
                 ('phrase of two words of 1 in 50', '"' || pg_temp.word(3, 50) || ' ' || pg_temp.word(3, 60) || '"',
                                                 '"' || pg_temp.word(2, 50) || ' ' || pg_temp.word(2, 60) || '"'),
                 ('phrase of two words of 1 in 1,000', '"' || pg_temp.word(3, 1000) || ' ' || pg_temp.word(3, 1001) || '"',
                                                 '"' || pg_temp.word(2, 1000) || ' ' || pg_temp.word(2, 1001) || '"'),
                 ('frequent word, 1 in 100 and 1 in 1,000', pg_temp.word(3, 1) || ' ' || pg_temp.word(3, 100) || ' ' || pg_temp.word(3, 1000),
                                                 pg_temp.word(2, 1) || ' ' || pg_temp.word(2, 100) || ' ' || pg_temp.word(2, 1000)),
                 ('1 in 100 without a frequent word', pg_temp.word(3, 100) || ' -' || pg_temp.word(3, 1),
                                                 pg_temp.word(2, 100) || ' -' || pg_temp.word(2, 1))) q (what, query, query_1)
         cross join (select null::int as number, null::int as events, null::text as room_id
                     union all select number, events, room_id from loading.rooms where number = 2) r;
insert into questions (question, query, room)
    select q.what || ', room of ' || r.events, q.query, r.room_id
    from (values ('frequent word', pg_temp.word(2, 1)), ('word of 1 in 1,000', pg_temp.word(2, 1000)), ('rare word', pg_temp.word(2, 30000)),
                 ('phrase of two words of 1 in 50', '"' || pg_temp.word(2, 50) || ' ' || pg_temp.word(2, 60) || '"'),
                 ('absent word', 'xyzzyqq')) q (what, query),
         loading.rooms r where r.number = 1;
insert into questions (question, query, room)
    select 'Chinese: ' || q.what || case when r.number is null then ', all rooms' else ', one room' end, q.query, r.room_id
    from (values ('word of one character', pg_temp.word(5, 1)), ('frequent word of two', pg_temp.word(5, 310)),
                 ('word of two, 1 in 10,000', pg_temp.word(5, 10000)), ('word of three', (select word from loading.words where language = 5 and rank between 5000 and 5100 and char_length(word) = 3 limit 1)),
                 ('phrase of two words', '"' || pg_temp.word(5, 400) || pg_temp.word(5, 500) || '"')) q (what, query)
        cross join (select null::int as number, null::text as room_id union all select number, room_id from loading.rooms where number = 36) r;
insert into questions (question, query) values ('Japanese word', pg_temp.word(6, 1001)), ('Thai word', pg_temp.word(7, 500)),
    ('Arabic word', pg_temp.word(8, 500)), ('Russian word of 1 in 1,000', pg_temp.word(4, 1000));
insert into questions (question, query, since, until) values
    ('word of 1 in 1,000 in a month of 2022, all rooms', pg_temp.word(3, 1000), '2022-03-01', '2022-04-01'),
    ('frequent word in a month of 2022, all rooms', pg_temp.word(3, 1), '2022-03-01', '2022-04-01'),
    ('rare word until 2021, all rooms', pg_temp.word(3, 30000), null, '2021-01-01');
insert into questions (question, query, room, until) select 'word of 1 in 1,000 until 2021, room of ' || events, pg_temp.word(2, 1000), room_id, '2021-01-01'
    from loading.rooms where number = 1;
insert into questions (question, query, sender)
    select 'frequent word of a ' || what || ' sender, all rooms', pg_temp.word(3, 1), sender
    from (select distinct on (what) case when n > 1000 then 'busy' else 'quiet' end as what, sender
          from (select sender, sum(messages) as n from archive.activity where room_id = pg_temp.room(2) group by sender) a
          where n > 1000 or n < 20 order by what, n desc) s;
insert into questions (question, query, sender)
    select 'word of 1 in 1,000 of a busy sender, all rooms', pg_temp.word(3, 1000), sender
    from (select sender from archive.activity where room_id = pg_temp.room(2) group by sender order by sum(messages) desc limit 1) s;
insert into questions (question, query, room, by_rank) values
    ('by rank: frequent word, all rooms', pg_temp.word(3, 1), null, true),
    ('by rank: word of 1 in 1,000, all rooms', pg_temp.word(3, 1000), null, true),
    ('by rank: word of 1 in 1,000, one room', pg_temp.word(3, 1000), pg_temp.room(2), true);
do $$
declare
    q record;
    began timestamptz;
    n int;
begin
    for q in select * from questions order by number loop
        for attempt in 1 .. 5 loop
            began := clock_timestamp();
            select count(*) into n from search(q.query, q.room, q.sender, q.since, q.until, q.by_rank) s where s.marked is not null;
            insert into answers values (q.number, attempt, extract(epoch from clock_timestamp() - began) * 1000, n);
        end loop;
    end loop;
end
$$;
select q.question, max(a.results) as results, round(max(a.ms) filter (where call = 1)::numeric, 1) as first_ms,
       round((percentile_cont(0.5) within group (order by a.ms))::numeric, 1) as median_ms
from questions q join answers a using (number) group by q.number, q.question order by q.number;
