//! No query joins rooms: on a distributed database (deploy/citus.sql), the rows of two rooms may be on two
//! servers.
//!
//! The plans say it: all tables of rooms in a query have the same `room_id`, by conditions that equate it
//! with that of another table or with the same parameter. What PostgreSQL does not plan before it runs, the
//! bodies of functions in PL/pgSQL, is held to it by its text.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

use super::OF_THE_WHOLE;
use crate::support::postgres::{TestDatabase, on_citus};

/// What a distributed database cannot answer as it stands, with the reason. deploy/citus.sql says so, too, and changes it.
const ACROSS_ROOMS: &[(&str, &str)] =
    &[("public.conversations", "it follows upgrades from room to room, which takes a recursive query")];

const JOINING: &[&str] =
    &["Index Cond", "Recheck Cond", "Hash Cond", "Merge Cond", "Join Filter", "Filter", "TID Cond"];

/// Which terms are equal, such as `e.room_id` and `$1`.
#[derive(Default)]
struct Equal(BTreeMap<String, String>);

impl Equal {
    fn representative(&self, term: &str) -> String {
        let mut term = term;
        while let Some(next) = self.0.get(term) {
            term = next;
        }
        term.to_owned()
    }

    fn put(&mut self, one: &str, other: &str) {
        let (one, other) = (self.representative(one), self.representative(other));
        if one != other {
            self.0.insert(one, other);
        }
    }
}

/// The condition without the parentheses around all of it.
fn bare(mut condition: &str) -> &str {
    while let Some(inner) = condition.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        let mut depth = 0i32;
        let closes_early = inner.chars().any(|character| {
            depth += i32::from(character == '(') - i32::from(character == ')');
            depth < 0
        });
        if closes_early {
            break;
        }
        condition = inner;
    }
    condition
}

/// The parts of a conjunction.
fn conjuncts(condition: &str) -> Vec<&str> {
    let condition = bare(condition);
    let (mut depth, mut start, mut parts) = (0i32, 0, Vec::new());
    for (index, character) in condition.char_indices() {
        depth += i32::from(character == '(') - i32::from(character == ')');
        if depth == 0 && condition[index..].starts_with(" AND ") {
            parts.push(&condition[start..index]);
            start = index + " AND ".len();
        }
    }
    parts.push(&condition[start..]);
    if parts.len() == 1 { parts } else { parts.into_iter().flat_map(conjuncts).collect() }
}

fn term(side: &str) -> String {
    bare(bare(side.trim()).trim_end_matches("::text")).replace('"', "")
}

fn read_conditions(node: &Value, equal: &mut Equal) {
    for name in JOINING {
        let Some(condition) = node[*name].as_str() else { continue };
        for part in conjuncts(condition) {
            if let Some((left, right)) = bare(part).split_once(" = ") {
                equal.put(&term(left), &term(right));
            }
        }
    }
    for child in children(node) {
        read_conditions(child, equal);
    }
}

fn children(node: &Value) -> &[Value] {
    node["Plans"].as_array().map_or(&[], Vec::as_slice)
}

/// A subquery that puts out the `room_id` of one table has that as its own.
fn read_names(node: &Value, equal: &mut Equal) {
    if let (Some("Subquery Scan"), Some(alias)) = (node["Node Type"].as_str(), node["Alias"].as_str()) {
        let outputs = children(node).first().and_then(|source| source["Output"].as_array());
        let outputs = outputs.into_iter().flatten().filter_map(Value::as_str).map(term);
        let room_ids: BTreeSet<String> = outputs
            .filter(|output| output.ends_with(".room_id"))
            .map(|output| equal.representative(&output))
            .collect();
        if room_ids.len() == 1 {
            for room_id in room_ids {
                equal.put(&format!("{alias}.room_id"), &room_id);
            }
        }
    }
    if is_append(node) {
        read_alternatives(node, equal);
    }
    for child in children(node) {
        read_names(child, equal);
    }
}

fn is_append(node: &Value) -> bool {
    matches!(node["Node Type"].as_str(), Some("Append" | "Merge Append"))
}

/// What reads a `union all` names its columns as those of the first alternative, and joins by them whichever it is. No set
/// of joined tables has two alternatives.
fn read_alternatives(node: &Value, equal: &mut Equal) {
    let outputs = |node: &Value| -> Vec<String> {
        let outputs = node["Output"].as_array().into_iter().flatten();
        outputs.filter_map(Value::as_str).map(term).collect()
    };
    let mut alternatives = children(node).iter().map(outputs);
    let first = alternatives.next().unwrap_or_default();
    for other in alternatives {
        for (one, other) in first.iter().zip(&other) {
            if one.ends_with(".room_id") && other.ends_with(".room_id") {
                equal.put(one, other);
            }
        }
    }
}

