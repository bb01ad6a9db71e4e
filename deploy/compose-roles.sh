#!/bin/bash
# The service `roles` of docker-compose.yml, in the image of PostgreSQL: sees to it that the database has
# Backscroll's owner and writer, and that each has a password of its own, which nobody has to know. Gives
# Backscroll its data directory. May run any number of times.
set -euo pipefail

# Only this container's root and the server's account may become the superuser: see deploy/pg_hba.conf.
sql() { setpriv --reuid postgres --regid postgres --init-groups psql -XAtq -v ON_ERROR_STOP=1 -U backscroll -d backscroll "$@"; }

[ "$(sql -c "select count(*) from pg_roles where rolname = 'backscroll_owner'")" = 1 ] || sql -f /roles.sql

# Where tables were made by the superuser, as before there were roles, they go to the owner.
sql <<'END'
select format('alter %s %s owner to backscroll_owner', kind, name)
from (
    select 'schema' as kind, quote_ident(nspname) as name, nspowner as owner from pg_namespace
    where nspname in ('archive', 'room_reader')
    union all
    select case relkind when 'v' then 'view' else 'table' end, c.oid::regclass::text, relowner
    from pg_class c join pg_namespace n on n.oid = relnamespace
    where nspname in ('archive', 'room_reader', 'public') and relkind in ('r', 'p', 'v')
    union all
    select 'routine', p.oid::regprocedure::text, proowner from pg_proc p join pg_namespace n on n.oid = pronamespace
    where nspname in ('archive', 'room_reader', 'public')
) as made
where owner = current_user::regrole
\gexec
END

for role in owner writer; do
    if [ -s "/$role/url" ]; then continue; fi
    password=$(head -c 24 /dev/urandom | base64 | tr +/ ab)
    # By standard input: an argument is for everybody to see.
    sql <<<"alter role backscroll_$role login password '$password'"
    rm -f "/$role/new"
    (umask 377 && echo "postgres://backscroll_$role:$password@localhost/backscroll?host=/run/postgresql" >"/$role/new")
    chown 65532:65532 "/$role/new"
    mv "/$role/new" "/$role/url"
done
# Backscroll's data_dir. A new volume is root's.
if [ "$(stat --format %u /data)" = 0 ]; then
    chmod 700 /data
    chown 65532:65532 /data
fi
echo "The roles are in place."
