-- Least privilege. A reader of everything reads the views in schema public, and no check slows it down. A reader of some rooms
-- reads the same views again in schema room_reader. They are made over the tables, each of which is cut down to the reader's
-- rooms where it is scanned, so that not even the counts of `explain (analyze)` tell anything about other rooms. Neither may
-- use schema archive.
--
-- Later migrations that add views or functions replace archive.reader_views() or archive.reader_functions() with a longer
-- list, and then call archive.renew_reader_views().
create schema room_reader;
comment on schema room_reader is 'The views and functions of schema public again, less the rooms that the reader may not see: see archive.grant_reader.';

create table archive.reader_rooms (
    role name,
    room_id text collate "C",
    primary key (role, room_id)
);
comment on table archive.reader_rooms is 'Which rooms a role sees in the views of schema room_reader.';
comment on column archive.reader_rooms.role is 'The role that queries.';
comment on column archive.reader_rooms.room_id is 'A room that it sees.';

create function archive.reader_views() returns name[] language sql immutable parallel safe
    return array['events', 'messages', 'reactions', 'members', 'current_state', 'state_history', 'rooms', 'gaps',
                 'backfill', 'polls', 'poll_votes', 'beacons', 'message_versions', 'threads', 'poll_results', 'pins',
                 'membership_history', 'upgrades', 'conversations', 'files', 'activity', 'redacted_events', 'state_events',
                 'state_changes', 'verifications', 'only_here', 'seals', 'search_status', 'imported_events',
                 'undecryptable', 'encryption_status']::name[];
comment on function archive.reader_views() is 'The views of schema public that are for readers. A migration that adds one replaces this function and then calls archive.renew_reader_views().';

-- A function either only reads views and runs with its caller's rights, or it reads tables and is a security definer with a
-- search_path of its own. It names tables as archive.…, views and other reader functions as public.….
create function archive.reader_functions() returns name[] language sql immutable parallel safe
    return array['state_at', 'members_at', 'search']::name[];
comment on function archive.reader_functions() is 'The functions of schema public that are for readers, all those of a name. A migration that adds one replaces this function and then calls archive.renew_reader_views().';

create function archive.reader_function_ids(schemas name[], out function oid) returns setof oid
    language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select p.oid
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = any (schemas) and p.proname = any (archive.reader_functions())
      -- Whoever else makes functions in schema public.
      and p.proowner = (select a.nspowner from pg_namespace a where a.nspname = 'archive')
    order by array_position(archive.reader_functions(), p.proname), p.oid;
end;
comment on function archive.reader_function_ids(name[]) is 'The functions of archive.reader_functions() in these schemas, in the order of that list.';

-- The views and functions of schema room_reader ask these which rooms may be seen, once for each query. They are in plpgsql, so
-- that what they read is in no plan of the reader's.
create function archive.reading_role() returns name
    language sql stable parallel restricted
    -- In a security definer function the current user is its owner. The setting `role` still says who calls, and cannot be
    -- changed there.
    return case when current_user <> (select pg_catalog.pg_get_userbyid(n.nspowner) from pg_catalog.pg_namespace n
                                      where n.nspname = 'archive')
                then current_user
                else coalesce(nullif(pg_catalog.current_setting('role'), 'none')::name, session_user) end;
comment on function archive.reading_role() is 'The role whose rooms a view of schema room_reader shows: the current one, or, within a function of the archive''s owner, the one that called it.';

create function archive.room_ids_of(role name) returns text[]
    language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
begin
    return array(select x.room_id from archive.reader_rooms x where x.role = room_ids_of.role);
end
$$;
comment on function archive.room_ids_of(name) is 'The ids of the rooms that a role may see.';

create function archive.room_flags_of(role name) returns jsonb
    language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
begin
    return (select coalesce(jsonb_object_agg(x.room_id, true), '{}')
            from archive.reader_rooms x where x.role = room_flags_of.role);
end
$$;
comment on function archive.room_flags_of(name) is 'An object with the ids of the rooms that a role may see as keys.';

