-- The data on which the questions of readers are measured: rooms with a vocabulary like that of a language, by default ten
-- million events in forty rooms. The same numbers give the same events.
--
--     psql … -v events=10000000 -v step=prepare -f load.sql
--     psql … -v step=fill -f load.sql      # in as many sessions at once as there are cores
--     psql … -v step=finish -f load.sql    # indexes, state, members, activity
--
-- Needs a database with Backscroll's migrations and no events in it. Leaves the size of the JSON as served in
-- loading.served.
\set ON_ERROR_STOP on
\if :{?step}
\else
    \echo 'say -v step=prepare, fill or finish'
    \quit
\endif
select :'step' = 'prepare' as is_prepare, :'step' = 'fill' as is_fill, :'step' = 'finish' as is_finish \gset
set client_min_messages = warning;
set jit = off;

\if :is_prepare
\if :{?events}
\else
    \set events 10000000
\endif
drop schema if exists loading cascade;
create schema loading;

-- A number between 0 and 1 that looks random.
create function loading.dice(room int, index bigint, salt int) returns float8 language sql immutable parallel safe
    return (hashint8extended(index, room::bigint * 1000 + salt) & 4294967295)::float8 / 4294967296;
create function loading.id(room int, index bigint) returns text language sql immutable parallel safe
    return translate(rtrim(encode(sha256((room::text || '/' || index::text)::bytea), 'base64'), '='), '+/', '-_');
-- By Zipf's law: a number from 1 to most, and number n is n times as rare as number 1.
create function loading.zipf(dice float8, most int) returns int language sql immutable parallel safe
    return floor(exp(dice * ln(most + 1.0::float8)))::int;

-- Languages: 1 German, 2 French, 3 English, 4 Russian, 5 Chinese, 6 Japanese, 7 Thai, 8 Arabic, each only in its sounds.
create table loading.sounds (language int primary key, starts text[], middles text[], ends text[], separator text);
insert into loading.sounds values
    (1, '{b,d,f,g,h,k,l,m,n,r,s,t,w,z,sch,st,br,gr,tr,kl,pf,v,"",p,fl,kn}', '{a,e,i,o,u,ä,ö,ü,ei,au,ie,eu,e,a}',
     '{"",n,r,l,s,t,ch,ng,nd,rt,st,ß,m,"",cht,nz}', ' '),
    (2, '{b,c,d,f,g,j,l,m,n,p,r,s,t,v,ch,pl,tr,qu,gr,"",ç,br}', '{a,e,i,o,u,é,è,ou,ai,eau,oi,ê,an,on}',
     '{"","",r,l,s,t,nt,x,"",ille,sse}', ' '),
    (3, '{b,c,d,f,g,h,j,k,l,m,n,p,r,s,t,w,th,sh,st,tr,pr,cl,wh,"",qu,sp}', '{a,e,i,o,u,ea,oo,ai,ou,y,e,i}',
     '{"",n,r,l,s,t,d,ng,ck,st,"",ght,m,ve}', ' '),
    (4, '{б,в,г,д,ж,з,к,л,м,н,п,р,с,т,ф,х,ч,ш,пр,ст,тр,"",кр,вл}', '{а,е,и,о,у,ы,ю,я,ё,о,а,е}', '{"","",й,л,н,т,р,сь,м,в,ст}', ' '),
    (7, '{ก,ข,ค,ง,จ,ช,ด,ต,ท,น,บ,ป,พ,ม,ย,ร,ล,ว,ส,ห}', '{า,ิ,ี,ุ,ู,ั,่า,้า}', '{"",น,ม,ง,ก,บ,ย}', ''),
    (8, '{ا,ب,ت,ث,ج,ح,خ,د,ر,س,ش,ص,ع,غ,ف,ق,ك,ل,م,ن,ه}', '{"",ا,ي,و,"",""}', '{"",ن,ة,"",ت}', ' ');
