//! The room filter: decides which rooms are archived.

use std::collections::BTreeMap;

/// The room filter. Archived are the rooms that match an `include` pattern and no `exclude` pattern, and the rooms
/// that are listed by id. Choices made with `backscroll rooms` take precedence.
#[derive(Clone, Debug)]
pub(crate) struct Rooms {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    listed: BTreeMap<String, Option<String>>,
    choices: Choices,
}

/// The choices made with `backscroll rooms`, by room id.
pub(crate) type Choices = BTreeMap<String, Choice>;

/// The choice made with `backscroll rooms` for one room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Added or removed. `None`: the configuration decides.
    pub(crate) wanted: Option<bool>,
    /// Whether the room is paused.
    pub(crate) paused: bool,
}

impl Rooms {
    pub(super) fn new(
        include: Vec<Pattern>,
        exclude: Vec<Pattern>,
        listed: BTreeMap<String, Option<String>>,
    ) -> Self {
        Self { include, exclude, listed, choices: Choices::new() }
    }

    /// Adds the choices made at run time, which take precedence.
    #[must_use]
    pub(crate) fn with_choices(&self, choices: Choices) -> Self {
        Self { choices, ..self.clone() }
    }

    /// Whether a room with these aliases is archived.
    pub(crate) fn watches(&self, room_id: &str, aliases: &[&str]) -> bool {
        let Choice { wanted, paused } = self.choices.get(room_id).copied().unwrap_or_default();
        !paused && wanted.unwrap_or_else(|| self.is_configured(room_id, aliases))
    }

    fn is_configured(&self, room_id: &str, aliases: &[&str]) -> bool {
        let any = |patterns: &[Pattern]| patterns.iter().any(|p| p.matches_room(room_id, aliases));
        self.listed.contains_key(room_id) || (any(&self.include) && !any(&self.exclude))
    }

    /// Whether the filter accepts all rooms.
    pub(crate) fn takes_all(&self) -> bool {
        self.exclude.is_empty() && self.include.iter().any(|pattern| pattern.0 == ['*'])
    }

    /// A text that changes when the choice of rooms changes.
    pub(crate) fn fingerprint(&self) -> String {
        let patterns = |patterns: &[Pattern]| -> Vec<String> {
            patterns.iter().map(|pattern| pattern.0.iter().collect()).collect()
        };
        let listed: Vec<&String> = self.listed.keys().collect();
        let configured = serde_json::json!([patterns(&self.include), patterns(&self.exclude), listed]);
        // Without choices, the text is the same as before choices existed: an upgrade must not require a full `/sync`.
        let choices: Vec<_> = self.choices.iter().map(|(id, c)| (id, c.wanted, c.paused)).collect();
        if choices.is_empty() {
            configured.to_string()
        } else {
            format!("{configured}{}", serde_json::json!(choices))
        }
    }

    /// The token at which the operator wants a room's history walk to begin.
    pub(crate) fn prev_batch(&self, room_id: &str) -> Option<&str> {
        self.listed.get(room_id)?.as_deref()
    }

    /// The rooms listed by id, with the token at which their walk begins, if there is one. Ordered by id.
    pub(crate) fn listed(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.listed.iter().map(|(id, token)| (id.as_str(), token.as_deref()))
    }
}

/// A glob as Matrix defines it: `*` matches any characters, `?` matches one, and every other character matches itself.
///
/// Unlike in globs for file names, `[` and `{` are ordinary characters, because a room id can contain them
/// (`!abc:[::1]`), and `*` also matches `/`.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Vec<char>);

