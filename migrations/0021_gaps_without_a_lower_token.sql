-- The first pass through a gap without a token below has a kind of its own: the room's newest gap is walked first, whichever
-- way that is.
alter table archive.walks drop constraint walks_kind_check;
alter table archive.walks add constraint walks_kind_check
    check (kind in ('history', 'operator', 'gap_since', 'gap_whole', 'gap_known', 'gap_recheck', 'rewalk'));
update archive.walks w set kind = 'gap_whole'
from archive.gaps g
where g.gap_id = w.gap_id and g.lower_token is null and w.kind = 'gap_known' and w.state <> 'done';
comment on column archive.walks.kind is 'history: a room''s whole past; operator: backscroll backfill; gap_since: a gap down to the old since; gap_whole: a gap without a token below, down to the room''s start; gap_known: the same as gap_since without `to`, until the archive is met; gap_recheck: that once more, later; rewalk: the whole past again, for what the server has learnt since.';
comment on column public.gaps.walk_kind is 'The pass that fills it now or filled it last: gap_since or gap_whole, gap_known, gap_recheck.';
comment on column archive.walks.lower_reached is 'Of a gap: whether the last event below it was passed. Of a room''s whole past: whether an event was met that had its place.';