create function archive.grantees(out role name, out kind text) returns setof record
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select distinct pg_get_userbyid(acl.grantee),
           case c.relnamespace::regnamespace::text
               when 'archive' then 'writer' when 'public' then 'reader' else 'room reader'
           end
    from pg_class c
    cross join lateral aclexplode(c.relacl) acl
    where acl.grantee not in (0, c.relowner) and exists (select from pg_roles r where r.oid = acl.grantee)
      and case c.relnamespace::regnamespace::text
              when 'archive' then c.relname = 'events' and acl.privilege_type = 'INSERT'
              -- The two views are granted to writers as well.
              when 'public' then c.relname = any (archive.reader_views()) and c.relname not in ('rooms', 'current_state')
                                 and acl.privilege_type = 'SELECT'
              when 'room_reader' then c.relkind = 'v' and acl.privilege_type = 'SELECT'
              else false
          end
$$;
comment on function archive.grantees() is 'The roles that were made readers of all rooms, readers of some, or writers, as their rights show.';

create function archive.let_read(role name, kind text) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    view name;
    function regprocedure;
    path constant name := case kind when 'reader' then 'public' else 'room_reader' end;
begin
    execute format('grant usage on schema %I to %I', path, role);
    foreach view in array archive.reader_views() loop
        execute format('grant select on %I.%I to %I', path, view, role);
    end loop;
    for function in select f.function from archive.reader_function_ids(array[path]) f loop
        execute format('grant execute on function %s to %I', function, role);
    end loop;
    if kind = 'room reader' then
        -- The views call these. The reader cannot name them: it may not use their schema.
        execute format(
            'grant execute on function archive.reading_role(), archive.room_flags_of(name), archive.room_ids_of(name) to %I',
            role);
    end if;
end
$$;
comment on function archive.let_read(name, text) is 'Gives a role what a reader of all rooms (reader) or of some (room reader) needs, and nothing else.';

-- Nothing is written by hand twice: the views and functions of schema public are decompiled, and the names of what they read
-- are replaced.
create function archive.renew_reader_views() returns void
    language plpgsql set search_path = pg_catalog, pg_temp set client_min_messages = warning as $$
declare
    views constant name[] := archive.reader_views();
    -- These three say what may be seen or archived, of rooms that need not be there. No reader sees them.
    tables constant name[] := array(
        select c.relname
        from pg_class c join pg_attribute a on a.attrelid = c.oid
        where c.relnamespace = 'archive'::regnamespace and c.relkind in ('r', 'p')
          and c.relname not in ('reader_rooms', 'room_choices', 'erasures')
          and a.attname = 'room_id' and not a.attisdropped
        order by c.relname);
    roles constant name[] := array(select g.role from archive.grantees() g where g.kind <> 'writer' order by g.role, g.kind);
    kinds constant text[] := array(select g.kind from archive.grantees() g where g.kind <> 'writer' order by g.role, g.kind);
    waiting name[] := views;
    view name;
    columns text;
    definition text;
    foreign_relation text;
    col record;
    function record;
    copy oid;
    copies oid[] := '{}';
