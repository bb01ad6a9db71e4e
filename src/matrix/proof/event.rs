//! An event as its server signed it, read from the federation format.

use std::collections::BTreeMap;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue,
    room_version_rules::{EventsReferenceFormatVersion, RoomVersionRules},
};
use serde_json::value::RawValue;

use super::hash::{content_hash, content_hash_fits, reference_hash, signed_text};

/// An event as its server signed it. Its id fits it, except in room versions 1 and 2, whose ids are no
/// hashes.
#[derive(Clone, Debug)]
pub struct SignedEvent {
    /// The id: computed from room version 3 on, part of the event before.
    pub event_id: String,
    /// The events that it follows. Only a create event has none.
    pub prev_events: Vec<String>,
    /// The state events that allow it. From room version 12 on, the create event is not among them.
    pub auth_events: Vec<String>,
    /// How far from the create event its server says that it is.
    pub depth: i64,
    pub(super) object: CanonicalJsonObject,
    pub(super) rules: &'static RoomVersionRules,
}

/// Why an event is not a [`SignedEvent`]. The texts contain ids, but no content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproved {
    /// No fault of the event: up to room version 5 nothing defines the bytes that are hashed, and events from
    /// then with such numbers are valid (P112).
    #[error(
        "it has no canonical JSON, so it cannot be checked: it is not an object, or it contains a number with \
         a fraction or of more than 53 bits, half a surrogate pair, or more than 127 levels"
    )]
    NotCanonical,
    /// This version of Backscroll does not know the rules.
    #[error("the room version is unknown, so it cannot be checked")]
    UnknownRoomVersion,
    /// The homeserver ignores the filter, as all but Synapse do. It gives no graph either.
    #[error("the homeserver does not serve the federation format, so it cannot be checked")]
    NoHashes,
    /// A member that every event of the federation format has.
    #[error("`{0}` is missing, or is not as the specification says")]
    Member(&'static str),
    /// It belongs to another room than the one that was asked for.
    #[error("it belongs to another room")]
    OtherRoom,
    /// Somebody changed the event, or gave it the id of another.
    #[error("its id is {served}, but its hash makes {computed}")]
    WrongId {
        /// The id with which it was served.
        served: String,
        /// The id that it has by the rules of the room version.
        computed: String,
    },
}

impl Unproved {
    /// Whether nothing can be said about the event: neither that it is right, nor that it is wrong.
    pub fn is_undecided(&self) -> bool {
        matches!(self, Self::NotCanonical | Self::UnknownRoomVersion | Self::NoHashes)
    }
}

/// The rules of a room version. `None`: it is unknown.
pub(super) fn rules(room_version: &str) -> Option<&'static RoomVersionRules> {
    Some(match room_version {
        "1" => &RoomVersionRules::V1,
        "2" => &RoomVersionRules::V2,
        "3" => &RoomVersionRules::V3,
        "4" => &RoomVersionRules::V4,
        "5" => &RoomVersionRules::V5,
        "6" => &RoomVersionRules::V6,
        "7" => &RoomVersionRules::V7,
        "8" => &RoomVersionRules::V8,
        "9" => &RoomVersionRules::V9,
        "10" => &RoomVersionRules::V10,
        "11" => &RoomVersionRules::V11,
        "12" => &RoomVersionRules::V12,
        _ => return None,
    })
}

impl SignedEvent {
    /// Reads an event in the federation format, as the homeserver serves it or as it was signed.
    ///
    /// # Errors
    /// If its id does not fit it, or it is not in the federation format. Some errors only say that nothing is
    /// known, see [`Unproved::is_undecided`].
    pub fn read(room_id: &str, room_version: &str, raw: &RawValue) -> Result<Self, Unproved> {
        let rules = rules(room_version).ok_or(Unproved::UnknownRoomVersion)?;
        let mut object = canonical(raw.get()).ok_or(Unproved::NotCanonical)?;
        if !["hashes", "signatures", "prev_events", "auth_events"].iter().any(|it| object.contains_key(*it)) {
            return Err(Unproved::NoHashes);
        }
        content_hash(&object).ok_or(Unproved::Member("hashes"))?;
        let served = if rules.event_format.require_event_id {
            Some(text(&object, "event_id").ok_or(Unproved::Member("event_id"))?.to_owned())
        } else {
            let id = object.remove("event_id");
            id.and_then(|id| id.as_str().map(str::to_owned))
        };
        let is_create =
            text(&object, "type") == Some("m.room.create") && text(&object, "state_key") == Some("");
        let is_root = is_create && !rules.event_format.require_room_create_room_id;
        let in_room = if is_root { object.remove("room_id") } else { object.get("room_id").cloned() };
        match in_room.as_ref().map(CanonicalJsonValue::as_str) {
            Some(Some(id)) if id == room_id => {}
            Some(Some(_)) => return Err(Unproved::OtherRoom),
            None if is_root => {}
            _ => return Err(Unproved::Member("room_id")),
        }
        remove_added_target(&mut object, rules);
        let event_id = checked_id(&object, rules, served)?;
        if is_root && room_id.strip_prefix('!') != event_id.strip_prefix('$') {
            return Err(Unproved::OtherRoom);
        }
        Ok(Self {
            event_id,
            prev_events: links(&object, "prev_events", rules)?,
            auth_events: links(&object, "auth_events", rules)?,
            depth: integer(&object, "depth").ok_or(Unproved::Member("depth"))?,
            object,
            rules,
        })
    }