create table loading.words (language int, rank int, word text collate "C");
-- The more frequent a word, the shorter it is.
insert into loading.words
    select language, row_number() over (partition by language order by n), word
    from (select s.language, min(n) as n,
                 case when n % 3 = 0 and s.language = 1 or n % 40 = 0 then initcap(word) else word end as word
          from loading.sounds s, generate_series(1, 160000) n,
               lateral (select string_agg(s.starts[1 + (loading.dice(s.language, n, 10 + j) * cardinality(s.starts))::int
                                                       % cardinality(s.starts)]
                                          || s.middles[1 + (loading.dice(s.language, n, 20 + j) * cardinality(s.middles))::int
                                                       % cardinality(s.middles)]
                                          || case when j % 2 = 1 then s.ends[1 + (loading.dice(s.language, n, 30 + j)
                                                       * cardinality(s.ends))::int % cardinality(s.ends)] else '' end, '') as word
                        from generate_series(1, case when n <= 30 then 1
                            else 1 + (loading.dice(s.language, n, 1) * least(3, ln(n) / 3))::int end) j) made
          group by s.language, case when n % 3 = 0 and s.language = 1 or n % 40 = 0 then initcap(word) else word end) w;
-- Chinese: words of one to three of 3,500 characters. Japanese: particles, words of two characters with an ending, and words
-- in katakana.
insert into loading.words
    select 5, row_number() over (order by min(n)), word
    from (select n, (select string_agg(chr(19968 + (loading.zipf(loading.dice(5, n, j), 3500) * 7919) % 20000), '')
                     from generate_series(1, case when n <= 300 then 1 when n % 6 = 0 then 3 else 2 end) j) as word
          from generate_series(1, 120000) n) w
    group by word;
insert into loading.words
    select 6, row_number() over (order by min(n)), word
    from (select n, case
                     when n <= 60 then (select string_agg(chr(12354 + (loading.dice(6, n, j) * 80)::int), '')
                                        from generate_series(1, 1 + n % 2) j)
                     when n % 4 = 0 then (select string_agg(chr(12450 + (loading.dice(6, n, j) * 80)::int), '')
                                          from generate_series(1, 3 + n % 3) j)
                     else (select string_agg(chr(19968 + (loading.zipf(loading.dice(6, n, j), 2000) * 7919) % 20000), '')
                           from generate_series(1, 2) j)
                         || case when n % 3 = 0 then chr(12354 + (loading.dice(6, n, 9) * 80)::int) else '' end end as word
          from generate_series(1, 90000) n) w
    group by word;
delete from loading.words where rank > 50000;
insert into loading.sounds values (5, '{}', '{}', '{}', ''), (6, '{}', '{}', '{}', '');
create unique index on loading.words (language, rank) include (word);

create table loading.users (number int primary key, user_id text collate "C", name text);
insert into loading.users
    select n, '@' || lower(w.word) || case when n % 3 = 0 then '' else (n % 97)::text end || '_' || n || ':'
              || (array['matrix.org', 'example.org', 'mozilla.org', 'kde.org', 'tchncs.de', 'envs.net'])
                 [1 + (n % 7 + n % 11) % 6],
           initcap(w.word) || case when n % 5 = 0 then ' ' || initcap(x.word) else '' end
    from generate_series(0, 7999) n
        join loading.words w on w.language = 1 + n % 4 and w.rank = 500 + n
        join loading.words x on x.language = w.language and x.rank = 1500 + n;

create table loading.rooms (number int primary key, room_id text collate "C", events int, members int, language int,
                            done boolean not null default false);
insert into loading.rooms
    select n, '!' || left(translate(loading.id(0, n), '-_0123456789', 'abcdefghijkl'), 18) || ':'
              || (array['matrix.org', 'example.org', 'kde.org'])[1 + n % 3],
           greatest(1000, case n when 1 then :events * 0.1 when 2 then :events * 0.025
                          else :events * 0.875 * (0.5 + n % 10 / 10.0) / sum(case when n > 2 then 0.5 + n % 10 / 10.0 end) over ()
                          end)::int,
           greatest(60, least(5000, :events / 200, case n when 1 then 5000 else 60 + (n * n * 13) % 1500 end))::int,
           case when n <= 30 then 1 + n % 3 when n <= 34 then 4 when n <= 37 then 5 when n <= 39 then 6 else 7 end
    from generate_series(1, 40) n;
create table loading.indexes as
    select i.indexrelid::regclass::text as name, c.conname, coalesce(pg_get_constraintdef(c.oid), pg_get_indexdef(i.indexrelid)) as definition,
           obj_description(i.indexrelid, 'pg_class') as comment
    from pg_index i left join pg_constraint c on c.conindid = i.indexrelid and c.contype = 'p'
    where i.indrelid = 'archive.events'::regclass;
do $$
declare
    i record;
begin
    for i in select * from loading.indexes loop
        if i.conname is null then
            execute 'drop index ' || i.name;
        else
            execute format('alter table archive.events drop constraint %I', i.conname);
        end if;
    end loop;
