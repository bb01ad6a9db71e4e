create or replace function archive.reader_views() returns name[] language sql immutable parallel safe
    return array['events', 'messages', 'reactions', 'members', 'current_state', 'state_history', 'rooms', 'gaps',
                 'backfill', 'polls', 'poll_votes', 'beacons']::name[];
select archive.renew_reader_views();
