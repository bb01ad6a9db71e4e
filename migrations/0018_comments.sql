-- What has become more exact since.

comment on column archive.gaps.upper_token is 'Token above the hole, from which the first walk begins that has a token below; the others begin at the account''s since. Null: the newest event.';
comment on table archive.anchors is 'The last events of the last /sync response that had any. A server that does not know them, though older ones, has lost what it told.';
comment on table archive.quarantine is 'What a server sent as an event and could not become a row of archive.events, byte for byte, until it is redacted or erased.';
