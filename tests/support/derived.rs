//! What the writer keeps for readers beside the events, compared with what the events say.

use super::postgres::rows;

/// In one transaction, which is rolled back: everything is worked out anew, and each row that comes out otherwise is
/// returned.
const DIFFERENCES: &str = r"
begin;
create temp table kept_members on commit drop as select * from archive.members;
delete from archive.members;
do $$
declare room record;
begin
    for room in select room_id, array_agg(state_key) as users from archive.current_state
                where type = 'm.room.member' group by room_id loop
        perform archive.refresh_members(room.room_id, room.users);
    end loop;
end $$;

create temp table kept_relations on commit drop as
    select room_id, event_id, edited_by, edited_at, edit_count, edited_content, thread_root from archive.events;
update archive.events set edited_by = null, edited_at = null, edit_count = null, edited_content = null where edited_by is not null;
update archive.events set thread_root = relates_to where rel_type = 'm.thread';
do $$
declare room record;
begin
    for room in select room_id, coalesce(array_agg(distinct relates_to) filter (where rel_type = 'm.replace'), '{}') as messages,
                       coalesce(array_agg(event_id) filter (where rel_type = 'm.thread'), '{}') as replies
                from archive.events group by room_id loop
        perform archive.settle_relations(room.room_id, '{}', room.messages, room.replies, '{}');
    end loop;
end $$;

-- What settle_relations() has changed is forgotten by the search until it is filled again.
do $$
declare next record;
begin
    loop
        select * into next from archive.next_search_ranges(true);
        exit when next.room_id is null;
        perform archive.fill_search(next.room_id, next.ranges, 4000);
    end loop;
end
$$;

with searched as materialized (
    select e.room_id, e.position, w.words
    from archive.events e
    left join archive.decrypted_events d on d.room_id = e.room_id and d.event_id = e.event_id
    left join archive.decrypted_events x on x.room_id = e.room_id and x.event_id = e.edited_by and x.type = d.type
    cross join lateral archive.search_words(archive.searched_text(
        coalesce(d.type, e.type), coalesce(d.content, e.content),
        coalesce(x.content -> 'm.new_content', e.edited_content), e.in_reply_to, true)) as w (words)
    where e.position is not null and w.words <> ' '
      and archive.is_searched(coalesce(d.type, e.type), e.state_key, e.rel_type, e.relates_to, e.redacted_by,
                              coalesce(d.content, e.content))
), in_blocks as materialized (
    select b.room_id, b.first_position + o.value as position, b.tokens, o.number
    from archive.search_blocks b cross join unnest(b.message_offsets) with ordinality o (value, number)
), counted as (
    select e.room_id, coalesce((e.sent_at at time zone 'UTC')::date, '-infinity') as day, e.sender,
           count(*) filter (where kind = 'message') as messages, count(*) filter (where kind = 'edit') as edits,
           count(*) filter (where kind = 'reaction') as reactions
    from archive.events e
    cross join lateral archive.activity_kind(
        e.type, e.state_key, e.relates_to, e.rel_type, e.redacted_by, e.content, e.hidden_type) as kind
    where kind is not null group by 1, 2, 3
), kept as (
    select room_id, day, sender, messages, edits, reactions from archive.activity
    where (messages, edits, reactions) <> (0, 0, 0)
)
select 'a member as kept', m::text from (table kept_members except table archive.members) m
union all select 'a member', m::text from (table archive.members except table kept_members) m
union all
select 'an edit or a thread', concat_ws(' ', k.event_id, k.edited_by, e.edited_by, k.edit_count, e.edit_count, k.thread_root, e.thread_root)
from kept_relations k join archive.events e using (room_id, event_id)
where (k.edited_by, k.edited_at, k.edit_count, k.edited_content, k.thread_root)
      is distinct from (e.edited_by, e.edited_at, e.edit_count, e.edited_content, e.thread_root)
union all select 'activity as kept', k::text from (table kept except table counted) k
union all select 'activity', c::text from (table counted except table kept) c
union all select 'the number of messages', concat_ws(' ', r.room_id, r.message_count) from archive.rooms r
where r.message_count <> (select coalesce(sum(k.messages), 0) from archive.activity k where k.room_id = r.room_id)
union all select 'an edit that waits for a message that is there', w::text from archive.waiting_edits w
where exists (select from archive.events e where e.room_id = w.room_id and e.event_id = w.message_id)
union all select 'an edit that waits for nothing', e.event_id from archive.events e
where e.rel_type = 'm.replace' and e.relates_to is not null and e.state_key is null and e.redacted_by is null
  and not exists (select from archive.events m where m.room_id = e.room_id and m.event_id = e.relates_to)
  and not exists (select from archive.waiting_edits w where w.room_id = e.room_id and w.edit_id = e.event_id)
union all select 'a message that is not in the search', s.position::text from searched s
where not exists (select from in_blocks b where b.room_id = s.room_id and b.position = s.position
                  and not exists (select from archive.search_tokens(s.words) k
                                  where not exists (select from unnest(b.tokens) t
                                                    where t > k.above and t <= k.up_to and (t & 127) = b.number)))
union all select 'a message that is in the search', b.position::text from in_blocks b
where not exists (select from searched s where s.room_id = b.room_id and s.position = b.position);
rollback;
";

/// Edits, threads, activity, members and the search agree with the events, and `verify` finds nothing in the tables.
pub(crate) async fn assert_derived(url: &str) {
    let found = rows(url, "select kind, event_id, detail from archive.inconsistencies(null)").await;
    assert!(found.is_empty(), "{found:?}");
    let differences = rows(url, DIFFERENCES).await;
    assert!(differences.is_empty(), "{differences:?}");
}
