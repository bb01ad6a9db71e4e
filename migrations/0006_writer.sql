-- The writer's lease. Advisory locks can be taken by anybody who may connect, and those of tables and views only by who has
-- been granted a right to them.
--
-- Who writes holds `writer_lock` in a transaction that stays open for as long as it is the writer. It is a view because
-- VACUUM takes the lock of a table that would be needed here, and waits: with a table, one VACUUM against the wraparound of
-- transaction ids would wait until the daemon ends. Nothing is read in that transaction, so that it holds back no VACUUM
-- of any other table either.
create view archive.writer_lock as select true as is_lockable;
comment on view archive.writer_lock is 'Locked (share update exclusive) by the session of the one Backscroll that writes, for as long as it does.';
comment on column archive.writer_lock.is_lockable is 'Always true: nothing is to be read here.';

create table archive.writer_lease (
    only_row boolean primary key default true check (only_row),
    epoch bigint not null default 0,
    database oid,
    process jsonb,
    taken_at timestamptz,
    released_at timestamptz
);
comment on table archive.writer_lease is 'One row: who was the last to become the writer. Every transaction that writes takes a lock on this table first and looks whether the epoch is still its own.';
comment on column archive.writer_lease.only_row is 'Keeps it at one row.';
comment on column archive.writer_lease.epoch is 'Grows with each new writer. It moves only under a lock that no transaction of an earlier writer outlives, so that nothing is written under an old one.';
comment on column archive.writer_lease.database is 'The database that this was written in; in a restored copy another one.';
comment on column archive.writer_lease.process is 'The writer''s process and machine, so that who comes next can tell whether it is gone.';
comment on column archive.writer_lease.taken_at is 'When it became the writer.';
comment on column archive.writer_lease.released_at is 'When it said that it is the writer no more; null: it has not, and may come back if its session was lost.';
insert into archive.writer_lease default values;

create table archive.index_builds (
    index_name text collate "C" primary key,
    file_node oid not null,
    event_count bigint not null,
    built_at timestamptz not null default now()
);
comment on table archive.index_builds is 'When the ordered indexes of archive.events and archive.activity were last built. Inserting leaves them up to half empty, so Backscroll rebuilds an index when the archive has grown by half since (database.rebuild_indexes).';
comment on column archive.index_builds.index_name is 'Index in schema archive.';
comment on column archive.index_builds.file_node is 'pg_relation_filenode() of the index. Another one says that the index was built anew: by reindex, vacuum full or a restore.';
comment on column archive.index_builds.event_count is 'Events in the archive when it was built, or when that was noticed.';
comment on column archive.index_builds.built_at is 'When it was built, or when that was noticed.';

-- Once a write transaction, so it is one call in the exchange that begins it.
create function archive.begin_writing(epoch bigint) returns void language plpgsql as $$
begin
    -- A new writer waits for all who hold this, and whoever comes later waits for the new writer.
    lock table archive.writer_lease in row exclusive mode;
    -- Read after that lock was had. Each statement sees what was committed before it, in read committed.
    if not exists (select from archive.writer_lease l where l.epoch = begin_writing.epoch) then
        raise exception 'the lease of this writer is over: another one has taken it' using errcode = 'BS001';
    end if;
    if current_setting('transaction_read_only')::boolean then
        raise exception 'nothing can be written: a standby, or default_transaction_read_only is on' using errcode = '25006';
    end if;
    begin
        lock table archive.writer_lock in share update exclusive mode nowait;
        raise exception 'the session that holds the lease of this writer has ended' using errcode = 'BS002';
    exception when lock_not_available then
        -- The session that holds the lease has it, as it should.
        null;
    end;
end
$$;
comment on function archive.begin_writing(bigint) is 'Begins to write under an epoch of archive.writer_lease. Fails with SQLSTATE BS001 where another writer has come, and with BS002 where no session holds archive.writer_lock.';

-- Everybody who may connect may listen. So no room is named while there are readers who see only some rooms.
create function archive.announce(room_ids text[], first_positions bigint[], last_positions bigint[]) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from archive.reader_rooms)
       or exists (select from pg_namespace n cross join lateral aclexplode(n.nspacl) acl
                  where n.nspname = 'room_reader' and acl.grantee <> n.nspowner) then
        perform pg_notify('backscroll', '{}');
    else
        perform pg_notify('backscroll', json_build_object(
                    'room_id', n.room_id, 'first_position', n.first_position, 'last_position', n.last_position)::text)
        from unnest(room_ids, first_positions, last_positions) as n (room_id, first_position, last_position);
    end if;
end
$$;
comment on function archive.announce(text[], bigint[], bigint[]) is 'Notifies the listeners of channel backscroll, when the transaction is committed: for each room, the positions of its first and last new event, as JSON. While a role is limited to some rooms: an empty object.';
revoke execute on function archive.announce(text[], bigint[], bigint[]) from public;
