//! Damages of an archive, each of which `verify` names.

use super::{archived, good, verdict, verify};
use crate::support::{postgres::TestDatabase, synapse::Synapse};

/// A damage: what was done, the statement, what is found in the archive by itself, and what with the homeserver. Each
/// finding is its kind and a query for its event.
struct Damage {
    sql: &'static str,
    /// Found also with `--offline`.
    offline: Option<(&'static str, &'static str)>,
    /// Found with the homeserver.
    online: Option<(&'static str, &'static str)>,
}

/// Messages, by their number among those of a word.
const MESSAGES: &str = "create view picked as
    select event_id, position, row_number() over (order by position) as number from archive.events
    where type = 'm.room.message' and rel_type is null and redacted_by is null";
const TENTH: &str = "select event_id from picked where number = 10";
const REDACTED: &str = "select event_id from archive.events where redacted_by is not null";
const TOPIC: &str =
    "select event_id from archive.events where type = 'm.room.topic' order by position desc limit 1";
const EDITED: &str = "select event_id from archive.events where edited_by is not null";
const REPLY: &str = "select event_id from archive.events where rel_type = 'm.thread'";

const DAMAGES: [Damage; 22] = [
    // A row deleted.
    Damage {
        sql: "delete from archive.events where event_id = (select event_id from picked where number = 10)",
        offline: Some(("event count differs", "")),
        online: Some(("event missing", "select event_id from saved.events where event_id not in (select event_id from archive.events)")),
    },
    // A byte of content altered.
    Damage {
        sql: "update archive.events set content = jsonb_set(content, '{body}', '\"altered\"')
              where event_id = (select event_id from picked where number = 10)",
        offline: Some(("hash does not fit the event", TENTH)),
        online: None,
    },
    Damage {
        sql: "update archive.events set sender = '@mallory:hs' where event_id = (select event_id from picked where number = 10)",
        offline: Some(("hash does not fit the event", TENTH)),
        online: None,
    },
    Damage {
        sql: "update archive.events set origin_server_ts = origin_server_ts + 1
              where event_id = (select event_id from picked where number = 10)",
        offline: Some(("hash does not fit the event", TENTH)),
        online: None,
    },
    // The hash too.
    Damage {
        sql: "update archive.events set stable_sha256 = sha256('x') where event_id = (select event_id from picked where number = 10)",
        offline: Some(("hash does not fit the event", TENTH)),
        online: Some(("content differs", TENTH)),
    },
    // Two positions swapped, side by side and afar.
    Damage {
        sql: "update archive.events e set position = p.place
              from (select event_id, coalesce(lead(position) over w + 1, lag(position) over w) as place
                    from picked where number in (10, 11) window w as (order by number)) p
              where p.event_id = e.event_id",
        offline: None,
        online: Some(("event in the wrong place", "select event_id from saved_picked where number = 10")),
    },
    Damage {
        sql: "update archive.events e set position = p.place
              from (select event_id, coalesce(lead(position) over w + 1, lag(position) over w) as place
                    from picked where number in (10, 40) window w as (order by number)) p
              where p.event_id = e.event_id",
        offline: None,
        online: Some(("event in the wrong place", "select event_id from saved_picked where number = 40")),
    },
    // A state pointer moved, dropped, and its event lost.
    Damage {
        sql: "update archive.current_state set event_id = (
                  select min(event_id) from archive.events where type = 'm.room.topic' and event_id not in (
                      select event_id from archive.current_state where type = 'm.room.topic'))
              where type = 'm.room.topic'",
        offline: Some(("state moved without record", "select event_id from archive.current_state where type = 'm.room.topic'")),
        online: Some(("state differs", "select event_id from archive.current_state where type = 'm.room.topic'")),
    },
    Damage {
        sql: "delete from archive.current_state where type = 'm.room.topic'",
        offline: Some(("state moved without record", TOPIC)),
        online: Some(("state differs", "")),
    },
    Damage {
        sql: "update archive.current_state set state_key = 'other' where type = 'm.room.topic'",
        offline: Some(("state without event", TOPIC)),
        online: Some(("state differs", TOPIC)),
    },
    // A redaction undone, and one that is not known any more.
    Damage {
        sql: "update archive.events set redacted_by = null, content = '{\"body\": \"back\", \"msgtype\": \"m.text\"}'
              where redacted_by is not null",
        offline: Some(("redaction not applied", "select event_id from saved.events where redacted_by is not null")),
        online: Some(("redaction not applied", "select event_id from saved.events where redacted_by is not null")),
    },
    Damage {
        sql: "update archive.events set content = '{\"body\": \"back\"}' where redacted_by is not null",
        offline: Some(("redacted content is still there", REDACTED)),
        online: None,
    },
    Damage {
        sql: "delete from archive.redactions",
        offline: Some(("redaction without record", REDACTED)),
        online: None,
    },
    // Another redaction is said to be the reason.
    Damage {
        sql: "update archive.events set redacted_by = (select event_id from picked where number = 10) where redacted_by is not null",
        offline: Some(("redaction without record", REDACTED)),
        online: None,
    },
    // An event forged, in the middle of the room.
    Damage {
        sql: "insert into archive.events (room_id, event_id, position, type, sender, origin_server_ts, content, stable_sha256)
              select room_id, '$forged', position + 1, type, sender, origin_server_ts, content, stable_sha256
              from archive.events where event_id = (select event_id from picked where number = 10)",
        offline: Some(("hash does not fit the event", "select '$forged'")),
        online: Some(("event is unknown to the homeserver", "select '$forged'")),
    },
    // A gap that is not known any more.
    Damage {
        sql: "delete from archive.gaps",
        offline: Some(("gap without record", "")),
        online: None,
    },
    // What follows from the events.
    Damage {
        sql: "update archive.members set display_name = 'Mallory' where membership = 'join'",
        offline: Some(("member differs", "")),
        online: None,
    },
    Damage {
        sql: "update archive.rooms set room_version = '9'",
        offline: Some(("room version differs", "select event_id from archive.events where type = 'm.room.create'")),
        online: None,
    },
    Damage { sql: "delete from archive.rooms", offline: Some(("event count differs", "")), online: None },
    Damage {
        sql: "update archive.rooms set message_count = message_count + 1",
        offline: Some(("message count differs", "")),
        online: None,
    },
    Damage {
        sql: "update archive.events set edited_content = '{\"body\": \"never said\"}' where edited_by is not null",
        offline: Some(("edit differs", EDITED)),
        online: None,
    },
    Damage {
        sql: "update archive.events set thread_root = null where rel_type = 'm.thread'",
        offline: Some(("thread differs", REPLY)),
        online: None,
    },
];