begin
    for function in select p.oid::regprocedure as id from pg_proc p where p.pronamespace = 'room_reader'::regnamespace loop
        execute format('drop function %s cascade', function.id);
    end loop;
    execute 'drop schema if exists room_reader_tables, room_reader_views cascade';
    foreach view in array array(select c.relname from pg_class c
                                where c.relnamespace = 'room_reader'::regnamespace and c.relkind = 'v') loop
        execute format('drop view room_reader.%I', view);
    end loop;
    execute 'create schema room_reader_tables';
    execute 'comment on schema room_reader_tables is ''The tables of schema archive, less the rooms that the querying role may not see. Made by archive.renew_reader_views().''';
    execute 'create schema room_reader_views';
    execute 'comment on schema room_reader_views is ''The views of schema public over the tables of schema room_reader_tables. Made by archive.renew_reader_views().''';
    foreach view in array tables loop
        -- The lists of rooms do not depend on the row, so they are read once a query. The list of ids leads to the rooms by an
        -- index. Where a whole table is read, PostgreSQL orders conditions by their cost: a look into a JSON object is the only
        -- one that costs nothing, so no condition of the reader's goes before it, and the plan cannot tell whether one was met
        -- in another room. The subscript of origin_server_ts changes nothing but that archive.any_room() says nothing about
        -- the column itself.
        select string_agg(case when view = 'events' and a.attname = 'origin_server_ts'
                               then '(array[origin_server_ts])[1] as origin_server_ts'
                               else quote_ident(a.attname) end, ', ' order by a.attnum) into columns
        from pg_attribute a
        where a.attrelid = format('archive.%I', view)::regclass and a.attnum > 0 and not a.attisdropped;
        execute format(
            'create view room_reader_tables.%1$I as select %2$s from archive.%1$I
             where ((select archive.room_flags_of(archive.reading_role())))[room_id] is not null
               and room_id = any ((select archive.room_ids_of(archive.reading_role()))::text[])', view, columns);
    end loop;
    while waiting <> '{}' loop
        foreach view in array waiting loop
            definition := pg_get_viewdef(format('public.%I', view)::regclass);
            -- After the views that it reads.
            continue when exists (select from unnest(waiting) as other (name)
                                  where other.name <> view and definition ~ format('\mpublic\.%s\M(?!\()', other.name));
            definition := regexp_replace(
                definition, format('\marchive\.(%s)\M(?!\()', array_to_string(tables, '|')), 'room_reader_tables.\1', 'g');
            definition := regexp_replace(
                definition, format('\mpublic\.(%s)\M(?!\()', array_to_string(views, '|')), 'room_reader_views.\1', 'g');
            execute format('create view room_reader_views.%I as %s', view, definition);
            -- No function of the reader's own sees a row before its room is checked.
            execute format(
                'create view room_reader.%1$I with (security_barrier) as select * from room_reader_views.%1$I', view);
            execute format('comment on view room_reader.%I is %L', view,
                           obj_description(format('public.%I', view)::regclass, 'pg_class'));
            for col in select attname, col_description(attrelid, attnum) as comment
                       from pg_attribute where attrelid = format('public.%I', view)::regclass and attnum > 0 loop
                execute format('comment on column room_reader.%I.%I is %L', view, col.attname, col.comment);
            end loop;
            waiting := array_remove(waiting, view);
        end loop;
    end loop;
    select format('%s reads %s', r.ev_class::regclass, d.refobjid::regclass) into foreign_relation
    from pg_rewrite r
    join pg_class v on v.oid = r.ev_class and v.relnamespace = 'room_reader_views'::regnamespace
    join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
    join pg_class t on t.oid = d.refobjid and t.oid <> v.oid
    where t.relnamespace not in ('room_reader_tables'::regnamespace, 'room_reader_views'::regnamespace);
    if foreign_relation is not null then
        raise exception '%, of which it is not known which room a row belongs to', foreign_relation;
    end if;
    for function in select f.function::regprocedure as id, p.proname as name, p.prosecdef as is_definer,
                           coalesce(p.proconfig::text, '') as settings, obj_description(p.oid, 'pg_proc') as comment
                    from archive.reader_function_ids(array['public']::name[]) with ordinality f (function, place)
                    join pg_proc p on p.oid = f.function order by f.place loop
        if function.is_definer and function.settings !~ '\msearch_path=' then
            raise exception 'function % is a security definer without a search_path of its own', function.id;
        end if;
        execute format('revoke execute on function %s from public', function.id);
        definition := pg_get_functiondef(function.id);
        -- What runs with the reader's rights reads what the reader may read.
        definition := regexp_replace(
            definition, format('\mpublic\.(%s)\M(?!\()', array_to_string(views, '|')),
            case when function.is_definer then 'room_reader_views.\1' else 'room_reader.\1' end, 'g');
        definition := regexp_replace(
            definition, format('\mpublic\.(%s)\M(?=\()', array_to_string(archive.reader_functions(), '|')),
            'room_reader.\1', 'g');
        if function.is_definer then
            definition := regexp_replace(
                definition, format('\marchive\.(%s)\M(?!\()', array_to_string(tables, '|')), 'room_reader_tables.\1', 'g');
        end if;
        foreign_relation := (
            select format('%I.%I', n.nspname, c.relname)
            from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where n.nspname in ('archive', 'public') and c.relkind in ('r', 'p', 'v', 'm', 'f')
              and definition ~ format('\m%s\.%s\M(?!\()', n.nspname, c.relname)
            limit 1);
        if foreign_relation is not null then
            raise exception 'function % reads %, which a reader of some rooms may not', function.id, foreign_relation
                using hint = 'A function that reads tables must be a security definer, and they must have the column room_id.';
        end if;
        execute definition;
        copy := (select p.oid from pg_proc p where p.pronamespace = 'room_reader'::regnamespace and p.oid <> all (copies));
        copies := copies || copy;
        execute format('revoke execute on function %s from public', copy::regprocedure);
        execute format('comment on function %s is %L', copy::regprocedure, function.comment);
    end loop;
    for i in 1 .. cardinality(roles) loop
        perform archive.let_read(roles[i], kinds[i]);
    end loop;
end
$$;
comment on function archive.renew_reader_views() is 'Makes the views and functions of schema room_reader anew from those of schema public, and gives all readers their rights to them. To be called by every migration that changes a reader''s view or function, or a table that one reads. It drops whatever else was built on the views of schema room_reader.';

-- What a reader or writer must not be able to do is taken from it when it is made, or from everybody (PUBLIC) if that is the
-- only way. A role that would keep it by other ways is refused. What has become possible since, or what only a superuser can
-- take away, is reported by archive.wide_roles(), which `backscroll check` asks.
--
-- Taken from PUBLIC, in this database alone: temporary tables, new objects in schema public, large objects (which can be
-- written even in a read-only transaction, and are in a dump), advisory locks (which fill a table that all sessions share),
-- and the functions that use up transaction ids or write to the write-ahead log. The archive's owner keeps them, and so do
-- roles that own something else in this database.
create function archive.neighbours(out role name) returns setof name
    language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select distinct r.rolname
    from pg_roles r
    where not r.rolsuper and r.rolname not in (select g.role from archive.grantees() g)
      and r.oid <> (select n.nspowner from pg_namespace n where n.nspname = 'archive')
      and (exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                   where c.relowner = r.oid
                     and n.nspname not in ('archive', 'room_reader', 'room_reader_tables', 'room_reader_views')
                     and n.nspname !~ '^pg_|^information_schema$')
           or exists (select from pg_largeobject_metadata l where l.lomowner = r.oid));