end
$$;

-- The kind of an event follows from its number: of a thousand, 30 are edits, 80 replies, 40 replies in threads, 10 files, 730
-- plain messages, 50 reactions, 50 state events, 5 redactions, 2 polls with 2 votes, and 1 is encrypted. `slot` counts the kinds, so
-- that an edit is the next event after its message.
create procedure loading.fill() language plpgsql as $$
declare
    r loading.rooms;
begin
    loop
        select * into r from loading.rooms where not done order by events desc limit 1 for update skip locked;
        exit when not found;
        insert into archive.events (position, origin_server_ts, received_at, edited_at, edit_count, room_id, event_id, type, sender,
            state_key, relates_to, rel_type, thread_root, redacts, redacted_by, replaces_state, edited_by, stable_sha256, content,
            edited_content, prev_content)
        select (i - r.events)::bigint * 65536, ts, timestamptz '2026-11-01' + (r.events - i) * interval '50 microseconds',
            case when edited and not redacted then archive.sent_at(ts + 9000) end,
            case when edited and not redacted then 1 end,
            r.room_id, '$' || loading.id(r.number, i),
            case kind when 'reaction' then 'm.reaction' when 'redaction' then 'm.room.redaction' when 'poll' then 'm.poll.start'
                when 'vote' then 'm.poll.response' when 'encrypted' then 'm.room.encrypted'
                when 'member' then 'm.room.member'
                when 'state' then (array['m.room.topic', 'm.room.pinned_events', 'm.room.avatar', 'm.room.name'])[1 + k % 4]
                when 'start' then (array['m.room.create', 'm.room.member', 'm.room.power_levels', 'm.room.join_rules',
                                         'm.room.history_visibility', 'm.room.name', 'm.room.topic'])[1 + i]
                else 'm.room.message' end,
            sender.user_id,
            case when kind = 'member' or kind = 'start' and i = 1 then sender.user_id when kind in ('state', 'start') then '' end,
            target, rel_type,
            case when rel_type = 'm.thread' then target end,
            case when kind = 'redaction' then '$' || loading.id(r.number, i - 1000 + (i_of_redacted - i_of_redaction)) end,
            case when redacted then '$' || loading.id(r.number, i + 1000 + (i_of_redaction - i_of_redacted)) end,
            case when kind = 'member' and q >= r.members then '$' || loading.id(r.number, replaced) end,
            case when edited and not redacted then '$' || loading.id(r.number, i + 1) end,
            sha256(int8send(i)), content,
            case when edited and not redacted then jsonb_build_object('msgtype', 'm.text', 'body', second.body, 'm.mentions', '{}'::jsonb) end,
            case when kind = 'member' and q >= r.members then
                case (pass - 1) % 4 when 2 then '{"membership": "leave"}'
                    else jsonb_build_object('membership', 'join', 'displayname', sender.name || case when pass - 1 > 0 then ' ' || (pass - 1) else '' end) end
            end
        from (
            select i, slot, k, kind, q, q / r.members as pass,
                -- Six years, with quiet nights.
                (1577836800000 + floor(days) * 86400000 + (days - floor(days) - 0.13 * sin(2 * pi() * (days - floor(days)))) * 86400000)::bigint + r.number * 977 as ts,
                slot between 623 and 652 and i + 1 < r.events and i > 6 as edited,
                slot between 200 and 204 and i + 1000 + (i_of_redaction - i_of_redacted) < r.events and i > 6 as redacted,
                i_of_redaction, i_of_redacted,
                ((940 + (q - r.members) % 49) * 313) % 1000 + 1000 * ((q - r.members) / 49) as replaced,
                case kind when 'edit' then '$' || loading.id(r.number, i - 1)
                    when 'thread' then '$' || loading.id(r.number, plain_near)
                    when 'reaction' then '$' || loading.id(r.number, plain_near)
                    when 'vote' then '$' || loading.id(r.number, ((995 + slot % 2) * 313) % 1000 + 1000 * greatest(k - 1, 0)) end as target,
                case kind when 'edit' then 'm.replace' when 'thread' then 'm.thread' when 'reaction' then 'm.annotation'
                    when 'vote' then 'm.reference' end as rel_type,
                plain_near,
                case when r.language = 7 and loading.dice(r.number, i, 5) < 0.5 then 8 else r.language end as language,
                case kind
                    when 'member' then q % r.members
                    when 'start' then 0 when 'state' then 0
                    -- A conversation is forty events of six people.
                    else loading.zipf(loading.dice(r.number, spoken / 40 * 8 + floor(loading.dice(r.number, spoken, 8) * 6)::int, 2),
                                      r.members) - 1 end as member
            from (select i, slot, k, kind, case kind when 'edit' then i - 1 else i end as spoken,
                         k::bigint * 49 + slot - 940 as q, i::float8 / r.events * 2190 as days,
                         ((990 + slot % 5) * 313) % 1000 as i_of_redaction, ((200 + slot % 5) * 313) % 1000 as i_of_redacted,
                         -- A plain message before it: mostly a near one, of a reaction sometimes one that many react to.
                         ((160 + (loading.zipf(loading.dice(r.number, i, 3), 400) * 31) % 460) * 313) % 1000
                             + 1000 * greatest(0, k - loading.zipf(loading.dice(r.number, i, 4), 50)) as plain_near
                  from (select i, (i * 377) % 1000 as slot, i / 1000 as k,
                               case when i < 7 then 'start'
                                   else case when (i * 377) % 1000 < 30 then 'edit' when (i * 377) % 1000 < 110 then 'reply'
                                       when (i * 377) % 1000 < 150 then 'thread' when (i * 377) % 1000 < 160 then 'file'
                                       when (i * 377) % 1000 < 890 then 'plain' when (i * 377) % 1000 < 940 then 'reaction'
                                       when (i * 377) % 1000 < 989 then 'member' when (i * 377) % 1000 = 989 then 'state'
                                       when (i * 377) % 1000 < 995 then 'redaction' when (i * 377) % 1000 < 997 then 'poll'
                                       when (i * 377) % 1000 < 999 then 'vote' else 'encrypted' end end as kind
                        from generate_series(r.events - 1, 0, -1) i) kinds) places) e
            join loading.users sender on sender.number = (e.member * 7 + r.number * 131) % 8000
            join loading.sounds said on said.language = e.language
            -- The text, of 3 to 40 words; of an edited message also that of the edit.
            cross join lateral (
                select upper(left(string_agg(w.word || case (hashint8(j * 7919 + e.i) & 15) when 0 then ',' when 1 then '.' else '' end, said.separator), 1))
                       || substr(string_agg(w.word || case (hashint8(j * 7919 + e.i) & 15) when 0 then ',' when 1 then '.' else '' end, said.separator), 2)
                       || case hashint8(e.i) & 31 when 0 then ' 🎉' when 1 then ' https://example.org/' || substr(md5(e.i::text), 1, 8)
                              when 2 then ' ' || (e.i % 2000)::text when 3 then ' 👍' when 4 then '?' when 5 then '?' when 6 then '!' else '.' end as body
                from generate_series(1, case when kind in ('edit', 'reply', 'thread', 'plain', 'poll') and not redacted
                                            then 3 + (38 * loading.dice(r.number, i, 6) ^ 3.6)::int
                                        when kind = 'file' then 2 else 0 end) j
                    join loading.words w on w.language = e.language
                        and w.rank = loading.zipf((hashint8extended(e.i * 64 + j, r.number) & 4294967295)::float8 / 4294967296, 50000)) first
            cross join lateral (
                select string_agg(w.word, said.separator) as body
                from generate_series(1, case when edited then 3 + (38 * loading.dice(r.number, i + 1, 6) ^ 3.6)::int
                                        when kind = 'reply' and i < r.events / 2 then 8 else 0 end) j
                    join loading.words w on w.language = e.language
                        and w.rank = loading.zipf((hashint8extended((e.i + 1) * 64 + j, r.number) & 4294967295)::float8 / 4294967296, 50000)) second
            cross join lateral (select case
                when redacted then '{}'
                when kind = 'plain' then case
                    when i % 10 = 3 then jsonb_build_object('msgtype', 'm.text', 'body', first.body, 'format', 'org.matrix.custom.html',
                                                            'formatted_body', '<p>' || replace(first.body, '.', '.<br/>') || '</p>')
                    when i % 2 = 0 then jsonb_build_object('msgtype', 'm.text', 'body', first.body, 'm.mentions', '{}'::jsonb)
                    else jsonb_build_object('msgtype', 'm.text', 'body', first.body) end
                when kind = 'edit' then jsonb_build_object('msgtype', 'm.text', 'body', '* ' || first.body, 'm.new_content',
                    jsonb_build_object('msgtype', 'm.text', 'body', first.body, 'm.mentions', '{}'::jsonb),
                    'm.relates_to', jsonb_build_object('rel_type', 'm.replace', 'event_id', target))
                when kind = 'reply' then jsonb_build_object('msgtype', 'm.text', 'body',
                    coalesce('> <' || sender.user_id || '> ' || second.body || E'\n\n', '') || first.body,
                    'm.relates_to', jsonb_build_object('m.in_reply_to', jsonb_build_object('event_id', '$' || loading.id(r.number, plain_near))))
                when kind = 'thread' then jsonb_build_object('msgtype', 'm.text', 'body', first.body, 'm.relates_to',
                    jsonb_build_object('rel_type', 'm.thread', 'event_id', target, 'is_falling_back', true, 'm.in_reply_to',
                                       jsonb_build_object('event_id', target)))
                when kind = 'file' then jsonb_build_object('msgtype', case i % 4 when 0 then 'm.file' else 'm.image' end, 'body',
                    replace(rtrim(first.body, '.!? '), ' ', '_') || case i % 4 when 0 then '.pdf' else '.jpg' end,
                    'url', 'mxc://matrix.org/' || left(loading.id(r.number, -i), 24),
                    'info', jsonb_build_object('mimetype', case i % 4 when 0 then 'application/pdf' else 'image/jpeg' end,
                                               'size', 10000 + i % 900000, 'w', 1600, 'h', 1200))
                when kind = 'reaction' then jsonb_build_object('m.relates_to', jsonb_build_object('rel_type', 'm.annotation', 'event_id', target,
                    'key', (array['👍', '❤️', '😂', '🎉', '👀', '🚀', '😢', '✅', '🔥', '🙏', '💯', '🤔'])
                           [loading.zipf(loading.dice(r.number, i, 7), 12)]))
                when kind = 'redaction' then jsonb_build_object('reason', 'spam', 'redacts',
                    '$' || loading.id(r.number, i - 1000 + (i_of_redacted - i_of_redaction)))
                when kind = 'poll' then jsonb_build_object('m.poll', jsonb_build_object('kind', 'm.disclosed', 'max_selections', 1,
                    'question', jsonb_build_object('m.text', jsonb_build_array(jsonb_build_object('body', first.body))), 'answers',
                    '[{"m.id": "1", "m.text": [{"body": "yes"}]}, {"m.id": "2", "m.text": [{"body": "no"}]}]'::jsonb),
                    'm.text', jsonb_build_array(jsonb_build_object('body', first.body || E'\n1. yes\n2. no')))
                when kind = 'vote' then jsonb_build_object('m.relates_to', jsonb_build_object('rel_type', 'm.reference', 'event_id', target),
                    'm.selections', jsonb_build_array((1 + i % 2)::text))
                when kind = 'encrypted' then jsonb_build_object('algorithm', 'm.megolm.v1.aes-sha2', 'ciphertext', repeat(md5(i::text), 8),
                    'session_id', loading.id(r.number, i / 1000), 'device_id', 'ABCDEFGHIJ', 'sender_key', loading.id(r.number, member))
                when kind = 'member' then case pass % 4 when 2 then '{"membership": "leave"}'
                    else jsonb_build_object('membership', 'join', 'displayname', sender.name || case when pass > 0 then ' ' || pass else '' end,
                                            'avatar_url', 'mxc://matrix.org/' || left(loading.id(0, member + pass), 24)) end
                when kind = 'state' then case k % 4 when 0 then jsonb_build_object('topic', 'About ' || k)
                    when 1 then jsonb_build_object('pinned', jsonb_build_array('$' || loading.id(r.number, plain_near)))
                    when 2 then jsonb_build_object('url', 'mxc://matrix.org/' || left(loading.id(r.number, k), 24))
                    else jsonb_build_object('name', 'Room ' || r.number || ' of ' || k) end
                else case i when 0 then '{"room_version": "11"}' when 1 then '{"membership": "join", "displayname": "Founder"}'
                    when 2 then '{"users_default": 0, "events_default": 0, "ban": 50, "kick": 50, "redact": 50}'
                    when 3 then '{"join_rule": "public"}' when 4 then '{"history_visibility": "shared"}'
                    when 5 then jsonb_build_object('name', 'Room ' || r.number) else '{"topic": "Everything"}' end
                end::jsonb as content) made
        order by i desc;
        update loading.rooms set done = true where number = r.number;
        commit;
    end loop;