const TABLES: [&str; 9] = [
    "events",
    "current_state",
    "state_changes",
    "redactions",
    "gaps",
    "walks",
    "activity",
    "rooms",
    "members",
];

/// Keeps the tables as they are, so that each damage can be undone.
async fn save(database: &TestDatabase) {
    database.run(MESSAGES).await;
    database.run("create schema saved").await;
    for table in TABLES {
        database.run(&format!("create table saved.{table} as table archive.{table}")).await;
    }
    database.run("create table saved_picked as table picked").await;
}

async fn restore(database: &TestDatabase) {
    for table in TABLES {
        let columns = format!(
            "select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
             where attrelid = 'archive.{table}'::regclass and attnum > 0 and not attisdropped and attgenerated = ''"
        );
        let columns = database.value(&columns).await;
        database.run(&format!("truncate archive.{table}")).await;
        let insert =
            format!("insert into archive.{table} ({columns}) overriding system value select {columns}");
        database.run(&format!("{insert} from saved.{table}")).await;
    }
}

#[tokio::test]
async fn each_damage_is_named() {
    let synapse = Synapse::start().await;
    let (_alice, _room, database, backscroll) = archived(&synapse, "11").await;
    assert_ne!(database.value("select count(*) from archive.gaps").await, "0", "the room has a gap");
    save(&database).await;
    assert_eq!(verdict(&backscroll, &[]).await, good("proved"));
    for damage in &DAMAGES {
        database.run(damage.sql).await;
        for (arguments, found) in [(&["--offline"][..], damage.offline), (&[][..], damage.online)] {
            let (code, answer, outcome) = verify(&backscroll, arguments).await;
            let Some((kind, event)) = found else { continue };
            assert_eq!(code, Some(1), "{}\n{answer}\n{}", damage.sql, outcome.stderr);
            let event_id = if event.is_empty() { None } else { Some(database.value(event).await) };
            let findings = answer["rooms"][0]["findings"].as_array().cloned().unwrap_or_default();
            let is_named = findings.iter().any(|finding| {
                finding["kind"] == kind
                    && (event_id.is_none() || finding["event_id"].as_str() == event_id.as_deref())
            });
            assert!(is_named, "{}\n{kind} {event_id:?}\n{answer:#}", damage.sql);
        }
        restore(&database).await;
    }
    assert_eq!(verdict(&backscroll, &[]).await, good("proved"), "all is as it was");
}

/// `--repair` makes the current state the homeserver's, whatever is wrong with it.
#[tokio::test]
async fn a_wrong_state_is_repaired() {
    let synapse = Synapse::start().await;
    let (_alice, _room, database, backscroll) = archived(&synapse, "11").await;
    let state = "select string_agg(concat_ws(' ', type, state_key, event_id), ', ' order by type, state_key) from current_state";
    let intact = database.value(state).await;
    let damages = DAMAGES.iter().filter(|damage| damage.sql.contains("archive.current_state"));
    for Damage { sql, .. } in damages {
        database.run(sql).await;
        assert_ne!(database.value(state).await, intact, "{sql}");
        assert_eq!(verdict(&backscroll, &["--repair"]).await, good("proved"), "{sql}");
        assert_eq!(database.value(state).await, intact, "{sql}");
    }
}
