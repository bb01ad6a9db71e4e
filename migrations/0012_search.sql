-- Search: for every 127 messages of a room a row with the hashes of their words, and an index on those. It is filled behind
-- the writer from a queue. What is found is then compared with the text itself, so an answer is exact, and what is edited or
-- redacted is not found by its old text even before its row is changed.
--
-- It is not PostgreSQL's text search, which takes a Chinese sentence for one word, and not trigrams, whose index is as
-- large as the text. No word is stored, so nothing here outlives a redaction that could be read.

-- PostgreSQL's own lower() is that of the database, which knows only ASCII in a database of locale C.
do $$
begin
    if exists (select from pg_collation where collname = 'und-x-icu') then
        create function archive.lower_case(value text) returns text language sql immutable parallel safe
            as 'select lower(value collate "und-x-icu") collate "C"';
        create function archive.lower_case_source() returns text language sql immutable parallel safe
            as 'select text ''icu''';
    elsif lower('ΑЖÞ') = 'αжþ' then
        create function archive.lower_case(value text) returns text language sql immutable parallel safe
            as 'select lower(value) collate "C"';
        create function archive.lower_case_source() returns text language sql immutable parallel safe
            as 'select text ''database''';
    else
        -- Accents are gone before this is called.
        create function archive.lower_case(value text) returns text language sql immutable parallel safe
            as 'select translate(lower(value collate "C"),
                ''АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯЂЄЅІЈЉЊЋЏҐҒҚҢҮҰҲҺӘӨΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩÆØÞÐŁŒŊĐƏ'',
                ''абвгдежзийклмнопрстуфхцчшщъыьэюяђєѕіјљњћџґғқңүұҳһәөαβγδεζηθικλμνξοπρστυφχψωæøþðłœŋđə'') collate "C"';
        create function archive.lower_case_source() returns text language sql immutable parallel safe
            as 'select text ''table''';
    end if;
end
$$;
comment on function archive.lower_case(text) is 'A text without accents in lower case. Made when this schema was applied: by ICU where the server has it, else as the database does it if that knows more than ASCII, else by a table of Latin, Greek and Cyrillic letters.';
comment on function archive.lower_case_source() is 'What archive.lower_case() uses: icu, database or table. With table, capital letters of other scripts than Latin, Greek and Cyrillic (Armenian, Cherokee, Deseret, …) are only found as they are written.';

-- The ranges of characters are code points, because what a letter is differs between locales. PostgreSQL puts these constants
-- into a statement when it plans it.
create function archive.ignored_characters() returns text language sql immutable parallel safe
    return '\u00ad\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640'
           '\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed\u180b-\u180f\u1ab0-\u1aff\u1dc0-\u1dff\u200b-\u200f'
           '\u202a-\u202e\u2060-\u206f\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f\ufeff\U000e0000-\U000e0fff';
comment on function archive.ignored_characters() is 'Accents, vowel points, and characters without width: search leaves them out.';
create function archive.lone_characters() returns text language sql immutable parallel safe
    return '\u0e01-\u0e3a\u0e40-\u0e4e\u0e80-\u0ecf\u0edc-\u0edf\u0f00\u0f40-\u0f84\u0f86-\u0fbc\u1000-\u103f\u1050-\u109f'
           '\u1780-\u17d3\u17dc\u17dd\u1950-\u19df\u1a20-\u1aad\u1b00-\u1b4c\u20a0-\u20cf\u2190-\u2bff\u2e80-\u2fdf\u3005-\u3007\u3012'
           '\u3013\u3020-\u302f\u3031-\u303c\u3041-\u309f\u30a1-\u30fa\u30fc-\ua4cf\ua980-\ua9c0\ua9cf\ua9e0-\ua9ff\uaa60-\uaadd\uac00-\ud7a3'
           '\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b2ff\U0001f000-\U0001faff\U00020000-\U000323af';
comment on function archive.lone_characters() is 'Characters that are a word of their own in search: those of scripts without spaces between words, syllables of Hangul (particles follow a Korean word without a space), and symbols.';
create function archive.separating_characters() returns text language sql immutable parallel safe
    return '\u0001-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u00a9\u00ab\u00ac\u00ae-\u00b1\u00b4\u00b6\u00b7\u00bb\u00bf'
           '\u00d7\u00f7\u02b9-\u02bf\u037e\u0387\u055a-\u055f\u0589\u058a\u05be\u05c0\u05c3\u05c6\u05f3\u05f4\u0609-\u060d\u061b-\u061f'
           '\u066a-\u066d\u06d4\u0700-\u070d\u0964\u0965\u0970\u0df4\u0e4f\u0e5a\u0e5b\u0f01-\u0f17\u0f34\u0f36\u0f38'
           '\u0f3a-\u0f3d\u0f85\u0fd0-\u0fd4\u104a-\u104f\u10fb\u1360-\u1368\u1400\u166d\u166e\u1680\u169b\u169c'
           '\u16eb-\u16ed\u1735\u1736\u17d4-\u17db\u1800-\u180a\u1944\u1945\u1b4e\u1b4f\u1b5a-\u1b60\u1b7d-\u1b7f\u2000-\u200a\u2010-\u2029\u202f-\u205f'
           '\u2e00-\u2e7f\u3000-\u3004\u3008-\u3011\u3014-\u301f\u3030\u303d\u30a0\u30fb\ua4fe\ua4ff\ua60d-\ua60f'
           '\ua6f2-\ua6f7\ua78b\ua78c\ua874-\ua877\ua8ce\ua8cf\ua92e\ua92f\ua9c1-\ua9cd\ua9de\ua9df\uaade\uaadf\uabeb\ue000-\uf8ff\ufd3e\ufd3f'
           '\ufe10-\ufe19\ufe30-\ufe6f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\ufff0-\uffff';
