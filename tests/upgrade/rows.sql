-- An archive in the tables of the first version: one room, with a redacted message, a waiting redaction, something in
-- quarantine, and the walks through two gaps, of which one has no token below.
insert into archive.accounts (user_id, homeserver, since) values ('@archive:hs', 'https://hs', 's1');
insert into archive.rooms (room_id, room_version, membership, bootstrapped, history_state, event_count)
values ('!room:hs', '10', 'join', true, 'complete', 5);
insert into archive.events (room_key, event_id, position, type, sender, state_key, origin_server_ts, content,
                            redacted_by, replaces_state, prev_content, stable_sha256)
values (1, '$create', 0, 'm.room.create', '@alice:hs', '', 1, '{"room_version": "10"}', null, null, null, '\x00'),
       (1, '$alice', 65536, 'm.room.member', '@alice:hs', '@alice:hs', 2, '{"membership": "join", "displayname": "Alice"}',
        null, '$gone', '{"membership": "invite"}', '\x01'),
       (1, '$message', 131072, 'm.room.message', '@alice:hs', null, 3, '{"msgtype": "m.text", "body": "one"}',
        null, null, null, '\x02'),
       (1, '$redacted', 196608, 'm.room.message', '@alice:hs', null, 4, '{}', '$redaction', null, null, '\x03'),
       (1, '$redaction', null, 'm.room.redaction', '@alice:hs', null, 5, '{}', null, null, null, '\x04');
insert into archive.redactions (room_key, target_event_id, redaction_event_id, state)
values (1, '$redacted', '$redaction', 'applied'), (1, '$missing', '$redaction', 'pending');
insert into archive.quarantine (room_key, raw, raw_sha256, reason) values (1, '{"event_id":"$bad"}', '\x05', 'no type');
insert into archive.current_state (room_key, type, state_key, event_id)
values (1, 'm.room.create', '', '$create'), (1, 'm.room.member', '@alice:hs', '$alice');
insert into archive.gaps (room_key, reason, upper_token, lower_token, state)
values (1, 'the timeline was limited', 't2', 't1', 'open'), (1, 'the sync token was lost', 't3', null, 'open'),
       (1, 'the sync token was lost', 't4', null, 'closed');