end;
comment on function archive.neighbours() is 'The roles that own tables or large objects in this database and are not Backscroll''s.';

create function archive.closed_functions(out function regprocedure, out everybody bool, out for_writers bool, out purpose text)
    returns setof record
    language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select p.oid::regprocedure,
           exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) acl where acl.grantee = 0),
           p.proname ~ 'advisory',
           case when p.proname ~ '^lo' then 'write large objects, even in a read-only transaction'
                when p.proname ~ 'advisory' then 'fill the table of locks that all sessions share'
                when p.proname ~ 'emit' then 'write to the write-ahead log'
                else 'use up transaction ids' end
    from pg_proc p
    where p.pronamespace = 'pg_catalog'::regnamespace
      and (p.proname ~ '^lo_|^pg_(try_)?advisory_'
           or p.proname in ('loread', 'lowrite', 'pg_logical_emit_message', 'pg_current_xact_id', 'txid_current'));
end;
comment on function archive.closed_functions() is 'Functions of PostgreSQL by which whoever may connect could write or be in others'' way; whether everybody may call them; whether writers need them.';

create function archive.take_from_everybody(role name) returns void
    language plpgsql set search_path = pg_catalog, pg_temp set client_min_messages = error as $$
declare
    statement text;
    database constant text := quote_ident(current_database());
    object text;
    privilege text;
