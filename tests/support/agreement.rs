//! Whether an archive says what the homeserver says. The events are rebuilt from their rows by none of Backscroll's
//! code, numbers kept as tokens.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    derived::assert_derived,
    homeserver::{Json, stable_json},
    postgres::rows,
    synapse::{Synapse, User},
};

/// An event as the archive gives it back.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) event_id: String,
    pub(crate) position: Option<i64>,
    /// The event's own JSON: its exact bytes where the archive keeps them, else made of the columns.
    pub(crate) bytes: Vec<u8>,
    /// What any two copies of the event must agree on, see [`stable_json`].
    pub(crate) stable: Option<String>,
    pub(crate) redacts: Option<String>,
    pub(crate) redacted_by: Option<String>,
    pub(crate) replaces_state: Option<String>,
}

/// The room's events in the archive at `url`, oldest first; those without a place in the timeline come last.
pub(crate) async fn stored(url: &str, room_id: &str, version: &str) -> Vec<Stored> {
    let query = format!(
        "select event_id, position, redacts, redacted_by, replaces_state, type, sender, state_key,
                origin_server_ts, content::text, encode(raw, 'hex')
         from archive.events where room_id = (select room_id from archive.rooms where room_id = '{room_id}')
         order by position nulls last, event_id"
    );
    let rows = rows(url, &query).await;
    rows.into_iter()
        .map(|row| {
            let mut columns = row.into_iter().map(|column| (column != "∅").then_some(column));
            let mut next = || columns.next().unwrap();
            let (event_id, position) = (next().unwrap(), next().map(|position| position.parse().unwrap()));
            let [redacts, redacted_by, replaces_state] = [(); 3].map(|()| next());
            let fields = [(); 5].map(|()| next());
            let bytes = next().map_or_else(|| rebuilt(fields), |raw| unhex(&raw));
            let stable = stable_json(version, &bytes);
            Stored { event_id, position, bytes, stable, redacts, redacted_by, replaces_state }
        })
        .collect()
}

