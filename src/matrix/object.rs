//! Reads a JSON object member by member, so that a member of the wrong type does not affect the others.

use std::fmt;

use serde::{
    Deserializer as _,
    de::{SeqAccess, Visitor},
};
use serde_json::{Deserializer, value::RawValue};

use super::json::{self, Json, Member, Text};

/// A JSON object whose values are still text.
#[derive(Debug)]
pub(super) struct Object<'a>(Vec<Member<'a>>);

impl<'a> Object<'a> {
    /// Reads well-formed JSON, such as a [`RawValue`]. `None`: it is not an object.
    pub(super) fn read(json: &'a str) -> Option<Self> {
        json::members_of(json).map(Self)
    }

    /// The value of that name. Of several the last counts, as in most JSON parsers. `null` counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.all(name).last()
    }

    /// All values of that name except `null`, in the order served.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |member| member.name.is(name))
            .map(|member| member.value)
            .filter(|value| *value != "null")
    }

    /// The members in the order served, including duplicate names.
    pub(super) fn members(&self) -> &[Member<'a>] {
        &self.0
    }
}

/// Calls `read` with each item of an array. The items are not collected: a list of them may need eight times the memory
/// of the array.
///
/// # Errors
/// If it is not an array.
pub(super) fn read_items<'a>(json: &'a str, read: impl FnMut(&'a RawValue)) -> Result<(), serde_json::Error> {
    let mut json = Deserializer::from_str(json);
    json.deserialize_seq(Items(read))?;
    json.end()
}

struct Items<F>(F);

impl<'a, F: FnMut(&'a RawValue)> Visitor<'a> for Items<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element()? {
            (self.0)(item);
        }
        Ok(())
    }
}

/// A string. `None`: it is not a string, or PostgreSQL's text cannot store it.
pub(super) fn string(json: &str) -> Option<String> {
    Json::parse(json).as_text().and_then(Text::as_str).map(str::to_owned)
}

/// A boolean. `None`: it is not a boolean.
pub(super) fn boolean(json: &str) -> Option<bool> {
    match json {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}