begin
    for object, privilege in
        select 'database ' || database, 'temporary'
        from pg_database d cross join lateral aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) acl
        where d.datname = current_database() and acl.grantee = 0 and acl.privilege_type = 'TEMPORARY'
        union all
        select 'schema public', 'create'
        from pg_namespace n cross join lateral aclexplode(n.nspacl) acl
        where n.nspname = 'public' and acl.grantee = 0 and acl.privilege_type = 'CREATE'
        union all
        select 'function ' || f.function, 'execute' from archive.closed_functions() f where f.everybody
    loop
        begin
            for statement in
                select format('grant %s on %s to %I', privilege, object, k.role) || k.option
                from (select n.role, '' from archive.neighbours() n
                      union
                      select pg_get_userbyid(n.nspowner), ' with grant option' from pg_namespace n where n.nspname = 'archive'
                      union
                      select g.role, '' from archive.grantees() g where g.kind = 'writer' and object ~ 'advisory')
                     k (role, option)
                where k.role <> take_from_everybody.role
                union all
                select format('revoke %s on %s from public', privilege, object)
            loop
                execute statement;
            end loop;
        exception when insufficient_privilege then
            -- archive.left_open() says so.
            null;
        end;
    end loop;
    for statement in
        select format('revoke create, temporary on database %s from %I', database, role)
        union all select format('revoke create on schema public from %I', role)
        union all select format('revoke execute on function %s from %I', f.function, role) from archive.closed_functions() f
        -- Not even a reader can raise this one.
        union all select format('alter role %I in database %s set temp_file_limit = ''1GB''', role, database)
    loop
        begin
            execute statement;
        exception when insufficient_privilege then
            null;
        end;
    end loop;
end
$$;
comment on function archive.take_from_everybody(name) is 'Takes from a role, and from everybody but the other programs in this database, what a reader or writer must not do, as far as the current role may.';

create function archive.left_open(role name, kind text) returns setof text
    language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select format('it may make temporary tables: revoke temporary on database %I from public', current_database())
    where has_database_privilege(role, current_database(), 'temporary')
    union all
    select format('it may make schemas: revoke create on database %I from public', current_database())
    where has_database_privilege(role, current_database(), 'create')
    union all
    select format('it may make objects in schema %I: revoke create on schema %1$I from public', n.nspname)
    from pg_namespace n where has_schema_privilege(role, n.oid, 'create') and n.nspname !~ '^pg_(toast_)?temp_'
    union all
    select format('it may %s: as a superuser, select archive.take_from_everybody(%L)', f.purpose, role)
    from archive.closed_functions() f
    where has_function_privilege(role, f.function, 'execute') and not (kind = 'writer' and f.for_writers)
    group by f.purpose
    union all
    select format('it may use the language %I, which is not confined to the database: '
                      'revoke usage on language %1$I from public', l.lanname)
    from pg_language l
    where not l.lanpltrusted and l.lanname not in ('internal', 'c') and has_language_privilege(role, l.oid, 'usage')
    union all
    select format('it may use the foreign server %I: revoke usage on foreign server %1$I from public', s.srvname)
    from pg_foreign_server s where has_server_privilege(role, s.oid, 'usage')
    union all
    select format('it may call functions of the extension %I, which reach beyond this database or into its files', x.extname)
    from pg_extension x
    where x.extname in ('dblink', 'adminpack', 'file_fdw', 'pageinspect', 'pg_buffercache', 'pg_freespacemap', 'pg_visibility',
                        'pg_walinspect', 'pgrowlocks', 'pgstattuple')
      and exists (select from pg_depend d join pg_proc p on p.oid = d.objid
                  where d.refclassid = 'pg_extension'::regclass and d.refobjid = x.oid and d.classid = 'pg_proc'::regclass
                    and p.prorettype <> 'fdw_handler'::regtype and has_function_privilege(role, p.oid, 'execute'));
end;
comment on function archive.left_open(name, text) is 'What a reader or writer may do beside what it is for, and how to take that away: what the role that made it was not allowed to.';

create function archive.acts_as(role name, out role_id oid, out name name, out relation text) returns setof record
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select g.oid, g.rolname, case when g.rolname = role then 'it' else format('%I, of which it is a member,', g.rolname) end
    from pg_roles g
    -- Whether rights are inherited or taken by SET ROLE; the membership alone, with ADMIN OPTION, is enough to get there.
    where pg_has_role(role, g.oid, 'member') and not (select rolsuper from pg_roles where rolname = role)
       or g.rolname = role
$$;
comment on function archive.acts_as(name) is 'The roles that a role can act as: itself, and those that it is a member of by whatever way.';