/// The event that the columns describe: type, sender, state key, time and content.
fn rebuilt([kind, sender, state_key, ts, content]: [Option<String>; 5]) -> Vec<u8> {
    let text = |text: String| Json::of(&text).write();
    let members = [
        ("type", kind.map(text)),
        ("sender", sender.map(text)),
        ("state_key", state_key.map(text)),
        ("origin_server_ts", ts),
        ("content", content),
    ];
    let members = members.into_iter().filter_map(|(name, value)| Some(format!("\"{name}\":{}", value?)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(",")).into_bytes()
}

fn unhex(digits: &str) -> Vec<u8> {
    let pair = |start| u8::from_str_radix(&digits[start..start + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(pair).collect()
}

/// What holds of every archive that is done with its work.
pub(crate) async fn assert_settled(url: &str) {
    for (what, query) in [
        (
            "walks",
            "select room_id, kind, w.state, last_error from archive.walks w
             join archive.rooms using (room_id)
             where w.state <> 'done' and kind <> 'rewalk'",
        ),
        ("gaps", "select room_id, reason from gaps where state <> 'closed'"),
        ("quarantine", "select reason from archive.quarantine"),
        (
            "miscounted rooms",
            "select room_id, event_count, count(event_id)
             from archive.rooms left join archive.events using (room_id)
             group by room_id, event_count having event_count <> count(event_id)",
        ),
        (
            "state without its event",
            "select room_id, type, state_key from archive.current_state s
             where not exists (select from archive.events e
                               where e.room_id = s.room_id and e.event_id = s.event_id
                                 and e.type = s.type and e.state_key = s.state_key)",
        ),
        (
            "redactions not applied",
            "select r.* from archive.redactions r
             join archive.events e on e.room_id = r.room_id and e.event_id = target_event_id
             where r.state = 'pending'",
        ),
    ] {
        let left = rows(url, query).await;
        assert!(left.is_empty(), "{what}: {left:?}");
    }
    Box::pin(assert_derived(url)).await;
}

/// The current state in the archive: type, state key, event id. In the escaped form that text columns have.
pub(crate) async fn current_state(url: &str, room_id: &str) -> Vec<[String; 3]> {
    let query = format!("select type, state_key, event_id from current_state where room_id = '{room_id}'");
    let mut state: Vec<[String; 3]> =
        rows(url, &query).await.into_iter().map(|row| row.try_into().unwrap()).collect();
    state.sort();
    state
}

/// How an archived room differs, in what is there, from what the server shows now, but for what is `gone` from the server
/// and was archived before. For a daemon that is at work: what is late only differs for a while.
pub(crate) async fn difference(
    url: &str,
    synapse: &Synapse,
    user: &User,
    room_id: &str,
    gone: &[String],
) -> Option<String> {
    let walk = synapse.walk(user, room_id).await.into_iter().map(|event| event.event_id);
    let expected: BTreeSet<String> = walk.chain(gone.iter().cloned()).collect();
    let archived =
        format!("select event_id from events where position is not null and room_id = '{room_id}'");
    let archived: BTreeSet<String> = rows(url, &archived).await.into_iter().flatten().collect();
    if archived != expected {
        return Some(format!("events {:?}", archived.symmetric_difference(&expected).collect::<Vec<_>>()));
    }
    let history = format!("select history_state, history_reason from rooms where room_id = '{room_id}'");
    let history = rows(url, &history).await;
    if history[0][0] != "complete" {
        return Some(format!("history is {history:?}"));
    }
    let archived: BTreeMap<_, _> =
        current_state(url, room_id).await.into_iter().map(|[kind, key, id]| ([kind, key], id)).collect();
    let state: BTreeMap<_, _> = synapse
        .state(user, room_id)
        .await
        .iter()
        .map(|raw| Json::parse(raw.get()).unwrap())
        .map(|event| (["type", "state_key"].map(|name| column(&event, name)), column(&event, "event_id")))
        .collect();
    let slot = state.keys().chain(archived.keys()).find(|slot| archived.get(*slot) != state.get(*slot))?;
    Some(format!("{slot:?} is {:?} and not {:?}", archived.get(slot), state.get(slot)))
}

/// What [`assert_agrees`] compared.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Compared {
    pub(crate) rooms: usize,
    pub(crate) events: usize,
    pub(crate) state: usize,
    /// Events that only their raw bytes could give back.
    pub(crate) raw: usize,
}

impl std::ops::AddAssign for Compared {
    fn add_assign(&mut self, other: Self) {
        self.rooms += other.rooms;
        self.events += other.events;
        self.state += other.state;
        self.raw += other.raw;
    }
}

/// Holds a room's rows against a walk of our own and against `/state`, to the last event, in order.
pub(crate) async fn assert_agrees(url: &str, synapse: &Synapse, user: &User, room_id: &str) -> Compared {
    let state = synapse.state(user, room_id).await;
    let state: Vec<Json> = state.iter().map(|raw| Json::parse(raw.get()).unwrap()).collect();
    let version = version(&state);
    let mut served = synapse.walk(user, room_id).await;
    served.reverse();
    let stored = stored(url, room_id, &version).await;

    let (placed, unplaced): (Vec<_>, Vec<_>) = stored.iter().partition(|event| event.position.is_some());
    let ids: Vec<&str> = served.iter().map(|event| event.event_id.as_str()).collect();
    assert_eq!(
        placed.iter().map(|event| event.event_id.as_str()).collect::<Vec<_>>(),
        ids,
        "{room_id} {version}"
    );
    let events: Vec<Json> = served.iter().map(|event| Json::parse(event.raw.get()).unwrap()).collect();
    let pruned = edits_of_redacted(&events);
    for (stored, served) in placed.iter().zip(&served) {
        let context = || format!("{room_id} {version} {}", served.raw.get());
        if pruned.contains(&served.event_id) {
            assert!(stored.redacted_by.is_some(), "{}", context());
            assert!(!String::from_utf8_lossy(&stored.bytes).contains("body"), "{}", context());
            continue;
        }
        let event = Json::parse(served.raw.get()).unwrap();
        assert_eq!(stored.stable, stable_json(&version, served.raw.get().as_bytes()), "{}", context());
        assert!(stored.stable.is_some(), "{}", context());
        let because = text(&event, &["unsigned", "redacted_because", "event_id"]);
        assert_eq!(
            stored.redacted_by,
            text(&event, &["unsigned", "redacted_by"]).or(because),
            "{}",
            context()
        );
        assert_eq!(stored.replaces_state, text(&event, &["unsigned", "replaces_state"]), "{}", context());
        if let Some(target) = text(&event, &["redacts"]).filter(|_| served.kind == "m.room.redaction") {
            assert_eq!(stored.redacts, Some(target), "{}", context());
        }
    }

    // Synapse reports aliases in answer to `/state`, and nowhere else: no archive can follow them.
    let reported = |slot: &[String; 3]| slot[0] != "m.room.aliases";
    let in_force: Vec<[String; 3]> = {
        let slot = |event: &Json| ["type", "state_key", "event_id"].map(|name| column(event, name));
        let mut slots: Vec<_> = state.iter().map(slot).filter(reported).collect();
        slots.sort();
        slots
    };
    let archived: Vec<_> = current_state(url, room_id).await.into_iter().filter(reported).collect();
    let differing: Vec<_> = archived
        .iter()
        .map(|slot| ("archive", slot, &in_force))
        .chain(in_force.iter().map(|slot| ("server", slot, &archived)))
        .filter(|(_, slot, others)| !others.contains(slot))
        .map(|(whose, slot, _)| (whose, slot))
        .collect();
    assert!(differing.is_empty(), "{room_id} {version}: only one of the two states has {differing:?}");
    assert_eq!(archived.len(), in_force.len(), "{room_id} {version}");
    // What is in no page is known from the state alone; aliases that were in force once are in no page either.
    let stray: Vec<_> = unplaced
        .iter()
        .filter(|event| !event.stable.as_ref().is_some_and(|it| it.contains(r#""type":"m.room.aliases""#)))
        .map(|event| &event.event_id)
        .filter(|event_id| !in_force.iter().any(|slot| slot[2] == **event_id))
        .collect();
    assert!(stray.is_empty(), "{room_id} {version}: neither in a page nor in force: {stray:?}");

    let query = format!(
        "select count(raw) from archive.events join archive.rooms r using (room_id)
                         where r.room_id = '{room_id}'"
    );
    let raw = rows(url, &query).await[0][0].parse().unwrap();
    Compared { rooms: 1, events: served.len(), state: in_force.len(), raw }
}

/// The events that the server shows in full and the archive does not: the edits of redacted messages by their senders, and
/// edits of those.
fn edits_of_redacted(events: &[Json]) -> BTreeSet<String> {
    let id = |event: &Json| text(event, &["event_id"]).unwrap();
    let is_redacted = |event: &&Json| event.at(&["unsigned", "redacted_because"]).is_some();
    let senders: BTreeMap<_, _> = events.iter().map(|event| (id(event), text(event, &["sender"]))).collect();
    let mut redacted: BTreeSet<String> = events.iter().filter(is_redacted).map(id).collect();
    let mut pruned = BTreeSet::new();
    loop {
        let edits = events.iter().filter(|event| {
            let relation = |name| text(event, &["content", "m.relates_to", name]);
            relation("rel_type").as_deref() == Some("m.replace")
                && event.get("state_key").is_none()
                && relation("event_id").is_some_and(|original| {
                    redacted.contains(&original) && senders.get(&original) == Some(&text(event, &["sender"]))
                })
        });
        let more: Vec<_> = edits.map(id).filter(|event_id| !redacted.contains(event_id)).collect();
        if more.is_empty() {
            return pruned;
        }
        redacted.extend(more.iter().cloned());
        pruned.extend(more);
    }
}

/// The room version, from the create event of a room's state.
fn version(state: &[Json]) -> String {
    let create =
        state.iter().find(|event| text(event, &["type"]).as_deref() == Some("m.room.create")).unwrap();
    text(create, &["content", "room_version"]).unwrap_or_else(|| "1".to_owned())
}

fn text(json: &Json, path: &[&str]) -> Option<String> {
    json.at(path).and_then(Json::text)
}

/// A string as the archive's text columns have it.
fn column(event: &Json, name: &str) -> String {
    text(event, &[name]).unwrap().replace('\u{F8FE}', "\u{F8FE}1").replace('\0', "\u{F8FE}0")
}
