//! What `deploy/SECURITY.md` promises is held by tests that are there.

use std::{fs, path::Path};

/// The text of every Rust file below a directory.
fn source(directory: &Path) -> String {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| match path.extension().and_then(|name| name.to_str()) {
            Some("rs") => fs::read_to_string(&path).unwrap(),
            _ if path.is_dir() => source(&path),
            _ => String::new(),
        })
        .collect()
}

/// Whether a function of that name follows an attribute that makes it a test.
fn is_test(source: &str, name: &str) -> bool {
    let function = format!("fn {name}()");
    source.match_indices(&function).any(|(at, _)| {
        let above = source[..at].rsplit_once('\n').and_then(|(above, _)| above.lines().last());
        above.is_some_and(|line| line.contains("test]") || line.contains("test("))
    })
}

#[test]
fn each_promise_names_a_test_that_is_there_or_says_that_there_is_none() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("deploy/SECURITY.md")).unwrap();
    let source = source(&root.join("src")) + &source(&root.join("tests"));
    let mut named = 0;
    for promise in text.split("\n* ").skip(1) {
        let promise = promise.split("\n\n").next().unwrap();
        // A name has many words; a setting or a command has not.
        let tests: Vec<_> =
            promise.split('`').skip(1).step_by(2).filter(|word| word.matches('_').count() > 2).collect();
        let is_open = promise.contains("**no test**") || promise.contains("deploy/compose-test.sh");
        assert!(is_open == tests.is_empty(), "either tests or none: {promise}");
        for test in &tests {
            assert!(is_test(&source, test), "no test is called {test}: {promise}");
        }
        named += tests.len();
    }
    assert!(named > 30, "{named} tests");
}
