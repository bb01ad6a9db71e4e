-- Distributes an archive over the servers of a Citus cluster: all rows of a room are on one of them.
--
-- Run it once, as the owner of the archive, in the coordinator's database, after `create extension citus` and `backscroll
-- migrate`, and before the first `backscroll run`:
--
--     psql -d backscroll -f deploy/citus.sql
--
-- Then name the coordinator in database.url. The test `every_key_of_a_room_begins_with_the_room` checks that this file names
-- every table, and the tests `no_query_joins_rooms` and `no_function_joins_rooms` that no query joins two rooms.
--
-- Tried with Citus 13.2.2 on PostgreSQL 15.18, a single server that is its own worker (tests/citus.sh): storing and
-- following rooms works there. Not tried: several servers, encrypted rooms, and all commands. An erasure fails there.
-- If a new version of Backscroll replaces one of the functions that are changed below, change it again.
--
-- Citus makes its servers a certificate of X.509 version 1, which Backscroll refuses. Give the coordinator one of your own, or
-- connect with sslmode=disable where nobody else can listen.
--
-- A distributed database cannot answer these views and functions:
-- * conversations: it follows upgrades from room to room, which takes a recursive query. The view upgrades has the same links,
--   one by one.
-- * poll_votes, poll_results: they compare each vote with what its text lists. The view polls and the events have the same.
-- * search: it reads the blocks of all rooms together.
-- * a query of one's own with `exists (select from …)`: write `exists (select 1 from …)`.
--
-- Set max_prepared_transactions above 0 on every server, because Citus commits in two phases.
\set ON_ERROR_STOP on

begin;
-- Citus refuses a function in SQL that names a table of rooms and has a parameter. In PL/pgSQL it is the same.
do $$
declare
    definition text;
begin
    for definition in
        select pg_get_functiondef(p.oid) from pg_proc p join pg_language l on l.oid = p.prolang
        where l.lanname = 'sql' and p.pronamespace::regnamespace::text in ('archive', 'public', 'room_reader')
          and p.proname in ('state_at', 'members_at', 'inconsistencies')
    loop
        definition := replace(definition, 'LANGUAGE sql', 'LANGUAGE plpgsql');
        definition := regexp_replace(definition, 'AS \$function\$(.*)\$function\$',
                                     'AS $function$ #variable_conflict use_column begin return query \1; end $function$');
        execute definition;
    end loop;
end
$$;
-- These read tables of which every server has a copy, or what another function returns, for a query that Citus runs for a part
-- of a table. They only read.
alter function archive.account_user_id() set citus.allow_nested_distributed_execution = on;
alter function archive.room_ids_of(name) set citus.allow_nested_distributed_execution = on;
alter function archive.room_flags_of(name) set citus.allow_nested_distributed_execution = on;
alter function public.members_at(text, bigint) set citus.allow_nested_distributed_execution = on;
alter function public.members_at(text, timestamptz) set citus.allow_nested_distributed_execution = on;
alter function room_reader.members_at(text, bigint) set citus.allow_nested_distributed_execution = on;
alter function room_reader.members_at(text, timestamptz) set citus.allow_nested_distributed_execution = on;

-- Of the whole archive: few rows, of which every server has a copy. They come first, because views of rooms read them.
select create_reference_table('archive.accounts');
select create_reference_table('archive.erasures');
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
commit;
