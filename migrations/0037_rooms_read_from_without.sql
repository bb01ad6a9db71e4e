-- `backscroll backfill` also takes up rooms that the account is not in, where the homeserver shows them to everybody.
comment on table archive.rooms is 'The rooms that the account is or was in, and those that the operator had archived without being in them.';
comment on column archive.rooms.membership is 'The account''s own membership as the server last told it; leave also in a room that it never was in.';