end
$$;
\endif

\if :is_fill
set enable_hashjoin = off;
set enable_mergejoin = off;
set enable_memoize = off;
set enable_sort = off;
set synchronous_commit = off;
call loading.fill();
\endif

\if :is_finish
set maintenance_work_mem = '1GB';
set work_mem = '256MB';
do $$
declare
    i record;
begin
    for i in select * from loading.indexes order by conname nulls last loop
        if i.conname is null then
            execute i.definition;
            if i.comment is not null then
                execute format('comment on index %s is %L', i.name, i.comment);
            end if;
        else
            execute format('alter table archive.events add constraint %I %s', i.conname, i.definition);
        end if;
    end loop;
end
$$;
vacuum (analyze) archive.events;
insert into archive.accounts (user_id, homeserver, since, synced_at) values ('@archive:example.org', 'https://example.org', 's1', now())
    on conflict do nothing;
insert into archive.rooms (room_id, room_version, membership, bootstrapped, history_state, event_count)
    select room_id, '11', 'join', true, 'complete', events from loading.rooms;
insert into archive.walks (room_id, kind, pages, events, lower_reached, ends, state)
    select room_id, 'history', events / 100, events, true, 1, 'done' from loading.rooms;
insert into archive.current_state (room_id, type, state_key, event_id)
    select distinct on (room_id, type, state_key) room_id, type, state_key, event_id
    from archive.events where state_key is not null order by room_id, type, state_key, position desc;
