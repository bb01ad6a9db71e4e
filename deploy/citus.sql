-- Distributes an archive over the servers of a Citus cluster: all rows of a room are on one of them.
--
-- Run it once, as the owner of the archive, in the coordinator's database, while no Backscroll runs, after `create extension
-- citus` there and on the other servers, after `citus_set_coordinator_host` and `citus_add_node`, and after `backscroll migrate`.
-- The archive may have rooms and readers already:
--
--     psql -d backscroll -f deploy/citus.sql
--
-- Then name the coordinator in database.url. The test `every_key_of_a_room_begins_with_the_room` checks that this file names
-- every table, and the tests `no_query_joins_rooms` and `no_function_joins_rooms` that no query joins two rooms.
--
-- Tried with Citus 13.2.2 on PostgreSQL 15.18 and 15.20, a single server that is its own worker (tests/citus.sh). By hand, with a
-- coordinator and two workers: this file on an archive with rooms, new and old events from a real Synapse, pauses of a room,
-- verify, seal, erase, export, search, roles, pg_dump, and the queries of README.md and the cookbook. Not tried: the loss of a
-- server, moving rooms to another server, and adding one later (run the last statement of this file again then).
--
-- With several servers:
-- * A dump is not of one moment, unless no Backscroll runs.
-- * A role's limit of 10 connections holds on each server. Citus opens more than one for a query if it may: a refused one is in
--   that server's log. Raise the writer's limit (`alter role … connection limit`) if the daemon reports `too many connections`.
-- * `walk_id` and the like are not in the order in which rows were made: servers take them from different ranges.
-- If a new version of Backscroll replaces one of the functions that are changed below, change it again.
--
-- Citus makes its servers a certificate of X.509 version 1, which Backscroll refuses. Give the coordinator one of your own, or
-- connect with sslmode=disable where nobody else can listen.
--
-- All queries of deploy/cookbook work there. A query of one's own may not:
-- * With `exists (select from …)`: write `exists (select 1 from …)`.
-- * One that looks in several rows of a room for what another query has found: put what that found into `with`, and compare
--   with `(select … from it)`. Or name the room.
-- * A lateral subquery with a limit, unless it compares the room's id with that of a view.
-- The function search goes from room to room, which takes longer where many rooms have the words.
--
-- Citus reads the tables behind a view with the rights of the role that asks. So a role of `backscroll grant-reader` has more
-- rights there than on a single server: it may use schema archive, call the functions there that everybody may call, and read
-- those columns of the tables that the views read, with the rows that a view leaves out. It reads no original of what was
-- redacted, no key, no pagination token and no raw event. `grant-reader --room` is refused, because such a role could read the
-- tables of all rooms. Citus connects to its servers as the role that asks: they must let it in. What grant-reader takes from
-- everybody on the coordinator, everybody keeps on the other servers: to make large objects there, for example.
--
-- Set max_prepared_transactions above 0 on every server, because Citus commits in two phases.
\set ON_ERROR_STOP on

begin;
-- All at once: a vacuum or an analyze that holds one of them would wait for this file, and this file for it.
do $$
declare
    held regclass;
begin
    for held in
        select c.oid from pg_class c
        where c.relnamespace = 'archive'::regnamespace and c.relkind = 'r' and c.relname <> '_sqlx_migrations'
        order by c.relname
    loop
        execute format('lock table %s in access exclusive mode', held);
    end loop;
end
$$;
-- The parts of the tables use the functions, on each server. Citus gives a server only the functions that are made while it is
-- there. An archive may be older: its functions are made once more, as they are, with what is taken from everybody.
do $$
declare
    made regprocedure;
    is_open boolean;
begin
    for made, is_open in
        select p.oid, exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0)
        from pg_proc p
        where p.pronamespace in ('archive'::regnamespace, 'public'::regnamespace)
          and not exists (select from pg_depend d
                          where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
    loop
        execute pg_get_functiondef(made);
        if not is_open then
            execute format('revoke execute on function %s from public', made);
        end if;
    end loop;
end
$$;
-- Citus refuses a function in SQL that names a table of rooms and has a parameter. In PL/pgSQL it is the same.
do $$
declare
    definition text;
begin
    for definition in
        select pg_get_functiondef(p.oid) from pg_proc p join pg_language l on l.oid = p.prolang
        where l.lanname = 'sql' and p.pronamespace::regnamespace::text in ('archive', 'public')
          and p.proname in ('state_at', 'members_at', 'inconsistencies')
    loop
        definition := replace(definition, 'LANGUAGE sql', 'LANGUAGE plpgsql');
        definition := regexp_replace(definition, 'AS \$function\$(.*)\$function\$',
                                     'AS $function$ #variable_conflict use_column begin return query \1; end $function$');
        execute definition;
    end loop;
end
$$;
-- The search reads the blocks of all rooms together, and a distributed database cannot. Here it goes from room to room: those
-- that have the words, the one with the newest first. It stops in each room where it has enough newer messages already.
do $$
declare
    changes constant text[] := array[
        ['    from_time timestamptz := ''infinity'';',
         '    from_time timestamptz;
    searched_rooms text[];
    searched_room text;'],
        -- The rooms, and the loop over them.
        ['    -- Few blocks span more than 28 days, if any.',
         '    if search.room_id is not null then
        searched_rooms := array[search.room_id];
    else
        searched_rooms := array(
            select b.room_id from archive.search_blocks b
            where archive.block_tokens(b.tokens) @> index_tokens
                and b.newest_at >= earliest and b.oldest_at <= latest
            group by b.room_id order by max(b.newest_at) desc, b.room_id);
    end if;
    foreach searched_room in array searched_rooms loop
    from_time := ''infinity'';
    -- Few blocks span more than 28 days, if any.'],
        ['        from_time := reached;
    end loop;',
         '        from_time := reached;
    end loop;
    end loop;'],
        -- All of the room.
        ['        select from archive.search_blocks b
        where archive.is_wide_block(b.newest_at, b.oldest_at) and hashtext(b.room_id) = hashtext(search.room_id)
            and b.room_id = search.room_id
        union all
        select from archive.search_blocks b
        where archive.is_wide_block(b.newest_at, b.oldest_at) and search.room_id is null',
         '        select 1 from archive.search_blocks b
        where archive.is_wide_block(b.newest_at, b.oldest_at) and hashtext(b.room_id) = hashtext(searched_room)
            and b.room_id = searched_room'],
        ['where phase = 1 and hashtext(b.room_id) = hashtext(search.room_id) and b.room_id = search.room_id',
         'where phase = 1 and hashtext(b.room_id) = hashtext(searched_room) and b.room_id = searched_room'],
        ['                (select b.room_id, b.first_position, b.newest_at, b.tokens from archive.search_blocks b
                 where phase = 1 and search.room_id is null
                     and b.newest_at between earliest and from_time and b.oldest_at <= latest
                 order by b.newest_at desc limit 600)
                union all
',
         ''],
        ['where phase = 2 and', 'where phase = 2 and b.room_id = searched_room and'],
        ['where (search.room_id is null or b.room_id = search.room_id)', 'where b.room_id = searched_room'],
        ['where e.room_id = b.room_id', 'where e.room_id = searched_room'],
        ['where o.room_id = b.room_id', 'where o.room_id = searched_room'],
        ['d.room_id = e.room_id and d.event_id = e.event_id
                            limit 1',
         'd.room_id = searched_room and d.event_id = e.event_id
                            limit 1'],
        ['where m.room_id = f.room_id and', 'where m.room_id = e.room_id and']
    ];
    definition text := pg_get_functiondef('public.search'::regproc);
    change text[];
begin
    foreach change slice 1 in array changes loop
        if strpos(definition, change[1]) = 0 then
            raise exception 'public.search() does not have: %', change[1];
        end if;
        definition := replace(definition, change[1], change[2]);
    end loop;
    execute definition;
end
$$;
-- Citus runs these for a part of a table, on that part's server. They read tables of which every server has a copy, or what
-- another function returns, or the room of the row that they are called for. They only read. Where one is called with what a
-- query finds, the servers that find nothing call it with null: it has no rows then, and needs no query for that.
alter function archive.account_user_id() set citus.allow_nested_distributed_execution = on;
alter function archive.was_redacted_with_another(text, text, text) set citus.allow_nested_distributed_execution = on;
alter function archive.room_ids_of(name) set citus.allow_nested_distributed_execution = on;
alter function archive.room_flags_of(name) set citus.allow_nested_distributed_execution = on;
alter function public.state_at(text, bigint) strict set citus.allow_nested_distributed_execution = on;
alter function public.state_at(text, timestamptz) strict set citus.allow_nested_distributed_execution = on;
alter function public.state_at(text, text) strict set citus.allow_nested_distributed_execution = on;
alter function public.members_at(text, bigint) strict set citus.allow_nested_distributed_execution = on;
alter function public.members_at(text, timestamptz) strict set citus.allow_nested_distributed_execution = on;
alter function public.members_at(text, text) strict set citus.allow_nested_distributed_execution = on;

-- public.conversations: it follows upgrades from room to room, which takes a recursive query, and Citus plans none over several
-- rooms. A function that reads no table follows them here.
create function archive.lines(room_ids text[], old_ids text[], new_ids text[], out conversation_id text, out room_id text,
                              out generation int) returns setof record
    language plpgsql immutable as $$
begin
    return query
    with recursive link as materialized (
        select l.old_room_id, l.new_room_id from unnest(old_ids, new_ids) as l (old_room_id, new_room_id)
    ), walk as (
        select r.room_id as conversation_id, r.room_id, 0 as depth
        from unnest(room_ids) as r (room_id)
        where r.room_id not in (select link.old_room_id from link)
        union all
        select walk.conversation_id, link.old_room_id, walk.depth + 1
        from walk join link on link.new_room_id = walk.room_id
    )
    select walk.conversation_id, walk.room_id,
           max(walk.depth) over (partition by walk.conversation_id) - walk.depth
    from walk
    union all
    select r.room_id, r.room_id, 0
    from unnest(room_ids) as r (room_id)
    where r.room_id not in (select walk.room_id from walk);
end
$$;
comment on function archive.lines(text[], text[], text[]) is 'For public.conversations of a distributed archive.';
create or replace view public.conversations as
with room as materialized (
    select array_agg(r.room_id) as ids from archive.rooms r
), link as materialized (
    select array_agg(u.room_id) as old_ids, array_agg(u.successor) as new_ids from public.upgrades u
)
select line.conversation_id collate "C" as conversation_id, line.room_id collate "C" as room_id, line.generation
from room
cross join link
cross join lateral archive.lines(room.ids, link.old_ids, link.new_ids) line;

-- Which columns the views of a reader read. The room's id is one of them in any case: Citus compares it.
create function archive.columns_of_views(out relation regclass, out columns name[]) returns setof record
    language sql stable set search_path = pg_catalog, pg_temp as $$
    with recursive read as (
        select c.oid from pg_class c
        where c.relnamespace = 'public'::regnamespace and c.relname = any (archive.reader_views())
        union
        select d.refobjid from read
        join pg_rewrite r on r.ev_class = read.oid
        join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
    )
    select c.oid::regclass, array_agg(a.attname order by a.attnum)
    from pg_class c
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.oid in (select read.oid from read) and c.relnamespace = 'archive'::regnamespace and c.relkind = 'r'
      and (a.attname = 'room_id'
           or exists (select from pg_depend d join pg_rewrite r on r.oid = d.objid
                      where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
                        and d.refobjid = c.oid and d.refobjsubid = a.attnum and r.ev_class in (select read.oid from read)))
    group by c.oid
$$;
comment on function archive.columns_of_views() is 'The columns of the tables that the views for readers read.';
revoke execute on function archive.columns_of_views() from public;

-- What a role has beyond what it is for. A reader has what Citus needs, and that is no excess.
do $$
begin
    execute regexp_replace(pg_get_functiondef('archive.excess(name, text)'::regprocedure), '\mexcess\M', 'excess_over_views', 'g');
end
$$;
comment on function archive.excess_over_views(name, text) is 'As archive.excess() was before the archive was distributed.';
revoke execute on function archive.excess_over_views(name, text) from public;
create or replace function archive.excess(role name, kind text, out holder text, out privilege text, out object text)
    returns setof record
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select e.holder, e.privilege, e.object
    from archive.excess_over_views(role, kind) e
    where not (kind = 'reader' and e.holder = 'it'
               and (e.privilege = 'usage' and e.object = 'schema archive'
                    or e.privilege = 'select' and exists (
                        select from archive.columns_of_views() r join pg_class c on c.oid = r.relation
                        where e.object = format('archive.%I', c.relname)
                          and not exists (select from pg_attribute a
                                          where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
                                            and a.attname <> all (r.columns)
                                            and has_column_privilege(role, c.oid, a.attnum, 'select')))))
$$;

-- A reader of some rooms could read the tables of all. A writer needs the sequences: Citus takes the numbers of new rows with the
-- rights of the role that writes.
do $$
declare
    changes constant text[] := array[
        ['archive.grant_reader', '
    perform archive.check_role(role);',
         '
    if rooms is not null then
        raise exception ''a reader of some rooms cannot be made in an archive that Citus distributes: there the role would have ''
                        ''to be allowed to read the tables, and so all rooms; make a reader of all rooms (without --room), or ''
                        ''archive these rooms into a database of their own''
            using errcode = ''invalid_grant_operation'';
    end if;
    perform archive.check_role(role);'],
        ['archive.let_read', '
    function regprocedure;', '
    function regprocedure;
    relation regclass;
    columns text;'],
        ['archive.let_read', '
    if kind = ''room reader'' then',
         '
    if kind = ''reader'' then
        execute format(''grant usage on schema archive to %I'', role);
        for relation, columns in
            select c.relation, (select string_agg(quote_ident(col), '', '') from unnest(c.columns) col)
            from archive.columns_of_views() c
        loop
            execute format(''grant select (%s) on %s to %I'', columns, relation, role);
        end loop;
    end if;
    if kind = ''room reader'' then'],
        ['archive.grant_writer', '
    perform archive.give_locks(role);', '
    execute format(''grant usage on all sequences in schema archive to %I'', role);
    execute format(''alter default privileges for role %I in schema archive grant usage on sequences to %I'', owner, role);
    perform archive.give_locks(role);'],
        ['archive.take_back', '
    foreach view in array', '
    execute format(''alter default privileges for role %I in schema archive revoke all on sequences from %I'', owner, role);
    foreach view in array']
    ];
    definition text;
    change text[];
begin
    foreach change slice 1 in array changes loop
        definition := pg_get_functiondef(change[1]::regproc);
        if strpos(definition, change[2]) = 0 then
            raise exception '%() does not have: %', change[1], change[2];
        end if;
        execute replace(definition, change[2], change[3]);
    end loop;
end
$$;
-- A role that is made here is not known on the other connections to a server before the end: one connection for each.
alter function archive.grant_reader(name, text[]) set citus.multi_shard_modify_mode = 'sequential';
alter function archive.grant_writer(name) set citus.multi_shard_modify_mode = 'sequential';
-- The roles that were made before.
do $$
declare
    guests constant text := (select string_agg(quote_ident(g.role), ', ' order by g.role)
                             from archive.grantees() g where g.kind = 'room reader');
    writer name;
begin
    if guests is not null then
        raise exception 'there are readers of some rooms, whom Citus would have to let read all: %; make readers of all rooms of '
                        'them (grant-reader without --room), or drop them', guests;
    end if;
    for writer in select g.role from archive.grantees() g where g.kind = 'writer' loop
        perform archive.grant_writer(writer);
    end loop;
end
$$;

-- It gives those readers their rights to the tables, too.
select archive.renew_reader_views();

-- Of the whole archive: few rows, of which every server has a copy. They come first, because views of rooms read them.
select create_reference_table('archive.accounts');
select create_reference_table('archive.erasures');
select create_reference_table('archive.index_builds');
select create_reference_table('archive.room_choices');
select create_reference_table('archive.reader_rooms');
select create_reference_table('archive.server_keys');
select create_reference_table('archive.encryption_settings');
select create_reference_table('archive.devices');
select create_reference_table('archive.olm_sessions');

select create_distributed_table('archive.rooms', 'room_id');
select create_distributed_table('archive.events', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.waiting_edits', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.redactions', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.replaced_copies', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.originals', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.quarantine', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.unnamed_prev_content', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.stripped_state', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.anchors', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.current_state', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.state_changes', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.members', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.walks', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.gaps', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.resequences', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.resequenced_events', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.activity', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.search_blocks', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.search_queue', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.search_locks', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.evidence', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.running_verifications', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.verified_events', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.verified_ancestors', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.verifications', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.seals', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.only_here', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.imported_events', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.megolm_sessions', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.decrypted_events', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.decryption_queue', 'room_id', colocate_with => 'archive.rooms');
select create_distributed_table('archive.withheld_sessions', 'room_id', colocate_with => 'archive.rooms');

-- archive.writer_lease stays on the coordinator, which is the only one that Backscroll connects to.

-- The other servers have the views only now.
select archive.let_read(g.role, g.kind) from archive.grantees() g where g.kind = 'reader';

-- What was archived before is in the parts of the tables now. The coordinator has it once more, behind them, where no query sees
-- it, and no redaction or erasure removes it.
select truncate_local_data_after_distributing_table(p.logicalrelid)
from pg_dist_partition p join pg_class c on c.oid = p.logicalrelid
where c.relnamespace = 'archive'::regnamespace;
commit;

-- Citus takes some numbers of new rows on the server of their room, with the rights of the role that writes, and does not give
-- that server the writer's right to the sequences. So everybody may take numbers there who may use schema archive.
do $$
declare
    refused constant text := (
        select string_agg(format('%s:%s: %s', n.nodename, n.nodeport, c.result), '; ')
        from run_command_on_workers('grant usage on all sequences in schema archive to public') c
        join pg_dist_node n on (n.nodename, n.nodeport) = (c.nodename, c.nodeport)
        where not c.success);
begin
    if refused is not null then
        raise exception 'the sequences: %', refused;
    end if;
end
$$;
