//! The two edges of the program stay apart.

use std::{fs, path::Path};

fn sources(directory: &str) -> Vec<(String, String)> {
    let mut sources = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(directory)];
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else {
                sources.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    sources
}

#[test]
fn matrix_knows_no_sql_and_archive_no_http() {
    for (directory, foreign) in
        [("matrix", ["sqlx", "crate::archive"]), ("archive", ["reqwest", "matrix::Client"])]
    {
        let sources = sources(directory);
        assert!(sources.len() > 4, "{directory} holds the edge's files");
        for (path, source) in sources {
            assert!(foreign.iter().all(|word| !source.contains(word)), "{path} knows {foreign:?}");
        }
    }
}