create function archive.excess(role name, kind text, out holder text, out privilege text, out object text) returns setof record
    language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    with granted (grantee, privilege, class, schema, name, owner) as (
        select acl.grantee, acl.privilege_type, 'relation', n.nspname, c.relname, c.relowner
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        cross join lateral aclexplode(c.relacl) acl
        union all
        select acl.grantee, acl.privilege_type, 'relation', n.nspname, c.relname, c.relowner
        from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
        cross join lateral aclexplode(a.attacl) acl
        union all
        select acl.grantee, acl.privilege_type, 'schema', n.nspname, '', n.nspowner
        from pg_namespace n cross join lateral aclexplode(n.nspacl) acl
        union all
        select acl.grantee, acl.privilege_type, 'function', n.nspname, p.proname, p.proowner
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) acl
        where p.oid in (select f.function from archive.reader_function_ids(array['public', 'room_reader']) f)
        union all
        select acl.grantee, acl.privilege_type, 'relation made later', coalesce(n.nspname, 'archive'), '', d.defaclrole
        from pg_default_acl d left join pg_namespace n on n.oid = d.defaclnamespace
        cross join lateral aclexplode(d.defaclacl) acl
        where d.defaclobjtype = 'r' and (n.oid is null or n.nspname <> 'public')
          and d.defaclrole = (select a.nspowner from pg_namespace a where a.nspname = 'archive')
    )
    select distinct case g.grantee when 0 then 'everybody (PUBLIC)' else c.relation end, lower(g.privilege),
           case g.class when 'schema' then format('schema %I', g.schema)
                        when 'relation made later' then format('each table that is made in schema %I from now on', g.schema)
                        else format('%I.%I', g.schema, g.name) end
    from granted g
    left join archive.acts_as(role) c on c.role_id = g.grantee
    where (g.grantee = 0 or c.role_id is not null) and g.grantee <> g.owner
      and (g.schema in ('archive', 'room_reader', 'room_reader_tables', 'room_reader_views')
           or g.schema = 'public' and (g.class = 'function' or g.class = 'relation' and g.name = any (archive.reader_views())))
      and not case kind
          when 'reader' then
              g.schema = 'public' and g.privilege in ('SELECT', 'EXECUTE')
              or g.schema = 'room_reader' and g.privilege in ('USAGE', 'SELECT', 'EXECUTE') and g.grantee <> 0
          when 'room reader' then
              g.schema = 'room_reader' and g.privilege in ('USAGE', 'SELECT', 'EXECUTE')
          when 'writer' then
              g.privilege in ('SELECT', 'USAGE', 'EXECUTE')
              or g.schema = 'archive' and g.privilege in ('INSERT', 'UPDATE', 'DELETE')
                 and g.name not in ('_sqlx_migrations', 'reader_rooms')
      end;
end;
comment on function archive.excess(name, text) is 'The rights to Backscroll''s tables and views that a role has, by itself, as a member of others, or as everybody has them, beyond those of its kind (reader, room reader, writer).';

create function archive.why_unlimited(role name, kind text) returns setof text
    language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select format('%s %s', c.relation, attribute.text)
    from archive.acts_as(role) c
    join pg_roles g on g.oid = c.role_id
    cross join lateral (values
        (g.rolsuper, 'is a superuser'),
        (g.rolcreaterole and not g.rolsuper, 'may make roles and join them (CREATEROLE)'),
        (g.rolcreatedb and not g.rolsuper, 'may make databases (CREATEDB)'),
        (g.rolreplication and not g.rolsuper, 'may copy the whole server (REPLICATION)'),
        (g.rolbypassrls and not g.rolsuper, 'may pass over row security (BYPASSRLS)'),
        (g.oid = (select datdba from pg_database where datname = current_database()) and not g.rolsuper, 'owns the database'),
        (not g.rolsuper and exists (
            select from pg_class x join pg_namespace n on n.oid = x.relnamespace
            where x.relowner = g.oid and (n.nspname in ('archive', 'room_reader', 'room_reader_tables', 'room_reader_views')
                                          or n.nspname = 'public' and x.relname = any (archive.reader_views()))),
         'owns the archive')
    ) as attribute (holds, text)
    where attribute.holds
    union all
    -- Whatever they are for, none is for a reader or writer; new versions of PostgreSQL add more.
    select format('it is a member of %I', c.name) from archive.acts_as(role) c
    where c.name ~ '^pg_' and c.name <> 'pg_database_owner'
    union all
    select format('%s sees other rooms: %s', c.relation, string_agg(distinct x.room_id, ', ' order by x.room_id))
    from archive.acts_as(role) c join archive.reader_rooms x on x.role = c.name
    where kind = 'room reader' and c.name <> why_unlimited.role
      and not exists (select from archive.reader_rooms own where own.role = why_unlimited.role and own.room_id = x.room_id)
    group by c.relation
    union all
    select format('%s may %s%s', e.holder,
                  array_to_string((array_agg(e.privilege || ' on ' || e.object order by e.object, e.privilege))[:3], ', '),
                  case when count(*) > 3 then format(' and %s more', count(*) - 3) else '' end)
    from archive.excess(role, kind) e
    -- A superuser needs none.
    where not (select rolsuper from pg_roles where rolname = role)
    group by e.holder;