comment on function archive.separating_characters() is 'Characters between words: spaces, punctuation and apostrophes.';
create function archive.spaces() returns text language sql immutable parallel safe
    return '\u0020\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000';
comment on function archive.spaces() is 'Those of the characters between words that are spaces. \s in a regular expression depends on the database''s locale.';

create function archive.search_words(value text) returns text
    language plpgsql immutable strict parallel safe cost 500
    as $$
declare
    -- Of a longer text only the beginning is searched. The collation is that of lower(): one of Turkish makes another i of I.
    folded text collate "C" := left(value, 65536);
    -- A character for private use stands for the punctuation between two characters of which each is a word of its own. So
    -- the last character of a sentence and the first of the next are no word.
    punctuation constant text := ' ' || chr(1114109) || ' ';
begin
    if octet_length(folded) <> char_length(folded) then
        -- A trade mark is no part of a word. Single letters of Hangul, such as laughter, are no parts of syllables.
        if folded ~ '[\u2120\u2122\u3131-\u318e\uffa0-\uffdc]' then
            folded := regexp_replace(translate(folded, '℠™', '  '), '([\u3131-\u318e\uffa0-\uffdc])', ' \1 ', 'g');
        end if;
        folded := regexp_replace(normalize(folded, nfkd), '[' || archive.ignored_characters() || ']+', '', 'g');
        if octet_length(folded) <> char_length(folded) then
            folded := archive.lower_case(folded);
            if folded ~ '[ßẞæœþøłđıſςւ]' then
                folded := translate(replace(replace(replace(replace(replace(replace(folded, 'ß', 'ss'), 'ẞ', 'ss'), 'æ', 'ae'),
                                                            'œ', 'oe'), 'þ', 'th'), 'եւ', 'եվ'),
                                    'øłđıſς', 'oldisσ');
            end if;
        end if;
        if octet_length(folded) <> char_length(folded) then
            -- Vowels of India, syllables of Hangul and voiced kana are one character again. Others have no accents left.
            if folded ~ '[\u0900-\u0dff\u1000-\u11ff\u1b00-\u1b7f\u3099\u309a\U00011000-\U00011fff]' then
                folded := normalize(folded, nfc);
            end if;
            if folded ~ '[\u0e01-\U000323af]' then
                folded := regexp_replace(
                    folded,
                    '([' || archive.lone_characters() || '])[' || archive.spaces() || ']*(?![' || archive.spaces() || '])['
                        || archive.separating_characters() || ']+(?=[' || archive.lone_characters() || '])',
                    '\1' || punctuation, 'g');
                folded := regexp_replace(folded, '([' || archive.lone_characters() || '])', ' \1 ', 'g');
            end if;
            return ' ' || ltrim(regexp_replace(folded || ' ', '[' || archive.separating_characters() || ']+', ' ', 'g'));
        end if;
    end if;
    return ' ' || ltrim(regexp_replace(lower(folded) || ' ', '[^a-z0-9]+', ' ', 'g'));
end
$$;
comment on function archive.search_words(text) is 'The words of a text as they are compared: in lower case, without accents, each between single spaces. A text without words is a single space.';

-- Two characters side by side say far more than one does, of some thousands. So a word has a positive hash, and a character
-- that is a word of its own a negative one, of 13 bits of itself and 11 of the next such character: 1 if none follows. The
-- seven lowest bits are for the number of the message.
create function archive.word_token(word text) returns int language sql immutable parallel safe
    return hashtext(word collate "C") & 2147483520;
comment on function archive.word_token(text) is 'The hash of a word in archive.search_blocks.';
create function archive.pair_token(first text, next text) returns int language sql immutable parallel safe
    return (-2147483648) | ((hashtext(first collate "C") & 8191) << 18)
           | (case when ascii(next) > 3583 and char_length(next) = 1 then greatest(2, hashtext(next collate "C") & 2047)
                   else 1 end << 7);
comment on function archive.pair_token(text, text) is 'The hash of a character that is a word of its own and the word after it in archive.search_blocks.';

create function archive.search_tokens(words text, out above int, out up_to int, out token int) returns setof record
    language sql immutable strict parallel safe
    as $$
    select t.above, t.up_to, t.token
    from (select word, next, ascii(word) > 3583 and char_length(word) = 1 as is_lone,
                 ascii(next) > 3583 and char_length(next) = 1 as is_pair,
                 lag(ascii(word) > 3583 and char_length(word) = 1) over (order by place) as is_second
          from unnest(string_to_array(btrim(words), ' '), (string_to_array(btrim(words), ' '))[2:])
               with ordinality said (word, next, place)) w
        cross join lateral (
            select h.hash as above, h.hash | 127 as up_to, h.hash as token
            from (select archive.word_token(w.word) as hash) h where not w.is_lone
            union all
            select h.hash, h.hash | 127, h.hash from (select archive.pair_token(w.word, w.next) as hash) h
            where w.is_lone and w.is_pair
            union all
            -- All pairs that begin with the character.
            select h.hash, h.hash | 262143, h.hash from (select archive.pair_token(w.word, '') & -262144 as hash) h
            where w.is_lone and w.is_pair is not true and w.is_second is not true) t
$$;
comment on function archive.search_tokens(text) is 'What a row of archive.search_blocks must have, for what archive.search_words() makes of a query: tokens above a number and up to another; and what the index has for them.';

create function archive.is_searched(type text, state_key text, rel_type text, relates_to text, redacted_by text, content jsonb)
    returns boolean language sql immutable parallel safe
    return state_key is null and redacted_by is null and (rel_type is distinct from 'm.replace' or relates_to is null)
        and type <> 'm.room.encrypted' and archive.is_message(type, content);
