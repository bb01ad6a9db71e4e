//! What the source must keep to, beyond what the compiler checks.

mod imports;

use std::{collections::BTreeSet, fs, path::Path};

/// The modules at the top of `src/`. Each line may use what the lines below it have, and nothing else.
const ORDER: [&[&str]; 16] = [
    &["main"],
    &["cli"],
    &["daemon"],
    &["transfer"],
    &["verify"],
    &["sync", "backfill"],
    &["fetch"],
    &["context"],
    &["schedule", "service"],
    &["error"],
    &["archive"],
    &["encryption"],
    &["matrix"],
    &["telemetry", "postgres"],
    &["config"],
    &["backoff", "child", "text"],
];
/// How many imports may run against that order.
const MOST_AGAINST_THE_ORDER: usize = 6;
const MOST_CIRCLES: usize = 3;
const MOST_TOP_MODULES: usize = 20;
const MOST_LINES_OF_A_FUNCTION: usize = 90;

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

/// The Rust files of `src/`, by their paths in it.
fn sources() -> Vec<(String, String)> {
    let inside = |path: &str| path.rsplit_once("/src/").map(|(_, path)| path.to_owned());
    let sources = files("src").into_iter().filter(|(path, _)| is_rust(path));
    sources.map(|(path, text)| (inside(&path).unwrap(), text)).collect()
}

fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

fn top_module(file: &str) -> &str {
    file.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

#[test]
fn imports_run_in_one_direction() {
    let place = |file: &str| {
        let module = top_module(file);
        let place = ORDER.iter().position(|line| line.contains(&module));
        place.unwrap_or_else(|| panic!("ORDER does not say where {module} belongs"))
    };
    let imports = imports::between(&sources());
    assert!(imports.len() > 500, "only {} imports are found", imports.len());
    let against: Vec<_> = imports
        .iter()
        .filter(|(from, _)| top_module(from) != "lib")
        .filter(|(from, to)| top_module(from) != top_module(to) && place(from) >= place(to))
        .collect();
    assert!(against.len() <= MOST_AGAINST_THE_ORDER, "too many imports run back up: {against:#?}");
}

#[test]
fn few_files_import_each_other() {
    let circles = imports::circles(&imports::between(&sources()));
    assert!(circles.len() <= MOST_CIRCLES, "too many circles of files: {circles:#?}");
}

#[test]
fn the_top_of_the_source_has_few_modules() {
    let modules: BTreeSet<_> = sources().iter().map(|(file, _)| top_module(file).to_owned()).collect();
    let modules: Vec<_> =
        modules.iter().filter(|module| !["main", "lib"].contains(&module.as_str())).collect();
    assert!(modules.len() <= MOST_TOP_MODULES, "too many modules at the top of src/: {modules:?}");
}

/// The first line of each function of a formatted source, counted from 1, and how many lines it has.
fn functions(source: &str) -> Vec<(usize, usize)> {
    let lines: Vec<_> = source.lines().collect();
    let heads = lines.iter().enumerate().filter(|(_, line)| is_head(line));
    heads.map(|(start, _)| (start + 1, length(&lines[start..]))).collect()
}

fn is_head(line: &str) -> bool {
    let is_modifier =
        |word: &str| word.starts_with("pub") || word.ends_with(')') || ["const", "async"].contains(&word);
    line.split_whitespace().find(|word| !is_modifier(word)) == Some("fn")
}

/// The lines of the function that begins with the first of `lines`.
fn length(lines: &[&str]) -> usize {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let is_last = |line: &&str| {
        let text = line.trim_start();
        indent(line) == indent(lines[0]) && (text.starts_with('}') || text.ends_with(['}', ';']))
    };
    lines.iter().position(is_last).map_or(lines.len(), |last| last + 1)
}

#[test]
fn no_function_is_long() {
    let mut count = 0;
    for (path, source) in ["src", "tests", "benches"].iter().flat_map(|folder| files(folder)) {
        if !is_rust(&path) || path.contains("/target/") {
            continue;
        }
        for (line, length) in functions(&source) {
            count += 1;
            assert!(length <= MOST_LINES_OF_A_FUNCTION, "{path}:{line}: a function of {length} lines");
        }
    }
    assert!(count > 2000, "only {count} functions are found");
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