    /// Whether the content is what its server signed. False for a redacted event, unless the redaction
    /// removed nothing. It is also false for a redaction up to room version 10 whose sender wrote another
    /// target into its content: Synapse replaces that (P72).
    pub fn content_hash_fits(&self) -> bool {
        content_hash_fits(&self.object)
    }

    /// The event as canonical JSON, as signed: without its id from room version 3 on, and without `unsigned`.
    pub fn canonical_json(&self) -> String {
        CanonicalJsonValue::Object(self.object.clone()).to_string()
    }

    /// The event as a redaction leaves it. Its id and its signatures still fit it.
    #[must_use]
    pub fn pruned(&self) -> Self {
        let kept = signed_text(&self.object, Some(&self.rules.redaction), &[]);
        let object = kept.and_then(|text| serde_json::from_str(&text).ok());
        Self { object: object.unwrap_or_else(|| self.object.clone()), ..self.clone() }
    }

    /// Whether it has nothing that a redaction would remove.
    pub fn is_pruned(&self) -> bool {
        self.pruned().object == self.object
    }

    /// The room version that a create event names. `None`: a redaction has removed it.
    pub(super) fn created_version(&self) -> Option<&str> {
        let content = self.object.get("content").and_then(CanonicalJsonValue::as_object);
        let version = content.and_then(|content| content.get("room_version")?.as_str());
        // Room version 1 had no name yet.
        version.or_else(|| self.content_hash_fits().then_some("1"))
    }

    /// A top-level string, such as `sender`.
    pub fn text(&self, member: &str) -> Option<&str> {
        text(&self.object, member)
    }

    /// When its server says that it was sent, in milliseconds since 1970.
    pub fn origin_server_ts(&self) -> Option<i64> {
        integer(&self.object, "origin_server_ts")
    }
}

/// The members, without `unsigned`: that may contain any number (P113).
fn canonical(json: &str) -> Option<CanonicalJsonObject> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(json).ok()?;
    let signed = members.into_iter().filter(|(name, _)| name != "unsigned");
    signed.map(|(name, value)| Some((name, serde_json::from_str(value.get()).ok()?))).collect()
}

/// Removes the second copy of a redaction's target, which homeservers add for old or new clients (P71, P72).
/// A sender may also have written both: then the content hash fits with both only.
fn remove_added_target(object: &mut CanonicalJsonObject, rules: &RoomVersionRules) {
    let in_content =
        object.get("content").and_then(CanonicalJsonValue::as_object).and_then(|it| it.get("redacts"));
    let is_twice = in_content.is_some() && in_content == object.get("redacts");
    if !is_twice || text(object, "type") != Some("m.room.redaction") {
        return;
    }
    let mut signed = object.clone();
    if rules.redaction.content_field_redacts {
        signed.remove("redacts");
    } else if let Some(CanonicalJsonValue::Object(content)) = signed.get_mut("content") {
        content.remove("redacts");
    }
    if content_hash_fits(&signed) || !content_hash_fits(object) {
        *object = signed;
    }
}

/// The event's id, if it fits the event.
fn checked_id(
    object: &CanonicalJsonObject,
    rules: &RoomVersionRules,
    served: Option<String>,
) -> Result<String, Unproved> {
    let hash = reference_hash(object, rules).ok_or(Unproved::Member("type"))?;
    match served {
        Some(served) if rules.event_format.require_event_id => Ok(served),
        Some(served) if served.strip_prefix('$') != Some(&hash) => {
            Err(Unproved::WrongId { served, computed: format!("${hash}") })
        }
        _ => Ok(format!("${hash}")),
    }
}

/// The ids in `prev_events` or `auth_events`. Up to room version 2 each stands in a list with its hash.
fn links(
    object: &CanonicalJsonObject,
    member: &'static str,
    rules: &RoomVersionRules,
) -> Result<Vec<String>, Unproved> {
    let has_hashes = matches!(rules.events_reference_format, EventsReferenceFormatVersion::V1);
    let id = |link: &CanonicalJsonValue| {
        let id = if has_hashes { link.as_array()?.first()? } else { link };
        id.as_str().map(str::to_owned)
    };
    let links = object.get(member).and_then(CanonicalJsonValue::as_array);
    let ids = links.and_then(|links| links.iter().map(id).collect());
    ids.ok_or(Unproved::Member(member))
}

fn text<'o>(object: &'o CanonicalJsonObject, member: &str) -> Option<&'o str> {
    object.get(member).and_then(CanonicalJsonValue::as_str)
}

fn integer(object: &CanonicalJsonObject, member: &str) -> Option<i64> {
    object.get(member).and_then(CanonicalJsonValue::as_integer).map(i64::from)
}