end;
comment on function archive.why_unlimited(name, text) is 'Why a role cannot be held to what a reader, room reader or writer may do; nothing, if it can.';

create function archive.wide_roles(out role name, out kind text, out problem text, out unlimited bool) returns setof record
    language sql stable security definer set search_path = pg_catalog, pg_temp
begin atomic
    select g.role, g.kind, reason.text, true
    from archive.grantees() g cross join lateral archive.why_unlimited(g.role, g.kind) as reason (text)
    union all
    select g.role, g.kind, gap.text, false
    from archive.grantees() g cross join lateral archive.left_open(g.role, g.kind) as gap (text);
end;
comment on function archive.wide_roles() is 'The readers and writers that may do more than what they are for by now, and why.';

create function archive.give_locks(role name) returns void
    language plpgsql set search_path = pg_catalog, pg_temp set client_min_messages = error as $$
declare
    function regprocedure;
begin
    for function in select f.function from archive.closed_functions() f where f.for_writers loop
        execute format('grant execute on function %s to %I', function, role);
    end loop;
exception when insufficient_privilege then
    -- They are everybody's still, or whoever took them from everybody gives them.
    null;
end
$$;
comment on function archive.give_locks(name) is 'Lets a writer take advisory locks, where the current role may give that.';

create function archive.take_back(role name) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    owner constant name := (select pg_get_userbyid(n.nspowner) from pg_namespace n where n.nspname = 'archive');
    view name;
    function regprocedure;
    setting text;
begin
    delete from archive.reader_rooms r where r.role = take_back.role;
    for function in select f.function from archive.reader_function_ids(array['public', 'room_reader']) f loop
        -- A database that was restored without privileges has lost that not everybody may call them.
        execute format('revoke execute on function %s from public, %I', function, role);
    end loop;
    execute format('revoke all on schema archive, room_reader, room_reader_tables, room_reader_views from %I', role);
    execute format('revoke all on all tables in schema archive, room_reader, room_reader_tables, room_reader_views from %I',
                   role);
    execute format('revoke all on all sequences in schema archive from %I', role);
    execute format('revoke all on all functions in schema archive, room_reader from %I', role);
    execute format('alter default privileges for role %I in schema archive revoke all on tables from %I', owner, role);
    foreach view in array archive.reader_views() loop
        execute format('revoke all on public.%I from %I', view, role);
    end loop;
    for setting in
        select split_part(entry, '=', 1)
        from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase cross join lateral unnest(s.setconfig) as entry
        where d.datname = current_database() and s.setrole = (select r.oid from pg_roles r where r.rolname = take_back.role)
          and split_part(entry, '=', 1) in ('search_path', 'default_transaction_read_only', 'jit', 'statement_timeout',
                                            'idle_in_transaction_session_timeout')
    loop
        execute format('alter role %I in database %I reset %s', role, current_database(), setting);
    end loop;
end
$$;
comment on function archive.take_back(name) is 'Takes from a role what grant_reader and grant_writer gave it.';

create function archive.hold_to(role name, kind text) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    reasons constant text := (select string_agg(reason, '; ') from archive.why_unlimited(role, kind) reason);
    gap text;
begin
    if reasons is not null then
        raise exception 'role "%" cannot be held to what a % may do: %; take that away first, or name another role',
                        role, kind, reasons
            using errcode = 'invalid_grant_operation';
    end if;
    for gap in select * from archive.left_open(role, kind) loop
        raise warning 'role "%": %', role, gap;
    end loop;
