-- How large is the archive on disk?
-- Everybody may read PostgreSQL's catalogue; nothing is to be put in.
select c.relname as "table", c.reltuples::bigint as rows, pg_size_pretty(pg_table_size(c.oid)) as "table size",
       pg_size_pretty(pg_indexes_size(c.oid)) as indexes, pg_size_pretty(pg_total_relation_size(c.oid)) as total
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'archive' and c.relkind in ('r', 'p')
order by pg_total_relation_size(c.oid) desc
limit 20;