comment on function archive.is_searched(text, text, text, text, text, jsonb) is 'Whether an event is a message that can be searched: as in the view messages, without what is encrypted or redacted.';

create function archive.searched_text(type text, content jsonb, edited_content jsonb, in_reply_to text, with_more boolean)
    returns text language plpgsql immutable parallel safe cost 500
    as $$
declare
    shown jsonb := coalesce(edited_content, content);
    body text;
    filename text;
begin
    body := archive.message_body(type, shown, in_reply_to, edited_content is not null);
    if with_more and type in ('m.poll.start', 'org.matrix.msc3381.poll.start') then
        return concat_ws(E'\n', body, (select string_agg(answer ->> 'text', E'\n')
                                       from jsonb_array_elements(archive.poll_answers(shown)) answer));
    end if;
    if with_more and shown ? 'filename' and shown ->> 'msgtype' in ('m.file', 'm.image', 'm.audio', 'm.video') then
        filename := archive.text_of(shown -> 'filename');
        if filename is distinct from body then
            body := concat_ws(E'\n', body, filename);
        end if;
    end if;
    return body;
end
$$;
comment on function archive.searched_text(text, jsonb, jsonb, text, boolean) is 'What a message says, after edits and without the quoted text of what it answers; with_more: with the name of a file and the answers of a poll, each in its line.';

create function archive.block_tokens(tokens int[]) returns int[]
    language sql immutable strict parallel safe
    return (select array_agg(t.token)
            from (select token & -128 as token from unnest(tokens) token
                  union all select token & -262144 from unnest(tokens) token where token < 0) t);
comment on function archive.block_tokens(int[]) is 'What the index has of a row of archive.search_blocks: the hashes without the numbers of the messages, and those of single characters.';

create table archive.search_blocks (
    first_position bigint not null,
    last_position bigint not null,
    newest_at timestamptz not null,
    oldest_at timestamptz not null,
    room_id text collate "C" not null,
    message_offsets int[] not null,
    tokens int[] not null,
    primary key (room_id, first_position)
);
-- Hashes cannot be compressed. Those of full blocks are beside the table, so that the rows are short.
alter table archive.search_blocks alter column tokens set storage external;
comment on table archive.search_blocks is 'What up to 127 consecutive messages of a room have in words. Ranges of positions in one room do not overlap.';
comment on column archive.search_blocks.first_position is 'Position of its first message.';
comment on column archive.search_blocks.last_position is 'Position of its last message.';
comment on column archive.search_blocks.newest_at is 'The latest sent_at of its messages; -infinity: none is known.';
comment on column archive.search_blocks.oldest_at is 'The earliest sent_at of its messages, at most 28 days before newest_at unless archive.is_wide_block(); -infinity: one is not known.';
comment on column archive.search_blocks.room_id is 'Room.';
comment on column archive.search_blocks.message_offsets is 'Positions of its messages, less first_position.';
comment on column archive.search_blocks.tokens is 'Ascending: for each message 25 bits of a hash of each word, see archive.search_tokens(), and in the seven lowest bits the number of the message in message_offsets. With number 0, the hashes of ''sender:'' with each sender, and of ''room:'' with the room.';
create index search_blocks_time on archive.search_blocks (newest_at);
create index search_blocks_room_time on archive.search_blocks (hashtext(room_id), newest_at);
create function archive.is_wide_block(newest_at timestamptz, oldest_at timestamptz) returns boolean
    language sql immutable parallel safe
    return case when isfinite(oldest_at) then newest_at - oldest_at > interval '28 days' else newest_at > '-infinity' end;
comment on function archive.is_wide_block(timestamptz, timestamptz) is 'Whether the messages of a row of archive.search_blocks are of more than 28 days, because their times go back again and again.';
create index search_blocks_wide on archive.search_blocks (hashtext(room_id)) where archive.is_wide_block(newest_at, oldest_at);
create index search_blocks_tokens on archive.search_blocks using gin (archive.block_tokens(tokens));
comment on index archive.search_blocks_time is 'The newest messages of all rooms with a frequent word.';
comment on index archive.search_blocks_room_time is 'The newest messages of a room with a frequent word. By a hash of the room, which is a third of the size.';
comment on index archive.search_blocks_wide is 'Whether a search until a time must look at newer blocks, too. Hardly any block is in it.';
comment on index archive.search_blocks_tokens is 'The messages with a rare word. Together with the table, some 100 bytes an event.';
-- Their samples would be made of all hashes of thousands of rows.
alter index archive.search_blocks_tokens alter column 1 set statistics 0;
alter index archive.search_blocks_room_time alter column 1 set statistics 0;
alter index archive.search_blocks_wide alter column 1 set statistics 0;
-- No query chooses by these, and their samples cost each ANALYZE more than the rest of the table.
alter table archive.search_blocks
    alter column message_offsets set statistics 0,
    alter column tokens set statistics 0,
    alter column room_id set statistics 0;

create table archive.search_queue (
    id bigint generated always as identity,
    lower bigint not null,
    upper bigint not null,
    queued_at timestamptz not null default now(),
    tries int not null default 0,
    is_live boolean not null default false,
    room_id text collate "C" not null,
    primary key (room_id, id)
) with (
    -- Each row is deleted soon, and archive.next_search_ranges() begins where the deleted ones were.
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000
);
comment on table archive.search_queue is 'Ranges of positions whose messages are not in archive.search_blocks yet, or changed since.';
comment on column archive.search_queue.id is 'Internal key; ascends.';
comment on column archive.search_queue.lower is 'Lowest position.';
comment on column archive.search_queue.upper is 'Highest position.';
comment on column archive.search_queue.queued_at is 'When.';
comment on column archive.search_queue.tries is 'How often filling it has failed; 1: together with others. Such a range goes after all others.';
comment on column archive.search_queue.is_live is 'Whether it goes before the others: new messages, edits.';
comment on column archive.search_queue.room_id is 'Room.';
create index search_queue_order on archive.search_queue (tries, is_live desc, id);
comment on index archive.search_queue_order is 'What is next: live messages, then the oldest range.';