/// Whether a part of a plan is a query of its own: what does not depend on the rest, a `with`, or what is
/// looked up in a hash table of rooms.
fn is_apart(parent: &Value, node: &Value) -> bool {
    let name = node["Subplan Name"].as_str().unwrap_or_default();
    let is_hash_of_rooms = || {
        let outputs = node["Output"].as_array().map_or(&[][..], Vec::as_slice);
        parent.to_string().contains(&format!("hashed {name}"))
            && outputs.iter().all(|output| output.as_str().is_some_and(|it| it.ends_with(".room_id")))
    };
    match node["Parent Relationship"].as_str() {
        Some("InitPlan") => true,
        Some("SubPlan") => is_hash_of_rooms(),
        _ => false,
    }
}

/// The tables of rooms that rows are joined of: of each alternative of a `union all` a set. What does not
/// depend on the rest of the query is a query of its own, in `others`.
fn joined(
    node: &Value,
    of_rooms: &BTreeSet<String>,
    others: &mut Vec<BTreeSet<String>>,
) -> Vec<BTreeSet<String>> {
    let own = node["Relation Name"]
        .as_str()
        .filter(|table| of_rooms.contains(*table) && node["Schema"] == "archive");
    let own = own.filter(|_| node["Node Type"] != "ModifyTable").and_then(|_| node["Alias"].as_str());
    let mut sets = vec![own.map(str::to_owned).into_iter().collect::<BTreeSet<String>>()];
    let is_append = is_append(node);
    let mut alternatives = Vec::new();
    for child in children(node) {
        let inner = joined(child, of_rooms, others);
        if is_apart(node, child) {
            others.extend(inner);
        } else if is_append {
            alternatives.extend(inner);
        } else {
            let both = |set: &BTreeSet<String>| {
                inner
                    .iter()
                    .map(|other| set.union(other).cloned().collect())
                    .collect::<Vec<BTreeSet<String>>>()
            };
            sets = sets.iter().flat_map(both).collect();
        }
    }
    if alternatives.is_empty() { sets } else { alternatives }
}

/// How a plan joins rooms; empty: it does not.
fn crossings(plan: &Value, of_rooms: &BTreeSet<String>) -> Vec<String> {
    let mut equal = Equal::default();
    read_conditions(plan, &mut equal);
    read_names(plan, &mut equal);
    let mut others = Vec::new();
    let sets = joined(plan, of_rooms, &mut others);
    let crossing = |set: &BTreeSet<String>| {
        let rooms: BTreeSet<String> =
            set.iter().map(|alias| equal.representative(&format!("{alias}.room_id"))).collect();
        (rooms.len() > 1).then(|| format!("{set:?} are of {rooms:?}"))
    };
    let recursive = plan.to_string().contains("Recursive Union").then(|| "it is recursive".to_owned());
    sets.iter().chain(&others).filter_map(crossing).chain(recursive).collect()
}

/// The prepared queries, with the number of their parameters.
fn prepared() -> Vec<(String, usize)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
    let files =
        fs::read_dir(directory).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    let query = |file: String| {
        let file: Value = serde_json::from_str(&file).unwrap();
        let parameters = file["describe"]["parameters"]["Left"].as_array().map_or(0, Vec::len);
        (file["query"].as_str().unwrap().to_owned(), parameters)
    };
    files.map(query).collect()
}

async fn of_rooms(database: &TestDatabase) -> BTreeSet<String> {
    let tables =
        "select relname from pg_class where relnamespace = 'archive'::regnamespace and relkind = 'r'";
    let tables = database.column(tables).await.into_iter();
    tables.filter(|table| !OF_THE_WHOLE.contains(&table.as_str())).collect()
}

/// Plans that no parameter's value has shaped.
async fn plan(database: &TestDatabase, query: &str, parameters: usize) -> Value {
    let values =
        if parameters == 0 { String::new() } else { format!("({})", vec!["null"; parameters].join(", ")) };
    let explained = database
        .column(&format!(
            "set plan_cache_mode = force_generic_plan; set enable_seqscan = off;
             prepare planned as {query};
             explain (verbose, format json) execute planned{values}"
        ))
        .await;
    let explained: Value = serde_json::from_str(&explained.concat()).unwrap();
    explained[0]["Plan"].clone()
}

fn reason(query: &str) -> Option<&'static str> {
    ACROSS_ROOMS.iter().find(|(part, _)| query.contains(part)).map(|(_, reason)| *reason)
}

