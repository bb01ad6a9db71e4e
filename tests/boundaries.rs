//! What the source must keep to, beyond what the compiler checks.

use std::{collections::BTreeSet, fs, path::Path};

/// The files below a folder of the repository, each with its text.
fn files(directory: &str) -> Vec<(String, String)> {
    let mut sources = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)];
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                sources.push((path.display().to_string(), text));
            }
        }
    }
    sources
}

/// A child would inherit the access token and passwords that are in our environment.
#[test]
fn child_processes_are_made_in_one_place() {
    for (path, source) in files("src") {
        let makes = source.contains("Command::new(");
        assert_eq!(makes, path.ends_with("/src/child.rs"), "{path}: use child::command");
    }
}

#[test]
fn matrix_knows_no_sql_and_archive_no_http() {
    for (directory, foreign) in
        [("matrix", ["sqlx", "crate::archive"]), ("archive", ["reqwest", "matrix::Client"])]
    {
        let sources = files(&format!("src/{directory}"));
        assert!(sources.len() > 4, "{directory} holds the edge's files");
        for (path, source) in sources {
            assert!(foreign.iter().all(|word| !source.contains(word)), "{path} knows {foreign:?}");
        }
    }
}

/// The numbers in a text: `P4`, and of a range such as `P4-P7` or `P4–P7` each one.
fn cited(text: &str) -> BTreeSet<u32> {
    let mut numbers = BTreeSet::new();
    let mut open = None;
    for (at, _) in text.match_indices('P') {
        let before = text[..at].chars().next_back().unwrap_or(' ');
        let digits: String = text[at + 1..].chars().take_while(char::is_ascii_digit).collect();
        let rest = &text[at + 1 + digits.len()..];
        let is_word = before.is_alphanumeric()
            || before == '_'
            || rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let Some(number) = digits.parse::<u32>().ok().filter(|_| !is_word) else { continue };
        numbers.extend(open.take().unwrap_or(number)..=number);
        open = (rest.starts_with("-P") || rest.starts_with("–P")).then_some(number);
    }
    numbers
}

#[test]
fn each_cited_fact_of_the_protocol_stands_in_its_notes_and_each_of_these_is_cited() {
    const NOTES: &str = "src/matrix/protocol.md";
    let notes = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(NOTES)).unwrap();
    let explained: Vec<u32> = notes
        .lines()
        .filter_map(|line| line.strip_prefix("* **P")?.split_once("**")?.0.parse().ok())
        .collect();
    let distinct: BTreeSet<u32> = explained.iter().copied().collect();
    assert_eq!(distinct.len(), explained.len(), "each number stands there once");
    let mut used = BTreeSet::new();
    for (path, text) in ["src", "tests", "migrations", "benches"].iter().flat_map(|folder| files(folder)) {
        if path.ends_with(NOTES) || path.ends_with("tests/boundaries.rs") || path.contains("/target/") {
            continue;
        }
        let here = cited(&text);
        let missing: Vec<_> = here.difference(&distinct).collect();
        assert!(missing.is_empty(), "{path} cites {missing:?}, which {NOTES} does not explain");
        used.extend(here);
    }
    assert_eq!(distinct.difference(&used).collect::<Vec<_>>(), Vec::<&u32>::new(), "cited nowhere");
    assert!(cited(&notes).is_subset(&distinct), "the notes refer to themselves");
}