create table archive.search_locks (
    room_id text collate "C" primary key
);
comment on table archive.search_locks is 'A row to lock while the rows of a room in archive.search_blocks change, so that no redacted text comes back.';
comment on column archive.search_locks.room_id is 'Room.';

create function archive.lock_search(locked_room text) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform from archive.search_locks l where l.room_id = locked_room for update;
    if not found then
        insert into archive.search_locks (room_id) values (locked_room) on conflict do nothing;
        perform from archive.search_locks l where l.room_id = locked_room for update;
    end if;
end
$$;
comment on function archive.lock_search(text) is 'Waits until nobody else changes the room''s rows in archive.search_blocks, and keeps others from it until the transaction ends.';

create function archive.build_search_blocks(built_room text, lower bigint, upper bigint, most int) returns bigint
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    bottom bigint := lower;
    top bigint := upper;
    rest bigint;
    size int;
    merged int := 0;
    neighbour record;
begin
    select e.position into rest from archive.events e
        where e.room_id = built_room and e.position between bottom and top
        order by e.position desc offset most limit 1;
    bottom := coalesce(rest + 1, bottom);
    -- All of a block is built anew. A neighbour is, too, if it is no larger: so live messages come to share a block, and each
    -- is written some seven times. Not one that is further off than a block can reach (see below): between them there may be a
    -- history that the search does not have yet.
    select greatest(top, max(b.last_position)) into top from archive.search_blocks b
        where b.room_id = built_room and b.first_position between bottom and top;
    select count(*) into size from (select from archive.events e
                                    where e.room_id = built_room and e.position between bottom and top limit 127) e;
    loop
        select b.first_position, b.last_position, cardinality(b.message_offsets) as size into neighbour
            from archive.search_blocks b
            where b.room_id = built_room and b.first_position < bottom
            order by b.first_position desc limit 1;
        exit when not found
            or neighbour.last_position < bottom
               and (neighbour.size > least(size + merged, 126) or merged >= 127
                    or bottom - neighbour.last_position > 1 << 24);
        bottom := neighbour.first_position;
        top := greatest(top, neighbour.last_position);
        merged := merged + neighbour.size;
    end loop;
    loop
        select b.first_position, b.last_position, cardinality(b.message_offsets) as size into neighbour
            from archive.search_blocks b
            where b.room_id = built_room and b.first_position > top
            order by b.first_position limit 1;
        exit when not found or neighbour.size > least(size + merged, 126) or merged >= 254
            or neighbour.first_position - top > 1 << 24;
        top := neighbour.last_position;
        merged := merged + neighbour.size;
    end loop;
    delete from archive.search_blocks b where b.room_id = built_room and b.first_position between bottom and top;
    with messages as materialized (
        select e.position, coalesce(e.sent_at, '-infinity') as at, e.sender,
               -- So that a block spans no more time.
               coalesce(floor(extract(epoch from e.sent_at) / 2419200), -1e9) as month,
               archive.search_words(archive.searched_text(
                   coalesce(d.type, e.type), coalesce(d.content, e.content),
                   coalesce(d.edited_content, e.edited_content), e.in_reply_to, true)) as words
        from archive.events e
            -- A lateral with a limit looks up each encrypted event by its key, whatever the table held when this was planned.
            left join lateral (
                select d.type, d.content, d.edited_content from archive.decrypted_events d
                where e.type = 'm.room.encrypted' and d.room_id = built_room and d.event_id = e.event_id
                limit 1) d on true
        where e.room_id = built_room and e.position between bottom and top
            and archive.is_searched(coalesce(d.type, e.type), e.state_key, e.rel_type, e.relates_to, e.redacted_by,
                                    coalesce(d.content, e.content))
    ), steps as (
        select m.*, lag(m.month) over places as month_before, lag(m.position) over places as position_before,
               (row_number() over places - 1) / 127 as stretch
        from messages m where m.words <> ' '
        window places as (order by m.position)
    ), runs as (
        select m.*, count(*) filter (where m.is_start) over (order by m.position) as run
        -- Where the times go back again and again, as a server can make them, one block has them all. A block also ends
        -- where an offset could get longer than an int: 127 times 2^24 is below 2^31.
        from (select s.*, s.position_before is null or s.position - s.position_before > 1 << 24
                          or s.month <> s.month_before
                             and count(*) filter (where s.month < s.month_before) over (partition by s.stretch) < 4 as is_start
              from steps s) m
    ), numbered as materialized (
        -- The lowest blocks of a room grow downwards, as a backward walk does.
        select (r.run << 32) + r.number / 127 as block, (r.number % 127)::int + 1 as number, r.position, r.at, r.sender,
               string_to_array(btrim(r.words), ' ') as words, octet_length(r.words) <> char_length(r.words) as has_lone
        from (select r.*, row_number() over (partition by r.run
                                             order by case when grows_down then -r.position else r.position end) - 1 as number
              from runs r,
                   (select not exists (select from archive.search_blocks b
                                       where b.room_id = built_room and b.first_position < bottom) as grows_down) way) r
    ), tokens as (
        select n.block, archive.word_token(word) | n.number as token
        from numbered n cross join unnest(n.words) word
        where not n.has_lone
        union all
        select n.block, case when ascii(word) > 3583 and char_length(word) = 1 then archive.pair_token(word, next)
                             else archive.word_token(word) end | n.number
        from numbered n cross join unnest(n.words, n.words[2:]) pair (word, next)
        where n.has_lone
        union all
        select n.block, archive.word_token('sender:' || n.sender) from numbered n group by n.block, n.sender
        union all
        select distinct n.block, archive.word_token('room:' || built_room) from numbered n
    )
    insert into archive.search_blocks (room_id, first_position, last_position, newest_at, oldest_at, message_offsets, tokens)
        select built_room, b.first_position, b.last_position, b.newest_at, b.oldest_at,
               array(select (p - b.first_position)::int from unnest(b.positions) p), t.tokens
        from (select n.block, min(n.position) as first_position, max(n.position) as last_position, max(n.at) as newest_at,
                     min(n.at) as oldest_at, array_agg(n.position order by n.number) as positions
              from numbered n group by n.block) b
            join (select t.block, array_agg(distinct t.token order by t.token) as tokens from tokens t group by t.block) t
                using (block);
    return rest;
