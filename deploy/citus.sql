-- Distributes an archive over the servers of a Citus cluster: all rows of a room are on one of them.
--
-- Run it once, as the owner of the archive, in the coordinator's database, after `create extension citus` and `backscroll
-- migrate`, and before the first `backscroll run`:
--
--     psql -d backscroll -f deploy/citus.sql
--
-- Then name the coordinator in database.url. The test `every_key_of_a_room_begins_with_the_room` checks that this file names
-- every table, and the tests `no_query_joins_rooms` and `no_function_joins_rooms` that no query joins two rooms. This file was
-- written by Citus's documentation. Backscroll's tests run it where TEST_CITUS_URL names a server with Citus; that has not
-- been done yet.
--
-- A distributed database cannot answer these views:
-- * conversations: it follows upgrades from room to room, which takes a recursive query. The view upgrades has the same links,
--   one by one.
\set ON_ERROR_STOP on

begin;
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

-- Of the whole archive: few rows, of which every server has a copy.
select create_reference_table('archive.accounts');
select create_reference_table('archive.erasures');
select create_reference_table('archive.room_choices');
select create_reference_table('archive.reader_rooms');
select create_reference_table('archive.server_keys');
select create_reference_table('archive.encryption_settings');

-- archive.writer_lease stays on the coordinator, which is the only one that Backscroll connects to.
commit;
