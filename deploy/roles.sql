-- Creates owner, writer and reader on a PostgreSQL of your own, in a database for Backscroll alone. As a
-- superuser:
--
--   createdb backscroll
--   psql -d backscroll -f deploy/roles.sql
--   DATABASE_URL='postgres:///backscroll?host=/run/postgresql&options=-c%20role%3Dbackscroll_owner' backscroll migrate
--   psql -d backscroll -c "select archive.grant_reader('backscroll_reader')" -c "select archive.grant_writer('backscroll_writer')"
--   psql -d backscroll -c '\password backscroll_writer' -c '\password backscroll_reader'
--
-- Only a superuser may set a reader's defaults and revoke the rights that PostgreSQL grants to everybody,
-- such as those to large objects (migrations/0012_roles.sql lists them). A warning names each right
-- that could not be revoked. The daemon then runs as backscroll_writer. After each upgrade run
-- `backscroll migrate` as the owner, as above. What each role may do is in migrations/0012_roles.sql.
\set ON_ERROR_STOP 1
begin;
create role backscroll_owner nologin;
create role backscroll_writer login connection limit 20;
create role backscroll_reader login connection limit 10;
-- Nobody logs in as the owner; a superuser switches to it.
revoke all on schema public from public;
grant usage on schema public to public;
grant usage, create on schema public to backscroll_owner;
do $$
begin
    execute format('revoke temporary on database %I from public', current_database());
    execute format('grant create on database %I to backscroll_owner', current_database());
end
$$;
commit;
