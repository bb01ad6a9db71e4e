-- A reader of some rooms learns nothing of the others: each of its views is made again over the tables, every one of them cut
-- down to the reader's rooms where it is scanned. Behind a barrier over the views of all rooms, as 0011 had it, a condition
-- of the reader's own went before the room's, and `explain (analyze)` counted the rows that it had removed. A reader of all
-- rooms reads the views in schema public as before, and pays for none of this.
create function archive.room_keys_of(role name) returns int[]
    language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
begin
    return array(select r.room_key from archive.reader_rooms x join archive.rooms r using (room_id)
                 where x.role = room_keys_of.role);
end
$$;
comment on function archive.room_keys_of(name) is 'The keys of the rooms that a role may see; what it reads to know that is in no plan of the reader''s.';

create function archive.room_ids_of(role name) returns text[]
    language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
begin
    return array(select x.room_id from archive.reader_rooms x where x.role = room_ids_of.role);
end
$$;
comment on function archive.room_ids_of(name) is 'The ids of the rooms that a role may see.';

create function archive.room_flags_of(role name) returns bool[]
    language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
declare
    keys constant int[] := archive.room_keys_of(role);
    flags bool[] := array_fill(false, array[coalesce((select max(key) from unnest(keys) as key), 0)]);
    key int;
begin
    foreach key in array keys loop
        flags[key] := true;
    end loop;
    return flags;
end
$$;
comment on function archive.room_flags_of(name) is 'For the key of each room, as index, whether a role may see it; null beyond the last that it may.';

create function archive.reader_views() returns name[] language sql immutable parallel safe
    return array['events', 'messages', 'reactions', 'members', 'current_state', 'state_history', 'rooms', 'gaps',
                 'backfill']::name[];
comment on function archive.reader_views() is 'The views of schema public that are for readers. A migration that adds one replaces this function and then calls archive.renew_reader_views().';

create function archive.grantees(out role name, out kind text) returns setof record
    language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select distinct pg_get_userbyid(acl.grantee),
           case c.relnamespace::regnamespace::text when 'archive' then 'writer' when 'public' then 'reader' else 'room reader' end
    from pg_class c
    cross join lateral aclexplode(c.relacl) acl
    where acl.grantee not in (0, c.relowner) and exists (select from pg_roles r where r.oid = acl.grantee)
      and case c.relnamespace::regnamespace::text
              when 'archive' then c.relname = 'events' and acl.privilege_type = 'INSERT'
              -- These two are granted to writers as well.
              when 'public' then c.relname = any (archive.reader_views()) and c.relname not in ('rooms', 'current_state')
                                 and acl.privilege_type = 'SELECT'
              when 'room_reader' then c.relkind = 'v' and acl.privilege_type = 'SELECT'
              else false
          end;
end;
comment on function archive.grantees() is 'The roles that were made readers of all rooms, readers of some, or writers, as their rights show.';

create function archive.let_read(role name, kind text) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    view name;
    path constant name := case kind when 'reader' then 'public' else 'room_reader' end;
begin
    execute format('grant usage on schema %I to %I', path, role);
    foreach view in array archive.reader_views() loop
        execute format('grant select on %I.%I to %I', path, view, role);
    end loop;
    execute format('grant execute on function %I.room_key(text) to %I', path, role);
    if kind = 'room reader' then
        -- What the views call and room_key(text) reads. The reader cannot name them: it may not use their schemas.
        execute format('grant execute on function archive.room_keys_of(name), archive.room_flags_of(name), archive.room_ids_of(name) to %I', role);
        execute format('grant select on room_reader_tables.rooms to %I', role);
    end if;
end
$$;
comment on function archive.let_read(name, text) is 'Gives a role what a reader of all rooms (reader) or of some (room reader) needs, and nothing else.';

-- Nothing is written by hand twice: the views of schema public are decompiled, and the names of what they read are replaced.
create function archive.renew_reader_views() returns void
    language plpgsql set search_path = pg_catalog, pg_temp set client_min_messages = warning as $$
declare
    views constant name[] := archive.reader_views();
    tables constant name[] := array(
        select c.relname
        from pg_class c join pg_attribute a on a.attrelid = c.oid
        where c.relnamespace = 'archive'::regnamespace and c.relkind in ('r', 'p') and c.relname <> 'reader_rooms'
          and a.attname = 'room_key' and not a.attisdropped
        order by c.relname);
    roles constant name[] := array(select g.role from archive.grantees() g where g.kind <> 'writer' order by g.role, g.kind);
    kinds constant text[] := array(select g.kind from archive.grantees() g where g.kind <> 'writer' order by g.role, g.kind);
    waiting name[] := views;
    view name;
    definition text;
    foreign_relation text;
    col record;
begin
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
        -- The lists of rooms do not depend on the row, so they are read once a query. The list of keys leads to the rooms
        -- by an index. Where the whole table is read, PostgreSQL orders conditions by their cost: to look into an array by its
        -- index is the only one that costs nothing, so that no condition of the reader's goes before it, and the plan cannot tell
        -- whether one was met in another room. A room is asked for by its id as well, lest a plan show that the index of ids
        -- knows one that the keys then exclude.
        execute format(
            'create view room_reader_tables.%1$I as select * from archive.%1$I
             where ((select archive.room_flags_of(current_user)))[room_key]
               and room_key = any ((select archive.room_keys_of(current_user))::int[])%2$s', view,
            case view when 'rooms' then ' and room_id = any ((select archive.room_ids_of(current_user))::text[])' end);
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
            execute format('create view room_reader.%1$I with (security_barrier) as select * from room_reader_views.%1$I', view);
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
    execute 'create or replace function room_reader.room_key(room_id text) returns int language sql stable parallel safe strict
             return (select r.room_key from room_reader_tables.rooms r where r.room_id = room_key.room_id)';
    execute 'comment on function room_reader.room_key(text) is ''The internal key of a room, as public.room_key(text); null for a room that the reader may not see.''';
    execute 'revoke execute on function room_reader.room_key(text) from public';
    for i in 1 .. cardinality(roles) loop
        perform archive.let_read(roles[i], kinds[i]);
    end loop;
end
$$;
comment on function archive.renew_reader_views() is 'Makes the views of schema room_reader anew from those of schema public, and gives all readers their rights to the views that there are now. To be called by every migration that changes a view or a table that one reads; it drops whatever else was built on the views of schema room_reader.';

-- It answered everybody who may connect.
revoke execute on function public.room_key(text) from public;
drop function room_reader.room_key(text);
select archive.renew_reader_views();

revoke execute on function archive.room_keys_of(name), archive.room_flags_of(name), archive.room_ids_of(name),
    archive.grantees(), archive.let_read(name, text),
    archive.renew_reader_views() from public;