end
$$;
comment on function archive.build_search_blocks(text, bigint, bigint, int) is 'Builds the rows of archive.search_blocks for a range of positions in a room anew, at most for so many events from its upper end. Returns the position from which on downwards the rest begins, or null. The caller holds archive.lock_search().';

create function archive.next_search_ranges(with_failed boolean, live boolean default null, out room_id text, out ranges bigint[])
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    next record;
    most int;
begin
    select q.room_id, q.is_live, q.tries into next from archive.search_queue q
        where (q.tries < 2 or with_failed) and (live is null or q.is_live = live)
        order by q.tries, q.is_live desc, q.id limit 1;
    if found then
        room_id := next.room_id;
        most := case next.tries when 0 then 50 else 1 end;
        ranges := array(select q.id from archive.search_queue q
                        where q.room_id = next.room_id and q.is_live = next.is_live and q.tries = next.tries
                        order by q.id limit most);
    end if;
end
$$;
comment on function archive.next_search_ranges(boolean, boolean) is 'What archive.search_queue has next: up to 50 ranges of one room. Where they have failed together before, one alone. with_failed: also those that have failed alone. live: only new messages and edits (true), or only the others (false). null: none is left.';

create function archive.fill_search(filled_room text, ranges bigint[], most int default 6000, live boolean default false)
    returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    bottom bigint;
    top bigint;
    rest bigint;
    part record;
begin
    -- An index of this kind first collects new entries in a list, and whoever makes the list too long sorts it into the index.
    -- For the usual 4 MB that takes seconds. History does it often and in small parts, so that new messages hardly ever do.
    perform set_config('gin_pending_list_limit', case when live then '16MB' else '1MB' end, true);
    -- First the room's lock, as everywhere. Another call may have taken the ranges meanwhile.
    perform archive.lock_search(filled_room);
    for part in
        with taken as (
            delete from archive.search_queue q
            where q.room_id = filled_room and q.id = any (ranges)
            returning q.lower, q.upper)
        select t.lower, t.upper from taken t order by t.upper desc
    loop
        if top is null then
            bottom := part.lower;
            top := part.upper;
        -- Ranges that one block could span are filled together.
        elsif bottom - part.upper <= 1 << 24 then
            bottom := least(bottom, part.lower);
        else
            rest := archive.build_search_blocks(filled_room, bottom, top, most);
            if rest is not null then
                insert into archive.search_queue (room_id, lower, upper) values (filled_room, bottom, rest);
            end if;
            bottom := part.lower;
            top := part.upper;
        end if;
    end loop;
    if top is not null then
        rest := archive.build_search_blocks(filled_room, bottom, top, most);
        if rest is not null then
            insert into archive.search_queue (room_id, lower, upper) values (filled_room, bottom, rest);
        end if;
    end if;
end
$$;
comment on function archive.fill_search(text, bigint[], int, boolean) is 'Takes these ranges of a room, which archive.next_search_ranges() has returned, from archive.search_queue and fills archive.search_blocks with them, reading at most so many events for each run of ranges. The rest is queued again. live: they are new messages.';

-- A security definer, because only the owner of the index may do this.
create function archive.sort_search() returns void
    language sql security definer set search_path = pg_catalog, pg_temp
    as $$ select gin_clean_pending_list('archive.search_blocks_tokens') $$;
comment on function archive.sort_search() is 'Sorts into the index what archive.fill_search() has left in its list of new entries, which each search reads from one end to the other.';
revoke execute on function archive.sort_search() from public;

-- One range that cannot be read must not keep the others from being searched, nor what came while it failed.
create function archive.put_off_search(failed_room text, failed bigint[]) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    update archive.search_queue q
    set tries = case when cardinality(failed) = 1 then greatest(q.tries + 1, 2) else q.tries + 1 end
    where q.room_id = failed_room and q.id = any (failed);
end
$$;
comment on function archive.put_off_search(text, bigint[]) is 'After archive.fill_search() has failed with these ranges: those that failed together are taken one by one next, and one that failed alone is put off.';

create function archive.forget_search(forgotten_room text, forgotten bigint[] default null) returns void
    -- As for new messages in archive.fill_search(): the writer waits for it.
    language plpgsql set search_path = pg_catalog, pg_temp set gin_pending_list_limit = '16MB' as $$
