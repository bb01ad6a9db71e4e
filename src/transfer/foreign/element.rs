//! What "Export chat" of Element writes as JSON: an object with the room's name and the list `messages` of
//! its events, oldest first. Encrypted events are decrypted, and edited messages may have the content of
//! their edit. Nothing at the top says which room it is.

use std::path::Path;

use ruma::RoomId;
use serde_json::value::RawValue;

use super::{
    BadInput, Collector, ForeignRoom, Input, created_version, is_room_id,
    scanner::{Mark, Scanner},
};
use crate::matrix::json::{Json, Text};

/// The list of the events.
const MESSAGES: &str = "\"messages\"";

/// Reads and checks all of it.
pub(super) fn read(input: &mut Input, path: &Path, room_id: Option<&RoomId>) -> Result<(), BadInput> {
    let mut scanner = Scanner::open(path)?;
    let mut file = File {
        collector: Collector::new(path),
        room_id: room_id.map(|room_id| room_id.as_str().to_owned()),
        room_version: None,
    };
    let mut has_messages = false;
    if !scanner.takes(b'{')? {
        return Err(scanner.bad("here should be the object that Element's \"Export chat\" writes as JSON"));
    }
    while !scanner.takes(b'}')? {
        let name = scanner.value()?;
        if !name.get().starts_with('"') || !scanner.takes(b':')? {
            return Err(scanner.bad("here should be a member of the object"));
        }
        if name.get() != MESSAGES {
            scanner.value()?;
        } else if has_messages {
            return Err(scanner.bad("the list `messages` is there twice"));
        } else {
            has_messages = true;
            file.messages(&mut scanner)?;
        }
        if !scanner.takes(b',')? && scanner.next()? != Some(b'}') {
            return Err(scanner.bad("the object does not go on, and does not end"));
        }
    }
    if scanner.next()?.is_some() {
        return Err(scanner.bad("something follows the object"));
    }
    if !has_messages {
        return Err(
            scanner.bad("it has no list `messages`, so it is not what Element's \"Export chat\" writes")
        );
    }
    let File { collector, room_id, room_version } = file;
    if collector.portions.is_empty() {
        return Ok(());
    }
    let room_id = room_id.ok_or_else(|| BadInput::NoRoom(path.to_owned()))?;
    input.rooms.push(ForeignRoom { room_id, room_version, timeline: collector.portions, others: Vec::new() });
    Ok(())
}

struct File {
    collector: Collector,
    room_id: Option<String>,
    room_version: Option<String>,
}

impl File {
    fn messages(&mut self, scanner: &mut Scanner) -> Result<(), BadInput> {
        if !scanner.takes(b'[')? {
            return Err(scanner.bad("`messages` is no list"));
        }
        if scanner.takes(b']')? {
            return Ok(());
        }
        loop {
            scanner.next()?;
            let start = scanner.mark();
            let event = scanner.object()?;
            self.add(scanner, start, &event)?;
            if scanner.takes(b']')? {
                return Ok(());
            }
            if !scanner.takes(b',')? {
                return Err(scanner.bad("the list `messages` does not go on, and does not end"));
            }
        }
    }

    fn add(&mut self, scanner: &Scanner, start: Mark, event: &RawValue) -> Result<(), BadInput> {
        let members = Json::parse(event.get());
        let named = members.get("room_id").and_then(Json::as_text).and_then(Text::as_str);
        match (named, &self.room_id) {
            (Some(named), Some(room_id)) if named != room_id => {
                let problem = format!("the event belongs to another room than {room_id}");
                return Err(scanner.bad_at(start, problem));
            }
            (Some(named), None) if !is_room_id(named) => {
                return Err(scanner.bad_at(start, "the event's room_id is no room id"));
            }
            (Some(named), None) => self.room_id = Some(named.to_owned()),
            _ => {}
        }
        if self.room_version.is_none() {
            self.room_version = created_version(event);
        }
        self.collector.add(start, event);
        Ok(())
    }
}