end
$$;
comment on function archive.hold_to(name, text) is 'Refuses a role whose rights cannot be limited, and warns of what could not be taken from it.';

create function archive.check_role(role name) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select from pg_roles where rolname = role) then
        execute format('create role %I login', role);
        execute format('alter role %I connection limit 10', role);
    end if;
end
$$;
comment on function archive.check_role(name) is 'Makes a role that does not exist.';

create function archive.grant_reader(role name, rooms text[] default null) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    kind constant text := case when rooms is null then 'reader' else 'room reader' end;
    setting text;
begin
    perform archive.check_role(role);
    perform archive.take_back(role);
    perform archive.take_from_everybody(role);
    insert into archive.reader_rooms select grant_reader.role, room_id from unnest(rooms) as room_id on conflict do nothing;
    perform archive.let_read(role, kind);
    -- Defaults, against mistakes: the reader may set them otherwise.
    foreach setting in array array[
        'search_path = ' || case when rooms is null then 'public' else 'room_reader, public' end,
        'default_transaction_read_only = on',
        -- Compiling a query takes longer than most queries of the views.
        'jit = off',
        'statement_timeout = ''60s''',
        'idle_in_transaction_session_timeout = ''10min'''] loop
        execute format('alter role %I in database %I set %s', role, current_database(), setting);
    end loop;
    perform archive.hold_to(role, kind);
end
$$;
comment on function archive.grant_reader(name, text[]) is 'Lets a role read the views and nothing else: of all rooms, or of these only. Makes the role if need be. Granting again replaces. That it reads only, for a minute at most, and is idle in a transaction for no longer than ten are defaults, which it may change; that it has no right to write is none.';

create function archive.grant_writer(role name) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    owner constant name := (select pg_get_userbyid(n.nspowner) from pg_namespace n where n.nspname = 'archive');
begin
    perform archive.check_role(role);
    perform archive.take_back(role);
    perform archive.take_from_everybody(role);
    execute format('grant usage on schema archive, public to %I', role);
    execute format('grant select, insert, update, delete on all tables in schema archive to %I', role);
    -- What migrations to come make.
    execute format('alter default privileges for role %I in schema archive '
                       'grant select, insert, update, delete on tables to %I', owner, role);
    execute format('revoke all on archive._sqlx_migrations, archive.reader_rooms from %I', role);
    execute format('grant select on archive._sqlx_migrations to %I', role);
    execute format('grant select on public.rooms, public.current_state to %I', role);
    execute format('grant execute on function archive.settle_relations(text, text[], text[], text[], text[]), '
                       'archive.refresh_members(text, text[]), archive.refresh_left_members(text, text[]), '
                       'archive.recount_activity(text, text), archive.inconsistencies(text[]), archive.announce(text[], bigint[], bigint[]), '
                       'archive.wide_roles(), archive.sort_search(), archive.skip_numbers(text) to %I', role);
    execute format('grant execute on function public.search(text, text, text, timestamptz, timestamptz, boolean, int, text, text) '
                       'to %I', role);
    perform archive.give_locks(role);
    perform archive.hold_to(role, 'writer');
end
$$;
comment on function archive.grant_writer(name) is 'Lets a role do what the daemon does: write rows, but neither make, change, empty nor drop a table, nor let anybody read. Makes the role if need be. Granting again replaces.';

select archive.renew_reader_views();

-- A function can be called by everybody unless that is taken away.
revoke execute on function archive.reading_role(), archive.room_flags_of(name), archive.room_ids_of(name),
    archive.reader_function_ids(name[]), archive.grantees(), archive.let_read(name, text), archive.renew_reader_views(),
    archive.neighbours(), archive.take_from_everybody(name), archive.closed_functions(), archive.left_open(name, text),
    archive.acts_as(name), archive.excess(name, text), archive.why_unlimited(name, text), archive.wide_roles(),
    archive.give_locks(name), archive.take_back(name), archive.hold_to(name, text), archive.check_role(name),
    archive.grant_reader(name, text[]), archive.grant_writer(name) from public;
