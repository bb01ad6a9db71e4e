//! Evidence: one event with all that a third party needs to check it, in one JSON file.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{KeyResponse, ServerKeys, SignedEvent, event::rules};
use crate::text::day;

/// The format of the file. Another text in `how_to_check` needs another number.
const FORMAT: &str = "backscroll evidence 1";

const HOW_TO_CHECK: &str = "\
Run `backscroll evidence check FILE`, or check it by the Matrix specification (https://spec.matrix.org, \"Signing Events\", \
and the rules of the room version): 1. Each list in server_keys is signed by its server with a key in its verify_keys. \
Ask the server itself whether these are its keys, if it still exists. 2. From room version 3 on, the id of `event` and of \
each event in auth_chain is $ and its reference hash: SHA-256 of the canonical JSON of the redacted event without \
signatures. 3. hashes.sha256 is the content hash: SHA-256 of the canonical JSON of the event without hashes and \
signatures. It does not fit an event that was redacted. 4. The server of the sender signed the redacted event without \
signatures, with a key from server_keys that was valid at origin_server_ts. 5. auth_events lead from `event` over \
auth_chain to the m.room.create event. In room version 12 and later that event is not named, because the room's id is ! and \
its hash.";

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    how_to_check: String,
    room_id: String,
    room_version: String,
    event_id: String,
    /// As signed.
    event: Box<RawValue>,
    /// Each as signed.
    auth_chain: Vec<Box<RawValue>>,
    /// Each as its server signed it.
    server_keys: Vec<Box<RawValue>>,
}

/// The file is no evidence of a format that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotEvidence {
    /// Damaged, or another kind of file.
    #[error("it is not a file of `backscroll evidence`, at line {line} column {column}")]
    Unreadable {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// By another version.
    #[error("it is evidence of a format that this version of Backscroll does not know")]
    Format,
}

/// What a check found, in sentences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What is proved.
    pub proved: Vec<String>,
    /// What does not fit. Empty: the evidence is good.
    pub wrong: Vec<String>,
    /// What the file cannot prove.
    pub not_proved: Vec<String>,
}

/// Writes the file.
pub(crate) fn write(
    room_id: &str,
    room_version: &str,
    event: &SignedEvent,
    auth_chain: &[SignedEvent],
    server_keys: &[KeyResponse],
) -> String {
    let raw = |json: String| RawValue::from_string(json).expect("canonical JSON is JSON");
    let file = File {
        format: FORMAT.to_owned(),
        how_to_check: HOW_TO_CHECK.to_owned(),
        room_id: room_id.to_owned(),
        room_version: room_version.to_owned(),
        event_id: event.event_id.clone(),
        event: raw(event.canonical_json()),
        auth_chain: auth_chain.iter().map(|event| raw(event.canonical_json())).collect(),
        server_keys: server_keys.iter().map(|list| raw(list.signed_by_itself())).collect(),
    };
    serde_json::to_string_pretty(&file).expect("a struct of plain values") + "\n"
}

/// The ids that an event needs in its auth chain: those that it names, and from room version 12 on the create
/// event, whose hash is the room's id.
pub fn needed(room_id: &str, event: &SignedEvent) -> Vec<String> {
    let mut needed = event.auth_events.clone();
    if !event.rules.event_format.allow_room_create_in_auth_events && !is_create(event) {
        needed.extend(room_id.strip_prefix('!').map(|hash| format!("${hash}")));
    }
    needed
}

fn is_create(event: &SignedEvent) -> bool {
    event.text("type") == Some("m.room.create") && event.text("state_key") == Some("")
}

/// Checks a file. Needs nothing else.
///
/// # Errors
/// If it is no such file. What is wrong with its parts is in [`Findings::wrong`].
pub fn check(text: &str) -> Result<Findings, NotEvidence> {
    let file: File = serde_json::from_str(text)
        .map_err(|error| NotEvidence::Unreadable { line: error.line(), column: error.column() })?;
    if file.format != FORMAT {
        return Err(NotEvidence::Format);
    }
    let mut findings = Findings::default();
    if file.how_to_check != HOW_TO_CHECK {
        findings.wrong.push("The instructions in how_to_check are not those of Backscroll.".to_owned());
    }
    if rules(&file.room_version).is_none() {
        findings.wrong.push("The room version is unknown, so nothing can be checked.".to_owned());
        return Ok(findings);
    }
    let keys = findings.read_keys(&file);
    let Some(event) = findings.read_event(&file, &file.event, "The event") else { return Ok(findings) };
    if event.event_id != file.event_id {
        findings.wrong.push(format!("The event's id is {}, but event_id names another.", event.event_id));
    }
    let mut chain = BTreeMap::new();
    for (number, raw) in file.auth_chain.iter().enumerate() {
        let Some(event) = findings.read_event(&file, raw, &format!("auth_chain[{number}]")) else { continue };
        if let Some(twice) = chain.insert(event.event_id.clone(), event) {
            findings.wrong.push(format!("{} is in auth_chain twice.", twice.event_id));
        }
    }
    findings.event(&file, &event, &keys);
    findings.chain(&file, &event, &chain, &keys);
    findings.limits(&file);
    Ok(findings)
}

impl Findings {
    fn read_keys(&mut self, file: &File) -> ServerKeys {
        let mut keys = ServerKeys::default();
        for (number, raw) in file.server_keys.iter().enumerate() {
            match KeyResponse::read(raw.get()) {
                Ok(list) => keys.add(&list),
                Err(error) => self.wrong.push(format!("server_keys[{number}]: {error}.")),
            }
        }
        keys
    }

    fn read_event(&mut self, file: &File, raw: &RawValue, what: &str) -> Option<SignedEvent> {
        let event = SignedEvent::read(&file.room_id, &file.room_version, raw);
        event.inspect_err(|error| self.wrong.push(format!("{what}: {error}."))).ok()
    }