insert into archive.state_changes (room_id, type, state_key, new_event_id, cause)
    select room_id, type, state_key, event_id, 'bootstrap' from archive.current_state;
insert into archive.members (room_id, user_id, event_id, membership, display_name, avatar_url, shown_name)
    select s.room_id, s.state_key, s.event_id, e.content ->> 'membership', shown.name, shown.avatar,
           case when shown.name is null then s.state_key
               when count(*) over (partition by s.room_id, shown.name) > 1 then shown.name || ' (' || s.state_key || ')'
               else shown.name end
    from archive.current_state s join archive.events e using (room_id, event_id)
        cross join lateral (
            select coalesce(e.content ->> 'displayname', e.prev_content ->> 'displayname') as name,
                   coalesce(e.content ->> 'avatar_url', e.prev_content ->> 'avatar_url') as avatar) shown
    where s.type = 'm.room.member';
insert into archive.redactions (room_id, target_event_id, redaction_event_id, state)
    select room_id, redacts, event_id, 'applied' from archive.events where type = 'm.room.redaction' on conflict do nothing;
insert into archive.activity (day, messages, edits, reactions, room_id, sender)
    select (sent_at at time zone 'UTC')::date,
           count(*) filter (where type in ('m.room.message', 'm.poll.start', 'm.room.encrypted') and rel_type is distinct from 'm.replace'),
           count(*) filter (where rel_type = 'm.replace'), count(*) filter (where type = 'm.reaction'), room_id, sender
    from archive.events
    where redacted_by is null and (type in ('m.room.message', 'm.poll.start', 'm.room.encrypted', 'm.reaction'))
    group by 1, room_id, sender
    -- As a walk through each room's history leaves them.
    order by room_id, 1 desc;
