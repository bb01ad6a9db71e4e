-- A walk that has stalled is tried again by the running daemon, at growing intervals; not_before says when.
alter table archive.walks add column stalls int not null default 0;
comment on column archive.walks.stalls is 'How often in a row the walk has stalled without finding anything new: the next try is put off twice as long after each.';
comment on column archive.walks.state is 'open; stalled: could not go on, see last_error, and is tried again at not_before; done.';

-- What a running daemon knows of the homeserver, for `backscroll status`.
alter table archive.accounts add column homeserver_error text;
alter table archive.accounts add column homeserver_failing_since timestamptz;
comment on column archive.accounts.homeserver_error is 'Why the last requests for news brought none, without content; null: the last one was answered.';
comment on column archive.accounts.homeserver_failing_since is 'Since when that is so.';