#[tokio::test]
async fn no_query_joins_rooms() {
    // Plans with parameters, which Citus does not make before it knows the room. Only PostgreSQL's can be read here.
    if on_citus() {
        return;
    }
    let database = TestDatabase::new().await;
    let of_rooms = of_rooms(&database).await;
    let mut queries = prepared();
    assert!(queries.len() > 150, "{}", queries.len());
    let is_planned = |query: &str| {
        ["select", "with", "insert", "update", "delete"]
            .iter()
            .any(|verb| query.trim_start().starts_with(verb))
    };
    queries.retain(|(query, _)| is_planned(query));
    let views = "select format('select * from %I.%I', schemaname, viewname) from pg_views where schemaname = 'public'";
    queries.extend(database.column(views).await.into_iter().map(|query| (query, 0)));
    for function in ["state_at($1, $2::bigint)", "state_at($1, $2::timestamptz)"] {
        queries.push((format!("select * from public.{function}"), 2));
    }
    let mut found = Vec::new();
    for (query, parameters) in &queries {
        let crossings = crossings(&plan(&database, query, *parameters).await, &of_rooms);
        if !crossings.is_empty() && reason(query).is_none() {
            found.push(format!("{query}\n    {}", crossings.join("\n    ")));
        }
    }
    assert!(found.is_empty(), "{}:\n{}", found.len(), found.join("\n"));
    let text = include_str!("../../deploy/citus.sql");
    for (part, reason) in ACROSS_ROOMS {
        assert!(queries.iter().any(|(query, _)| query.contains(part)), "{part}: there is no such query");
        let view = part.trim_start_matches("public.");
        assert!(
            text.contains(&format!("{view}: {reason}")),
            "deploy/citus.sql does not say: {view}: {reason}"
        );
    }
}

/// The rule tells queries that join rooms from those that do not.
#[tokio::test]
async fn a_join_of_rooms_is_noticed() {
    // Plans with parameters, which Citus does not make before it knows the room. Only PostgreSQL's can be read here.
    if on_citus() {
        return;
    }
    let database = TestDatabase::new().await;
    let of_rooms = of_rooms(&database).await;
    for (query, joins) in [
        ("select 1 from archive.events e join archive.rooms r on r.room_id = e.room_id", false),
        ("select 1 from archive.events e join archive.rooms r using (room_id) where e.room_id = $1", false),
        ("select 1 from archive.events e, archive.rooms r where e.room_id = $1 and r.room_id = $1", false),
        ("select (select count(*) from archive.gaps), (select count(*) from archive.walks), $1::text", false),
        ("select 1 from archive.events e join archive.rooms r on r.room_id <> e.room_id and $1 = ''", true),
        ("select 1 from archive.events e join archive.rooms r on r.room_id = e.event_id and $1 = ''", true),
        (
            "select 1 from archive.rooms r where $1 = '' and exists
              (select from archive.events e where e.event_id = r.left_since)",
            true,
        ),
        (
            "update archive.rooms r set left_since = $1 from archive.gaps g where g.gap_id > r.event_count",
            true,
        ),
    ] {
        let crossings = crossings(&plan(&database, query, 1).await, &of_rooms);
        assert_eq!(!crossings.is_empty(), joins, "{query}: {crossings:?}");
    }
}

/// Every table of rooms that a function in PL/pgSQL names has its `room_id` equated with something.
#[tokio::test]
async fn no_function_joins_rooms() {
    let database = TestDatabase::new().await;
    let tables: Vec<String> = of_rooms(&database).await.into_iter().collect();
    let functions = "
        select p.oid::regprocedure::text, p.prosrc
        from pg_proc p join pg_language l on l.oid = p.prolang
        where p.pronamespace in ('archive'::regnamespace, 'public'::regnamespace) and l.lanname = 'plpgsql'";
    let functions = database.rows(functions).await;
    assert!(functions.len() > 10);
    let mut found = Vec::new();
    for row in functions {
        let (function, source) = (&row[0], row[1].as_str());
        for alias in aliases(source, &tables) {
            let is_bound =
                ["=", "in ("].iter().any(|test| source.contains(&format!("{alias}.room_id {test}")))
                    || source.contains(&format!("= {alias}.room_id"));
            if !is_bound && !FUNCTIONS_OF_ALL_ROOMS.contains(&&*format!("{function} {alias}")) {
                found.push(format!("{function} {alias}"));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Functions that read a table of rooms without a room, and the table's alias. Each reads it alone.
const FUNCTIONS_OF_ALL_ROOMS: &[&str] = &[];

/// The names under which a function reads the tables.
fn aliases(source: &str, tables: &[String]) -> BTreeSet<String> {
    let mut aliases = BTreeSet::new();
    for (start, _) in source.match_indices("archive.") {
        let before = source[..start].trim_end();
        if !["from", "join", "using", "update"].iter().any(|word| before.ends_with(word)) {
            continue;
        }
        let mut words = source[start + "archive.".len()..].split_whitespace();
        let table = words.next().unwrap_or_default();
        if tables.iter().any(|known| known == table) {
            let alias = words.find(|word| *word != "as").unwrap_or_default();
            aliases.insert(alias.trim_end_matches([',', ')', ';']).to_owned());
        }
    }
    aliases
}