begin
    perform archive.lock_search(forgotten_room);
    if forgotten is null then
        delete from archive.search_blocks b where b.room_id = forgotten_room;
        delete from archive.search_queue q where q.room_id = forgotten_room;
        return;
    end if;
    with asked as materialized (
        select f.position, b.first_position, b.last_position, b.message_offsets
        from unnest(forgotten) f (position)
            left join lateral (
                select b.first_position, b.last_position, b.message_offsets from archive.search_blocks b
                where b.room_id = forgotten_room and b.first_position <= f.position
                order by b.first_position desc limit 1) b on b.last_position >= f.position
        where f.position is not null
    ), hit as (
        select a.first_position, a.last_position,
               array_agg(array_position(a.message_offsets, (a.position - a.first_position)::int)) as numbers
        from asked a where a.first_position is not null
        group by a.first_position, a.last_position
    ), changed as (
        update archive.search_blocks b
        set tokens = array(select t from unnest(b.tokens) t
                           where (t & 127) = 0 or (t & 127) <> all (array_remove(h.numbers, null)) order by t)
        from hit h
        where b.room_id = forgotten_room and b.first_position = h.first_position
    )
    insert into archive.search_queue (room_id, lower, upper, is_live)
        select forgotten_room, h.first_position, h.last_position, true from hit h
        union all
        select forgotten_room, a.position, a.position, true from asked a where a.first_position is null;
end
$$;
comment on function archive.forget_search(text, bigint[]) is 'Removes what the search has of the messages at some positions of a room, or of the whole room, in this transaction, and queues them to be looked at anew. For redactions and erasures; after an edit, a row in archive.search_queue is enough.';

create function archive.search_anew(room_id text) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform archive.forget_search(search_anew.room_id);
    -- More than any position, and far from the ends of bigint.
    insert into archive.search_queue (room_id, lower, upper)
        values (search_anew.room_id, -4000000000000000000, 4000000000000000000);
end
$$;
comment on function archive.search_anew(text) is 'Queues a whole room anew: after its positions were rewritten, or after a restore on a server that computes other hashes.';

create function archive.mark_words(value text, wanted text[], mark_start text, mark_end text) returns text
    language plpgsql immutable parallel safe cost 5000 as $$
declare
    pieces text[];
    words text[];
    pieces_of int[];
    said bytea;
    is_marked boolean[];
    hit record;
    marked_to int := 0;
    marked text := '';
    was_marked boolean := false;
begin
    -- A piece is a word, a character that is a word of its own, or what is between words.
    select array_agg(m[1] order by place) into pieces
        from regexp_matches(left(value, 20000) collate "C",
                            '([' || archive.lone_characters() || '][' || archive.ignored_characters()
                            || '\u3099\u309a\uff9e\uff9f]*|[' || archive.separating_characters() || ']+|[^'
                            || archive.lone_characters() || archive.separating_characters() || ']+)', 'g')
             with ordinality found (m, place);
    select array_agg(word order by place, part), array_agg(place::int order by place, part) into words, pieces_of
        from unnest(pieces) with ordinality p (piece, place)
            cross join lateral unnest(string_to_array(nullif(btrim(archive.search_words(piece)), ''), ' '))
                with ordinality w (word, part)
        where piece <> ' ';
    if words is null then
        return value;
    end if;
    said := convert_to(' ' || array_to_string(words, ' ') || ' ', 'UTF8');
    for hit in
        -- Bytes, because the place of a character in a long text is not known without counting.
        select pieces_of[w.place] as first, pieces_of[w.place + t.size - 1] as last
        from (select word, place, place + sum(octet_length(word)) over (order by place) - octet_length(word) as start
              from unnest(words) with ordinality u (word, place)) w
            join (select split_part(term, ' ', 2) as first, char_length(term) - char_length(replace(term, ' ', '')) - 1 as size,
                         convert_to(term, 'UTF8') as bytes
                  -- Without what archive.search_words() puts for punctuation, because here are words only.
                  from (select replace(w, ' ' || chr(1114109) || ' ', ' ') as term from unnest(wanted) w) q) t on t.first = w.word
        where substring(said from w.start::int for octet_length(t.bytes)) = t.bytes
        order by 1
    loop
        for j in greatest(hit.first, marked_to + 1) .. hit.last loop
            is_marked[j] := true;
        end loop;
        marked_to := greatest(marked_to, hit.last);
    end loop;
    for i in 1 .. cardinality(pieces) loop
        if coalesce(is_marked[i], false) <> was_marked then
            marked := marked || case when was_marked then mark_end else mark_start end;
            was_marked := not was_marked;
        end if;
        marked := marked || pieces[i];
    end loop;
    return marked || case when was_marked then mark_end else '' end
        || case when char_length(value) > 20000 then '…' else '' end;
end
$$;
comment on function archive.mark_words(text, text[], text, text) is 'A text with marks around the words and phrases of a query, as they are written. Of a longer text only the first 20,000 characters.';

create type public.search_result as (
    room_id text collate "C",
    event_id text collate "C",
    position bigint,
    sender text collate "C",
    sender_name text,
    sent_at timestamptz,
    body text,
    marked text,
    rank real
);
comment on type public.search_result is 'A message that search() found.';
comment on column public.search_result.room_id is 'Room.';
comment on column public.search_result.event_id is 'Event id of the message.';
comment on column public.search_result.position is 'Place in the room''s order.';
comment on column public.search_result.sender is 'Sender''s user id.';
comment on column public.search_result.sender_name is 'The sender''s present name in the room.';
comment on column public.search_result.sent_at is 'When it was sent, by the clock of the sender''s server.';
comment on column public.search_result.body is 'What it says, after edits.';
comment on column public.search_result.marked is 'What was searched, with marks around what was found: the body, and in further lines the name of a file and the answers of a poll.';
comment on column public.search_result.rank is 'The higher, the more often the message has the words, and the shorter it is.';

