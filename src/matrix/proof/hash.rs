//! The two hashes of an event: that of its content, and that which is its id.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue,
    canonical_json::RedactingSerializer,
    room_version_rules::{EventIdFormatVersion, RedactionRules, RoomVersionRules},
    serde::{
        Base64,
        base64::{Standard, UrlSafe},
    },
};
use sha2::{Digest as _, Sha256};

/// The hash that the event's id is made of (specification, "Calculating the reference hash for an event").
/// `None`: the event has no type.
pub(super) fn reference_hash(object: &CanonicalJsonObject, rules: &RoomVersionRules) -> Option<String> {
    let hash = sha256(object, Some(&rules.redaction), &["signatures", "unsigned"])?;
    let is_standard = matches!(rules.event_id_format, EventIdFormatVersion::V1 | EventIdFormatVersion::V2);
    Some(if is_standard {
        Base64::<Standard, _>::new(hash).encode()
    } else {
        Base64::<UrlSafe, _>::new(hash).encode()
    })
}

/// Whether the event has the content that its hash names (specification, "Calculating the content hash for an
/// event").
pub(super) fn content_hash_fits(object: &CanonicalJsonObject) -> bool {
    let signed = content_hash(object).and_then(|text| Base64::<Standard, [u8; 32]>::parse(text).ok());
    let computed = sha256(object, None, &["hashes", "signatures", "unsigned"]);
    signed.is_some_and(|signed| Some(signed.as_inner()) == computed.as_ref())
}

/// The content hash that is in the event.
pub(super) fn content_hash(object: &CanonicalJsonObject) -> Option<&str> {
    object.get("hashes")?.as_object()?.get("sha256").and_then(CanonicalJsonValue::as_str)
}

fn sha256(
    object: &CanonicalJsonObject,
    redaction: Option<&RedactionRules>,
    without: &[&str],
) -> Option<[u8; 32]> {
    Some(Sha256::digest(signed_text(object, redaction, without)?).into())
}

/// The canonical JSON of what is hashed or signed. `None`: it is to be redacted and has no type.
pub(super) fn signed_text(
    object: &CanonicalJsonObject,
    redaction: Option<&RedactionRules>,
    without: &[&str],
) -> Option<String> {
    let serializer = RedactingSerializer::new().custom_redacted_root_fields(without);
    let serializer = match redaction {
        Some(rules) => serializer.rules(rules),
        None => serializer,
    };
    serializer.serialize(object).ok()
}