    fn event(&mut self, file: &File, event: &SignedEvent, keys: &ServerKeys) {
        let text = |member| event.text(member).unwrap_or_default();
        let sent = event.origin_server_ts().map_or_else(|| "an unknown day".to_owned(), day);
        let kind = match event.text("state_key") {
            Some(key) => format!("a state event of type {} for the key {key:?}", text("type")),
            None => format!("an event of type {}", text("type")),
        };
        let said = format!("{} sent {kind} in the room {}", text("sender"), file.room_id);
        match event.verify_signatures(keys) {
            Ok(verified) => {
                let by =
                    verified.signatures.iter().map(|(server, key)| format!("{server} with the key {key}"));
                let by = by.collect::<Vec<_>>().join(" and ");
                self.proved.push(format!("{said} (version {}), dated {sent}, UTC.", file.room_version));
                self.proved.push(format!("The event {} is signed by {by}.", event.event_id));
            }
            Err(error) => self.wrong.push(format!("The event: {error}.")),
        }
        if event.content_hash_fits() {
            self.proved.push("Its content hash fits: this is the whole content that was signed.".to_owned());
        } else if event.is_pruned() {
            self.proved.push(
                "It was redacted: what is left of it is as signed. The file does not hold what was removed."
                    .to_owned(),
            );
        } else {
            self.wrong.push("The event: its content hash does not fit its content.".to_owned());
        }
        self.unchecked(event, keys);
    }

    /// Whether the auth chain is whole and good, and leads to the create event.
    fn chain(
        &mut self,
        file: &File,
        event: &SignedEvent,
        chain: &BTreeMap<String, SignedEvent>,
        keys: &ServerKeys,
    ) {
        let before = self.wrong.len();
        let mut reached = BTreeSet::new();
        let mut left = needed(&file.room_id, event);
        while let Some(id) = left.pop() {
            if id == event.event_id || !reached.insert(id.clone()) {
                continue;
            }
            match chain.get(&id) {
                Some(event) => left.extend(needed(&file.room_id, event)),
                None => self.wrong.push(format!("{id} of the event's auth chain is missing.")),
            }
        }
        for ancestor in chain.values() {
            if !reached.contains(&ancestor.event_id) {
                self.wrong.push(format!("{} is not in the event's auth chain.", ancestor.event_id));
            }
            self.ancestor(ancestor, keys);
        }
        let roots: Vec<_> = chain.values().chain([event]).filter(|event| is_create(event)).collect();
        let [root] = roots.as_slice() else {
            self.wrong.push(format!("The chain leads to {} create events, not to one.", roots.len()));
            return;
        };
        if !root.prev_events.is_empty() || !root.auth_events.is_empty() {
            self.wrong.push("The create event names events before it.".to_owned());
        }
        match root.created_version() {
            Some(version) if version == file.room_version => {}
            Some(_) => self.wrong.push("The room's create event names another room version.".to_owned()),
            None => self
                .not_proved
                .push("The room's version: the create event, which says it, is here as redacted.".to_owned()),
        }
        if self.wrong.len() > before {
            return;
        }
        let count = chain.len();
        self.proved.push(format!(
            "{count} events lead from it to the room's create event {}. {} fit them.",
            root.event_id,
            if event.rules.event_format.require_event_id {
                "Their signatures"
            } else {
                "Their ids and signatures"
            }
        ));
        if root.rules.event_format.require_room_create_room_id {
            self.not_proved.push(format!(
                "That no other room has the id {}: in this room version its first server chose it.",
                file.room_id
            ));
        } else {
            self.proved.push("The room's id is the hash of its create event.".to_owned());
        }
        if event.rules.event_format.require_event_id {
            self.not_proved
                .push("That the links name these events: in this room version ids are no hashes.".to_owned());
        }
    }

    fn ancestor(&mut self, event: &SignedEvent, keys: &ServerKeys) {
        let id = &event.event_id;
        if !event.content_hash_fits() && !event.is_pruned() {
            self.wrong.push(format!("{id} of the auth chain: its content hash does not fit its content."));
        }
        match event.verify_signatures(keys) {
            Ok(_) => {}
            Err(error) if error.is_undecided() => {
                self.not_proved.push(format!("Who sent {id} of the auth chain: {error}."));
            }
            Err(error) => self.wrong.push(format!("{id} of the auth chain: {error}.")),
        }
        self.unchecked(event, keys);
    }

    /// Signatures that need not be there.
    fn unchecked(&mut self, event: &SignedEvent, keys: &ServerKeys) {
        for (server, key_id, fits) in event.other_signatures(keys) {
            let id = &event.event_id;
            match fits {
                Some(true) => {}
                Some(false) => {
                    self.wrong
                        .push(format!("{id}: the signature of {server} with {key_id} does not fit it."));
                }
                None => self
                    .not_proved
                    .push(format!("That {server} signed {id} with {key_id}: its key is not in the file.")),
            }
        }
    }

    fn limits(&mut self, file: &File) {
        let mut servers = BTreeSet::new();
        for raw in &file.server_keys {
            servers.extend(KeyResponse::read(raw.get()).map(|list| list.server_name));
        }
        for server in servers {
            self.not_proved.push(format!(
                "That the keys are those of {server}: they are signed with themselves only. Compare them with \
                 https://{server}/_matrix/key/v2/server or with what others have kept."
            ));
        }
        self.not_proved.push("When it was sent: the date is the word of the sender's server.".to_owned());
        self.not_proved.push(
            "Who sat at the keyboard: a server signs for all of its users. And that the room's servers accepted the \
             event: the rules of the room are not applied here."
                .to_owned(),
        );
    }
}