create function public.search(query text, room_id text default null, sender text default null, since timestamptz default null,
                              until timestamptz default null, by_rank boolean default false, max_results int default 20,
                              mark_start text default '«', mark_end text default '»')
    returns setof public.search_result
    -- Compiling takes longer than the search, and so does looking for the same row of tokens once more.
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp parallel restricted rows 20 set jit = off set enable_memoize = off as $$
#variable_conflict use_column
declare
    wanted text[] := '{}';
    unwanted text[] := '{}';
    above int[];
    up_to int[];
    all_places bigint;
    sender_token int;
    index_tokens int[];
    part record;
    block record;
    blocks refcursor;
    most int := case when search.by_rank then 1000 else least(greatest(coalesce(search.max_results, 20), 0), 1000) end;
    walked int;
    earliest timestamptz := coalesce(search.since, '-infinity');
    latest timestamptz := coalesce(search.until, 'infinity');
    from_time timestamptz := 'infinity';
    reached timestamptz;
    last_kept timestamptz;
    found_rooms text[] := '{}';
    found_positions bigint[] := '{}';
    found_times timestamptz[] := '{}';
    found_ranks real[] := '{}';
begin
    for part in
        select m[1] = '-' as is_unwanted, archive.search_words(coalesce(m[2], m[3])) as words
        from regexp_matches(regexp_replace(left(translate(search.query, '“”„«»', '"""""'), 2000),
                                           '[\u0009-\u000d\u0085\u2028\u2029' || archive.spaces() || ']+', ' ', 'g'),
                            '(-?)(?:"([^"]*)"?|([^ "]+))', 'g') m
    loop
        if part.words <> ' ' and part.is_unwanted then
            unwanted := unwanted || part.words;
        elsif part.words <> ' ' and part.words <> all (wanted) then
            wanted := wanted || part.words;
        end if;
    end loop;
    if most = 0 then
        return;
    end if;
    if wanted = '{}' then
        raise notice 'the query has no word to search for';
        return;
    end if;
    select array_agg(t.above), array_agg(t.up_to), array_agg(t.token) into above, up_to, index_tokens
        from (select distinct t.* from unnest(wanted) words cross join archive.search_tokens(words) t limit 60) t;
    all_places := (2::bigint << cardinality(above)) - 2;
    if search.sender is not null then
        sender_token := archive.word_token('sender:' || search.sender);
        index_tokens := index_tokens || sender_token;
    end if;
    if search.room_id is not null then
        index_tokens := index_tokens || archive.word_token('room:' || search.room_id);
    end if;
    -- Few blocks span more than 28 days, if any.
    if latest < timestamptz '290000-01-01' and not exists (
        select from archive.search_blocks b
        where archive.is_wide_block(b.newest_at, b.oldest_at) and hashtext(b.room_id) = hashtext(search.room_id)
            and b.room_id = search.room_id
        union all
        select from archive.search_blocks b
        where archive.is_wide_block(b.newest_at, b.oldest_at) and search.room_id is null
    ) then
        from_time := latest + interval '28 days';
    end if;
    -- First the newest blocks, one after the other, which finds what is frequent. Then the index, which finds the rest. The
    -- tokens of a block are sorted, and width_bucket() is PostgreSQL's binary search.
    for phase in 1 .. 2 loop
        open blocks no scroll for
            select b.room_id, b.newest_at, m.position, m.sent_at, m.rank
            from (
                -- One of these, as the variables say.
                (select b.room_id, b.first_position, b.newest_at, b.tokens from archive.search_blocks b
                 where phase = 1 and hashtext(b.room_id) = hashtext(search.room_id) and b.room_id = search.room_id
                     and b.newest_at between earliest and from_time and b.oldest_at <= latest
                 order by b.newest_at desc limit 600)
                union all
                (select b.room_id, b.first_position, b.newest_at, b.tokens from archive.search_blocks b
                 where phase = 1 and search.room_id is null
                     and b.newest_at between earliest and from_time and b.oldest_at <= latest
                 order by b.newest_at desc limit 600)
                union all
                (select b.room_id, b.first_position, b.newest_at, b.tokens
                 -- In a subquery, so that it is read by the index of tokens and no other. Reading the tokens of all blocks of a
                 -- time would take minutes.
                 from (select * from archive.search_blocks b
                       where phase = 2 and archive.block_tokens(b.tokens) @> index_tokens offset 0) b
                 where (search.room_id is null or b.room_id = search.room_id)
                     and b.newest_at between earliest and from_time and b.oldest_at <= latest
                 order by b.newest_at desc)) b
                -- So that the tokens are read once.
                cross join lateral (select b.tokens || '{}'::int[] as tokens offset 0) t
                -- The messages that have all tokens.
                cross join lateral (
                    select array_agg(m.number) as numbers
                    from (select token & 127 as number
                          from unnest(above, up_to) with ordinality w (above, up_to, place)
                              cross join unnest(t.tokens[width_bucket(w.above, t.tokens) + 1
                                                         : width_bucket(w.up_to, t.tokens)]) token
                          group by number having bit_or(1::bigint << w.place::int) = all_places) m
                    where (select bool_and(width_bucket(w.up_to, t.tokens) > width_bucket(w.above, t.tokens))
                           from unnest(above, up_to) w (above, up_to))
                        and (sender_token is null
                             or width_bucket(sender_token, t.tokens) > width_bucket(sender_token - 1, t.tokens))) n
                -- Those that have the words.
                left join lateral (
                    select e.position, e.sent_at, said.rank
                    from archive.events e
                        left join lateral (
                            select d.type, d.content, d.edited_content from archive.decrypted_events d
                            where e.type = 'm.room.encrypted' and d.room_id = e.room_id and d.event_id = e.event_id
                            limit 1) d on true
                        cross join lateral (
                            select (select sum(t.times / (t.times + 0.5 + char_length(said.words) / 100.0))
                                    from (select (char_length(said.words) - char_length(replace(said.words, w, '')))
                                                 / char_length(w)::float8 as times
                                          from unnest(wanted) w) t)::real as rank
                            from (select archive.search_words(archive.searched_text(
                                             coalesce(d.type, e.type), coalesce(d.content, e.content),
                                             coalesce(d.edited_content, e.edited_content), e.in_reply_to,
                                             true)) as words offset 0) said
                            where not exists (select from unnest(wanted) w where strpos(said.words, w) = 0)
                                and not exists (select from unnest(unwanted) w where strpos(said.words, w) > 0)) said
                    where e.room_id = b.room_id
                        and e.position = any (array(
                            select o.first_position + o.message_offsets[number]
                            from archive.search_blocks o cross join unnest(n.numbers) number
                            where o.room_id = b.room_id and o.first_position = b.first_position))
                        and archive.is_searched(coalesce(d.type, e.type), e.state_key, e.rel_type, e.relates_to,
                                                e.redacted_by, coalesce(d.content, e.content))
                        and (search.sender is null or e.sender = search.sender)
                        and (search.since is null or e.sent_at >= search.since)
                        and (search.until is null or e.sent_at <= search.until)
                        -- Most blocks have no such message. Without the offset, their events would be looked for, too.
                        and n.numbers is not null
                    offset 0) m on true;
        walked := 0;
        loop
            fetch blocks into block;
            -- Of very many messages of one time, some are enough.
            exit when not found or block.newest_at < last_kept
                or block.newest_at = last_kept and cardinality(found_times) >= 4 * most;
            walked := walked + 1;
            reached := block.newest_at;
            -- Blocks of the same time may come once more in the second phase.
            continue when block.position is null
                or phase = 2 and exists (select from unnest(found_rooms, found_positions) f (r, p)
                                         where f.r = block.room_id and f.p = block.position);
            found_rooms := found_rooms || block.room_id;
            found_positions := found_positions || block.position;
            found_times := found_times || coalesce(block.sent_at, '-infinity');
            found_ranks := found_ranks || block.rank;
            if cardinality(found_times) >= most then
                select f.t into last_kept from unnest(found_times) f (t) order by f.t desc offset most - 1 limit 1;
            end if;
        end loop;
        close blocks;
        -- All has been walked, or enough was found.
        exit when walked < 600 or reached < last_kept;
        from_time := reached;
    end loop;
    return query
        select f.room_id, e.event_id, e.position, e.sender,
               coalesce((select m.shown_name from archive.members m
                         where m.room_id = f.room_id and m.user_id = e.sender), e.sender),
               e.sent_at,
               archive.searched_text(said.type, said.content, said.edited_content, e.in_reply_to, false),
               archive.mark_words(archive.searched_text(said.type, said.content, said.edited_content, e.in_reply_to, true),
                                  wanted, search.mark_start, search.mark_end),
               f.rank
        from (select * from (select * from unnest(found_rooms, found_positions, found_times, found_ranks)
                                     f (room_id, position, at, rank)
                             order by f.at desc, f.position desc limit most) f
              order by case when search.by_rank then f.rank end desc, f.at desc, f.position desc
              limit least(greatest(coalesce(search.max_results, 20), 0), 1000)) f
            join archive.events e on e.room_id = f.room_id and e.position = f.position
            left join lateral (
                select d.type, d.content, d.edited_content from archive.decrypted_events d
                where e.type = 'm.room.encrypted' and d.room_id = e.room_id and d.event_id = e.event_id
                limit 1) d on true
            cross join lateral (
                select coalesce(d.type, e.type) as type, coalesce(d.content, e.content) as content,
                       coalesce(d.edited_content, e.edited_content) as edited_content
            ) said
        order by case when search.by_rank then f.rank end desc, f.at desc, f.position desc;