-- As the daemon does after a backfill.
reindex index archive.activity_pkey;
update archive.rooms r
set message_count = (select coalesce(sum(a.messages), 0) from archive.activity a where a.room_id = r.room_id);
vacuum (analyze) archive.rooms, archive.current_state, archive.state_changes, archive.members, archive.redactions, archive.activity;
-- As Synapse answers /messages: the key `age` and what else is in `unsigned` twice, and no spaces.
create table loading.served as
    select count(*)::bigint as sampled, avg(octet_length(replace(replace(jsonb_strip_nulls(jsonb_build_object('content', content, 'event_id', event_id,
               'origin_server_ts', origin_server_ts, 'room_id', room_id, 'sender', sender, 'user_id', sender, 'type', type,
               'state_key', state_key, 'redacts', redacts, 'replaces_state', replaces_state, 'prev_content', prev_content,
               'age', 123456789012, 'unsigned', jsonb_build_object('age', 123456789012, 'replaces_state', replaces_state,
               'prev_content', prev_content)))::text, '": ', '":'), ', "', ',"')))
               * (select sum(events) from loading.rooms) as bytes
    from archive.events tablesample system (2);
select sampled, pg_size_pretty(bytes) as served, pg_total_relation_size('archive.events') / bytes as ratio_of_events from loading.served;
\endif
