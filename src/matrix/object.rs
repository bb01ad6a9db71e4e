//! An object of an answer, read member by member, so that a member of the wrong type costs nothing of the others.

use serde_json::value::RawValue;

use super::json::{self, Json, Member, Text};

/// A JSON object whose values are still text.
#[derive(Debug)]
pub(super) struct Object<'a>(Vec<Member<'a>>);

impl<'a> Object<'a> {
    /// Reads well-formed JSON, such as a [`RawValue`]; `None` if it is no object.
    pub(super) fn read(json: &'a str) -> Option<Self> {
        json::members_of(json).map(Self)
    }

    /// The value of that name, of several the last, as readers of JSON agree. `null` counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.all(name).last()
    }

    /// All values of that name but `null`, in the order served.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |member| member.name.is(name))
            .map(|member| member.value)
            .filter(|value| *value != "null")
    }

    /// The members in the order served, those of one name twice among them.
    pub(super) fn members(&self) -> &[Member<'a>] {
        &self.0
    }
}

/// The items of an array; `None` if it is none.
pub(super) fn items(json: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(json).ok()
}

/// A string; `None` if it is none, or holds what PostgreSQL's text cannot.
pub(super) fn string(json: &str) -> Option<String> {
    Json::parse(json).as_text().and_then(Text::as_str).map(str::to_owned)
}

/// A boolean; `None` if it is none.
pub(super) fn boolean(json: &str) -> Option<bool> {
    match json {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}