end
$$;
comment on function public.search(text, text, text, timestamptz, timestamptz, boolean, int, text, text) is 'The messages with all words of a query, newest first. "A phrase" stands in double quotes; -word: without it. Case and accents do not matter. by_rank: the best of the newest 1,000. At most 1,000 results. Not found: encrypted messages that were not decrypted, and events without a position.';

create view public.search_status as
    select count(*) as queued_ranges, min(q.queued_at) as oldest_queued_at, archive.lower_case_source() as lower_case_source
    from archive.search_queue q;
comment on view public.search_status is 'How far the search is behind the archive.';
comment on column public.search_status.queued_ranges is 'Ranges of messages that are not searchable yet, or whose change is not.';
comment on column public.search_status.oldest_queued_at is 'When the oldest of them was queued; null: none.';
comment on column public.search_status.lower_case_source is 'What makes small letters of capitals: icu, database or table. With table, those of other scripts than Latin, Greek and Cyrillic are different letters.';

create function archive.forget_searched_events(room_id text, event_ids text[]) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    positions bigint[];
begin
    -- Apart from the call: a distributed database would call the function on the room's server.
    select array_agg(event.position) into positions
    from unnest(event_ids) as asked (event_id)
    cross join lateral (
        select e.position from archive.events e
        where e.room_id = forget_searched_events.room_id and e.event_id = asked.event_id and e.position is not null
        limit 1
    ) event;
    perform archive.forget_search(forget_searched_events.room_id, coalesce(positions, '{}'));
end
$$;
comment on function archive.forget_searched_events(text, text[]) is 'As archive.forget_search(), for some events of a room.';