impl Pattern {
    /// Parses a pattern. The error explains why it could match neither a room id nor an alias.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.chars().next() {
            None => Err("holds an empty pattern".to_owned()),
            Some('!' | '#' | '*' | '?') => Ok(Self(text.chars().collect())),
            Some('@') => Err("holds a user id; rooms are chosen by room id or alias".to_owned()),
            Some(_) => Err(format!(
                "holds `{0}`, which no room id (`!…`) and no alias (`#…`) can match; did you mean `#{0}`?",
                crate::text::Printable(text)
            )),
        }
    }

    fn matches_room(&self, room_id: &str, aliases: &[&str]) -> bool {
        self.matches(room_id) || aliases.iter().any(|alias| self.matches(alias))
    }

    /// After a mismatch, the last `*` takes one more character, so the cost is at most the product of the two lengths.
    fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (&self.0, text.chars().collect::<Vec<_>>());
        let (mut at, mut read) = (0, 0);
        let mut star = None;
        while read < text.len() {
            match pattern.get(at) {
                Some('*') => {
                    star = Some((at, read));
                    at += 1;
                }
                Some(c) if *c == '?' || *c == text[read] => {
                    at += 1;
                    read += 1;
                }
                _ => {
                    let Some((star_at, taken)) = star else {
                        return false;
                    };
                    star = Some((star_at, taken + 1));
                    at = star_at + 1;
                    read = taken + 1;
                }
            }
        }
        pattern[at..].iter().all(|c| *c == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms(include: &[&str], exclude: &[&str], listed: &[(&str, Option<&str>)]) -> Rooms {
        let parse = |texts: &[&str]| texts.iter().map(|t| Pattern::parse(t).unwrap()).collect();
        let listed = listed.iter().map(|(id, token)| ((*id).to_owned(), token.map(str::to_owned)));
        Rooms::new(parse(include), parse(exclude), listed.collect())
    }

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(text)
    }

    #[test]
    fn a_star_is_any_run_and_a_question_mark_one_character() {
        assert!(matches("*", ""));
        assert!(matches("*", "!abc:hs"));
        assert!(matches("**", "!abc:hs"));
        assert!(matches("!*:hs", "!abc:hs"));
        assert!(matches("!*:hs", "!a:hs:hs"));
        assert!(!matches("!*:hs", "!abc:hs.org"));
        assert!(!matches("!*:hs", "!abc:other"));
        assert!(matches("!a?c:hs", "!abc:hs"));
        assert!(matches("!a?c:hs", "!aéc:hs"));
        assert!(!matches("!a?c:hs", "!ac:hs"));
        assert!(matches("#*-dev:*", "#a-dev-dev:hs"));
        assert!(matches("*.org", "#a/b:x.org"));
        assert!(!matches("!abc:hs", "!ABC:hs"));
        assert!(!matches("!abc:hs", "!abc:hs2"));
        assert!(!matches("!abc:hs", "!abc:h"));
    }

    #[test]
    fn nothing_else_is_special() {
        assert!(matches("!abc:[::1]:8448", "!abc:[::1]:8448"));
        assert!(matches("!*:[::1]", "!abc:[::1]"));
        assert!(!matches("!abc:[hs]", "!abc:h"));
        assert!(matches("#{a,b}:hs", "#{a,b}:hs"));
        assert!(!matches("#{a,b}:hs", "#a:hs"));
        assert!(matches("#a\\b:hs", "#a\\b:hs"));
        assert!(matches("#a/b/*", "#a/b/c/d:hs"));
    }

    #[test]
    fn a_long_pattern_of_stars_does_not_explode() {
        let text = "a".repeat(2000);
        assert!(!matches(&format!("{}b", "*a".repeat(40)), &text));
    }

    #[test]
    fn rooms_are_watched_by_id_or_alias_and_exclude_wins() {
        let all = rooms(&["*"], &[], &[]);
        assert!(all.watches("!abc:hs", &[]));
        let v12 = "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM";
        assert!(all.watches(v12, &[]));
        assert!(!rooms(&["!*:hs"], &[], &[]).watches(v12, &["#alias:hs"]));
        assert!(rooms(&["#*:hs"], &[], &[]).watches(v12, &["#alias:hs"]));
        assert!(rooms(&["!31hne*"], &[], &[]).watches(v12, &[]));

        let some = rooms(&["#*:hs"], &["#secret*:*"], &[]);
        assert!(some.watches("!abc:hs", &["#alias:hs"]));
        assert!(!some.watches("!abc:hs", &["#alias:hs", "#secret:hs"]));
        assert!(!some.watches("!abc:hs", &[]));
        assert!(!rooms(&[], &[], &[]).watches("!abc:hs", &[]));
    }

    #[test]
    fn a_listed_room_is_always_watched() {
        let rooms = rooms(&[], &["*"], &[("!abc:hs", Some("t1-2_3")), ("!v12id", None)]);
        assert!(rooms.watches("!abc:hs", &[]) && rooms.watches("!v12id", &[]));
        assert!(!rooms.watches("!other:hs", &[]));
        assert_eq!(rooms.prev_batch("!abc:hs"), Some("t1-2_3"));
        assert_eq!(rooms.prev_batch("!v12id"), None);
        assert_eq!(rooms.prev_batch("!other:hs"), None);
        assert_eq!(rooms.listed().count(), 2);
    }

    #[test]
    fn the_fingerprint_changes_with_the_choice_and_with_nothing_else() {
        let one = rooms(&["*"], &["#a:*"], &[("!abc:hs", None)]);
        let token = rooms(&["*"], &["#a:*"], &[("!abc:hs", Some("t1"))]);
        assert_eq!(one.fingerprint(), token.fingerprint());
        for other in [
            rooms(&["*"], &[], &[("!abc:hs", None)]),
            rooms(&["*", "#a:*"], &[], &[("!abc:hs", None)]),
            rooms(&["*"], &["#a:*"], &[]),
        ] {
            assert_ne!(one.fingerprint(), other.fingerprint());
        }
    }

    #[test]
    fn a_choice_at_run_time_goes_before_the_configuration() {
        let configured = rooms(&["*"], &["!out:*"], &[("!listed:hs", None)]);
        let choice = |wanted, paused| Choice { wanted, paused };
        let chosen = configured.with_choices(Choices::from([
            ("!out:hs".to_owned(), choice(Some(true), false)),
            ("!listed:hs".to_owned(), choice(Some(false), false)),
            ("!added:hs".to_owned(), choice(Some(true), true)),
            ("!abc:hs".to_owned(), choice(None, true)),
        ]));
        assert!(chosen.watches("!out:hs", &[]) && chosen.watches("!other:hs", &[]));
        for room in ["!listed:hs", "!added:hs", "!abc:hs"] {
            assert!(!chosen.watches(room, &[]), "{room}");
        }
        assert_ne!(chosen.fingerprint(), configured.fingerprint());
        assert_eq!(configured.with_choices(Choices::new()).fingerprint(), configured.fingerprint());
    }

    #[test]
    fn a_pattern_that_can_match_nothing_is_refused() {
        assert!(Pattern::parse("").is_err());
        assert!(Pattern::parse("@user:hs").unwrap_err().contains("user id"));
        assert!(Pattern::parse("general:hs").unwrap_err().contains("did you mean `#general:hs`?"));
    }
}
