//! Parses `log.level` and makes the filter for log lines.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// The log levels.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Libraries that log more than an operator needs.
const VERBOSE: [&str; 9] =
    ["h2", "hyper", "hyper_util", "reqwest", "rustls", "sqlx", "tokio", "tower", "tower_http"];

/// Checks that `text` is a level, or a list of directives such as `info,backscroll::sync=debug`. The error says what
/// is wrong.
///
/// A single word must be a level. The filter itself would also accept it as the name of a module, and then a mistyped
/// level would silence everything.
pub(crate) fn check_level(text: &str) -> Result<(), String> {
    let words = text.split(',').map(str::trim);
    let bare = words.filter(|word| !word.contains(['=', '[', ']', '{', '}', ' ', '"']));
    for word in bare {
        if !LEVELS.contains(&word.to_ascii_lowercase().as_str()) {
            return Err(format!(
                "holds `{}`, which is none of {}; for one module write `module=debug`",
                crate::text::Printable(word),
                LEVELS.join(", ")
            ));
        }
    }
    filter(text)
        .map(drop)
        .map_err(|error| format!("is not valid: {}", crate::text::Printable(&error.to_string())))
}

/// The filter for the operator's directives. Libraries that these do not name log warnings at most.
pub(super) fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    let directives = || text.split(',').map(str::trim);
    let silent = |word: &&str| matches!(word.to_ascii_lowercase().as_str(), "off" | "error");
    let most = directives().find(silent).unwrap_or("warn");
    let named = |library: &str| directives().any(|d| d.split(['=', ':']).next() == Some(library));
    let quiet = VERBOSE.iter().filter(|library| !named(library)).map(|library| format!("{library}={most}"));
    let all: Vec<_> = quiet.chain(directives().map(str::to_owned)).collect();
    EnvFilter::builder().parse(all.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_understood() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,backscroll::sync=debug",
            "info, sqlx=debug",
            "backscroll[backfill{room.id=x}]=trace,info",
        ] {
            assert_eq!(check_level(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn a_mistyped_level_is_refused() {
        for bad in ["", "inof", "loud", "info,", "info,backscroll", "backscroll=loud", "a\u{1b}b"] {
            let problem = check_level(bad).unwrap_err();
            assert!(!problem.contains('\u{1b}'), "{problem}");
        }
    }

    #[test]
    fn libraries_are_quiet_unless_they_are_named() {
        let shown = filter("debug").unwrap().to_string();
        assert!(shown.contains("sqlx=warn") && shown.contains("hyper=warn"), "{shown}");
        let shown = filter("info,sqlx::query=debug").unwrap().to_string();
        assert!(!shown.contains("sqlx=warn") && shown.contains("sqlx::query=debug"), "{shown}");
        assert!(filter("error").unwrap().to_string().contains("error"));
    }
}
