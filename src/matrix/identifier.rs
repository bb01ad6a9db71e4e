//! Matrix identifiers in JSON.

use super::json::{Json, Text};

/// The longest Matrix identifier in bytes (specification, appendices, "Common Identifier Format").
pub(super) const MAX_ID: usize = 255;

/// The identifier, if the value is one: a string of at most [`MAX_ID`] bytes that is not empty.
pub(super) fn identifier(value: &Json<'_>) -> Option<String> {
    value
        .as_text()
        .and_then(Text::as_str)
        .filter(|id| !id.is_empty() && id.len() <= MAX_ID)
        .map(str::to_owned)
}
