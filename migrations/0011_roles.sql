-- Least privilege. A reader of everything reads the views in `public`, which stay as they are: a check in them would cost
-- every query. A reader of some rooms reads the same views again in `room_reader`, each behind a security barrier, so that
-- no function of the reader's own sees a row of another room before the room is checked. Neither may use `archive`.
create schema room_reader;
comment on schema room_reader is 'The views of schema public again, less the rooms that the reader may not see: see archive.grant_reader.';

create table archive.reader_rooms (
    role name,
    room_id text collate "C",
    primary key (role, room_id)
);
comment on table archive.reader_rooms is 'Which rooms a role sees in the views of schema room_reader.';
comment on column archive.reader_rooms.role is 'The role that queries.';
comment on column archive.reader_rooms.room_id is 'A room that it sees.';

create function room_reader.room_key(room_id text) returns int
    language sql stable strict security definer set search_path = pg_catalog, pg_temp
    return (select r.room_key from archive.rooms r where r.room_id = room_key.room_id);
comment on function room_reader.room_key(text) is 'The internal key of a room, as public.room_key(text).';

-- Readers have no right to archive.rooms, which it reads.
alter function public.room_key(text) security definer set search_path = pg_catalog, pg_temp;

do $$
declare
    view name;
    col record;
begin
    foreach view in array array['events', 'messages', 'reactions', 'members', 'current_state', 'state_history', 'rooms',
                                'gaps', 'backfill'] loop
        -- The list of rooms does not depend on the row, so it is read once a query.
        execute format(
            'create view room_reader.%1$I with (security_barrier) as
             select v.* from public.%1$I v
             where v.room_id = any (array(select x.room_id from archive.reader_rooms x where x.role = current_user))', view);
        execute format('comment on view room_reader.%I is %L', view, obj_description(format('public.%I', view)::regclass, 'pg_class'));
        for col in select attname, col_description(attrelid, attnum) as comment
                   from pg_attribute where attrelid = format('public.%I', view)::regclass and attnum > 0 loop
            execute format('comment on column room_reader.%I.%I is %L', view, col.attname, col.comment);
        end loop;
    end loop;
end
$$;

create function archive.check_role(role name) returns void language plpgsql as $$
begin
    if not exists (select from pg_roles where rolname = role) then
        execute format('create role %I login', role);
        execute format('alter role %I connection limit 10', role);
    elsif (select rolsuper from pg_roles where rolname = role) or pg_has_role(role, session_user, 'usage')
          or exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                     where n.nspname in ('archive', 'room_reader') and pg_has_role(role, c.relowner, 'usage')) then
        raise exception 'role "%" owns the archive or is above it, so nothing can be kept from it', role
            using hint = 'Name another role; one that does not exist is made.', errcode = 'invalid_grant_operation';
    end if;
end
$$;
comment on function archive.check_role(name) is 'Makes a role that does not exist, and refuses one whose rights cannot be limited.';

create function archive.grant_reader(role name, rooms text[] default null) returns void language plpgsql as $$
declare
    view name;
    views constant name[] := array['events', 'messages', 'reactions', 'members', 'current_state', 'state_history', 'rooms',
                                   'gaps', 'backfill'];
    old_schema constant name := case when rooms is null then 'room_reader' else 'public' end;
    new_schema constant name := case when rooms is null then 'public' else 'room_reader' end;
begin
    perform archive.check_role(role);
    delete from archive.reader_rooms r where r.role = grant_reader.role;
    insert into archive.reader_rooms select grant_reader.role, room_id from unnest(rooms) as room_id on conflict do nothing;
    execute format('revoke all on schema archive, room_reader from %I', role);
    execute format('revoke all on all tables in schema archive from %I', role);
    execute format('grant usage on schema %I to %I', new_schema, role);
    foreach view in array views loop
        execute format('revoke all on %I.%I from %I', old_schema, view, role);
        execute format('grant select on %I.%I to %I', new_schema, view, role);
    end loop;
    execute format('alter role %I in database %I set search_path = %s', role, current_database(),
                   case when rooms is null then 'public' else 'room_reader, public' end);
    execute format('alter role %I in database %I set default_transaction_read_only = on', role, current_database());
    execute format('alter role %I in database %I set statement_timeout = ''60s''', role, current_database());
end
$$;
comment on function archive.grant_reader(name, text[]) is 'Lets a role read the views and nothing else: of all rooms, or of these only. Makes the role if need be. Granting again replaces.';

create function archive.grant_writer(role name) returns void language plpgsql as $$
begin
    perform archive.check_role(role);
    execute format('grant usage on schema archive, public to %I', role);
    execute format('grant select, insert, update, delete on all tables in schema archive to %I', role);
    -- What migrations to come make.
    execute format('alter default privileges in schema archive grant select, insert, update, delete on tables to %I', role);
    execute format('revoke all on archive._sqlx_migrations, archive.reader_rooms from %I', role);
    execute format('grant select on archive._sqlx_migrations to %I', role);
    execute format('grant select on public.rooms, public.current_state to %I', role);
end
$$;
comment on function archive.grant_writer(name) is 'Lets a role do what the daemon does: write rows, but neither make, change, empty nor drop a table, nor let anybody read.';

-- A function can be called by everybody unless that is taken away.
revoke execute on function archive.check_role(name), archive.grant_reader(name, text[]), archive.grant_writer(name) from public;
