//! Finds objects of others with names that pending migrations need. This is checked before any migration is applied:
//! each is a separate transaction, so a later one could fail after earlier ones have changed the database.

use std::collections::BTreeSet;

use sqlx::PgConnection;

use super::{Error, rows};

/// An object that migrations create.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Made {
    kind: Kind,
    schema: String,
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Relation,
    Function,
    Type,
    Schema,
}

/// Finds existing objects that the `pending` migrations would create and the `applied` ones have not. Returns texts
/// such as `table public.events`.
pub(super) async fn taken<'m>(
    connection: &mut PgConnection,
    applied: impl Iterator<Item = &'m str>,
    pending: impl Iterator<Item = &'m str>,
) -> Result<Vec<String>, Error> {
    let ours: BTreeSet<Made> = applied.flat_map(made).collect();
    let wanted: BTreeSet<Made> = pending.flat_map(made).filter(|made| !ours.contains(made)).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let there = "
        select 'relation', n.nspname::text, c.relname::text,
               case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table'
                              when 'S' then 'sequence' when 'i' then 'index' when 'I' then 'index' else 'table' end
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname in ('archive', 'public', 'room_reader')
        union all
        select 'function', n.nspname::text, p.proname::text, 'function'
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname in ('archive', 'public', 'room_reader')
        union all
        select 'type', n.nspname::text, t.typname::text, 'type'
        from pg_type t join pg_namespace n on n.oid = t.typnamespace
        where n.nspname in ('archive', 'public', 'room_reader') and t.typrelid = 0 and t.typcategory <> 'A'
        union all
        select 'schema', '', nspname::text, 'schema' from pg_namespace";
    let there = rows(connection, there).await?;
    let is_wanted = |kind: &str, schema: &str, name: &str| {
        wanted.iter().any(|made| made.schema == schema && made.name == name && made.kind.clashes_with(kind))
    };
    let taken = there.iter().filter_map(|row| match row.as_slice() {
        [kind, schema, name, what] if is_wanted(kind, schema, name) => {
            Some(if schema.is_empty() { format!("{what} {name}") } else { format!("{what} {schema}.{name}") })
        }
        _ => None,
    });
    Ok(taken.collect())
}

impl Kind {
    /// A relation also has a type of the same name.
    fn clashes_with(self, there: &str) -> bool {
        match self {
            Self::Relation | Self::Type => ["relation", "type"].contains(&there),
            Self::Function => there == "function",
            Self::Schema => there == "schema",
        }
    }
}

/// The objects that a migration creates: all `create [or replace] [unique] KIND [if not exists] NAME` in its text.
/// Names without a schema are those of indexes, which are in the schema of their table.
fn made(migration: &str) -> Vec<Made> {
    let words: Vec<&str> = migration
        .lines()
        .map(|line| line.split_once("--").map_or(line, |(code, _)| code))
        .flat_map(|line| line.split(|c: char| c.is_whitespace() || "(;".contains(c)))
        .filter(|word| !word.is_empty())
        .collect();
    let begins = words.iter().enumerate().filter(|(_, word)| word.eq_ignore_ascii_case("create"));
    begins.filter_map(|(at, _)| one(&words[at + 1..])).collect()
}

fn one(words: &[&str]) -> Option<Made> {
    const FILLERS: [&str; 5] = ["or", "replace", "unique", "materialized", "unlogged"];
    let mut words =
        words.iter().map(|word| word.to_ascii_lowercase()).skip_while(|word| FILLERS.contains(&&**word));
    let kind = match &*words.next()? {
        "table" | "view" | "index" | "sequence" => Kind::Relation,
        "function" | "procedure" => Kind::Function,
        "type" | "domain" => Kind::Type,
        "schema" => Kind::Schema,
        _ => return None,
    };
    let name = words.next()?;
    if name == "if" || name == "concurrently" {
        // An object that may exist already does not conflict.
        return None;
    }
    let (schema, name) = match (kind, name.split_once('.')) {
        (Kind::Schema, _) => ("", &*name),
        (_, Some((schema, name))) => (schema, name),
        (_, None) => ("archive", &*name),
    };
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_plain.then(|| Made { kind, schema: schema.to_owned(), name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_migration_makes_is_read_from_it() {
        let migration = "-- create table archive.comment (\n\
             create schema if not exists archive;\ncreate schema room_reader;\n\
             create table archive.rooms (\n room_id text,\n created_at timestamptz);\n\
             create or replace view public.rooms as select 1;\n\
             create unique index rooms_id on archive.rooms (room_id);\n\
             CREATE FUNCTION public.replies(room_id text) returns int as $$ ... $$;\n\
             do $$ begin execute format('create view room_reader.%1$I with (x)'); end $$;";
        let made = made(migration);
        let found: Vec<_> =
            made.iter().map(|made| format!("{:?} {}.{}", made.kind, made.schema, made.name)).collect();
        assert_eq!(
            found,
            [
                "Schema .room_reader",
                "Relation archive.rooms",
                "Relation public.rooms",
                "Relation archive.rooms_id",
                "Function public.replies",
            ]
        );
    }

    #[test]
    fn every_view_of_ours_is_found() {
        let all: Vec<_> = crate::archive::database::migrate::migrator()
            .iter()
            .flat_map(|migration| made(migration.sql.as_str()))
            .collect();
        for view in [
            "rooms",
            "events",
            "messages",
            "reactions",
            "members",
            "current_state",
            "state_history",
            "gaps",
            "backfill",
        ] {
            assert!(all.iter().any(|made| made.schema == "public" && made.name == view), "{view}");
        }
    }
}
