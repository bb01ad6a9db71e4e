//! Which file of `src/` takes names from which, read from the text: `use` items, and paths written out in the code.
//!
//! A name that a module re-exports is taken from the file that defines it. Neither tests count, nor what a module takes
//! from one that it is part of: a folder's `mod.rs` holds what its files share.

use std::collections::{BTreeMap, BTreeSet};

/// The path of a module: `["archive", "walk"]`.
type Module = Vec<String>;

/// Imports between files: who takes from whom, by their paths below `src/`.
pub(super) type Imports = BTreeSet<(String, String)>;

/// What one file says.
struct Source {
    file: String,
    /// By the name in this file: the path that it stands for.
    names: BTreeMap<String, Vec<String>>,
    /// The paths that it uses, `use` items included.
    paths: Vec<Vec<String>>,
}

/// The imports between files, each given by its path below `src/` and its text.
pub(super) fn between(files: &[(String, String)]) -> Imports {
    let sources: BTreeMap<Module, Source> =
        files.iter().filter(|(file, _)| !is_test(file)).map(|(file, text)| read(file, text)).collect();
    let mut imports = Imports::new();
    for (module, source) in &sources {
        for path in &source.paths {
            let path = absolute(module, source, path);
            let defined_in = path.and_then(|path| definition(&sources, &path, 0));
            let other = defined_in.filter(|file| !module.starts_with(&module_of(file)));
            imports.extend(other.map(|file| (source.file.clone(), file)));
        }
    }
    imports
}

/// The files that reach themselves by way of others, in groups that reach each other.
pub(super) fn circles(imports: &Imports) -> BTreeSet<BTreeSet<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        imports.iter().map(|(from, _)| (from, reached(imports, from))).collect();
    let circle = |file: &String| {
        let back =
            reached[file].iter().filter(|other| reached.get(*other).is_some_and(|all| all.contains(file)));
        back.map(|other| (*other).clone()).collect::<BTreeSet<_>>()
    };
    reached.keys().map(|file| circle(file)).filter(|circle| circle.len() > 1).collect()
}

fn reached<'i>(imports: &'i Imports, from: &String) -> BTreeSet<&'i String> {
    let mut reached = BTreeSet::new();
    let mut left = vec![from];
    while let Some(file) = left.pop() {
        for (_, to) in imports.iter().filter(|(from, _)| from == file) {
            if reached.insert(to) {
                left.push(to);
            }
        }
    }
    reached
}

fn is_test(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.contains("/tests/")
}

fn module_of(file: &str) -> Module {
    let stem = file.trim_end_matches(".rs").trim_end_matches("/mod");
    if stem == "lib" { Vec::new() } else { stem.split('/').map(str::to_owned).collect() }
}

fn read(file: &str, text: &str) -> (Module, Source) {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let tokens = tokens(text);
    let mut source = Source { file: file.to_owned(), names: BTreeMap::new(), paths: Vec::new() };
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "use" => {
                let is_public = at > 0 && matches!(tokens[at - 1].as_str(), "pub" | ")");
                at = tree(&tokens, at + 1, &[], is_public, &mut source);
            }
            "mod" => {
                let name = tokens[at + 1].clone();
                source.names.insert(name.clone(), vec!["self".to_owned(), name]);
                at += 2;
            }
            _ => {
                let mut path = Vec::new();
                let is_inner = at > 0 && matches!(tokens[at - 1].as_str(), "::" | ".");
                while is_name(&tokens[at]) {
                    path.push(tokens[at].clone());
                    if tokens.get(at + 1).is_none_or(|next| next != "::") {
                        break;
                    }
                    at += 2;
                }
                if path.len() > 1 && !is_inner {
                    source.paths.push(path);
                }
                at += 1;
            }
        }
    }
    (module_of(file), source)
}

/// Reads a `use` tree from `at` on and returns where it ends. What is re-exported counts for those who take it here.
fn tree(tokens: &[String], mut at: usize, before: &[String], is_public: bool, source: &mut Source) -> usize {
    let mut path = before.to_vec();
    loop {
        match tokens[at].as_str() {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens[at] != "}" {
                    at = tree(tokens, at, &path, is_public, source);
                    at += usize::from(tokens[at] == ",");
                }
                return at + 1;
            }
            "as" => {
                source.names.insert(tokens[at + 1].clone(), path.clone());
                at += 2;
            }
            "," | "}" | ";" => break,
            name => {
                path.push(name.to_owned());
                at += 1;
            }
        }
    }
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    if !is_public {
        source.paths.push(path.clone());
    }
    let name = path.last().cloned().unwrap_or_default();
    source.names.entry(name).or_insert(path);
    at
}

/// A path from the crate's root on; `None` if it leads into another crate, or names something of its own file.
fn absolute(module: &[String], source: &Source, path: &[String]) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    let mut base: Vec<String> = match first.as_str() {
        "crate" | "backscroll" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module[..module.len() - 1].to_vec(),
        name => {
            let known =
                source.names.get(name).filter(|known| known.as_slice() != path && known[0] != name)?;
            return absolute(module, source, &[known.as_slice(), rest].concat());
        }
    };
    for name in rest {
        if name == "super" {
            base.pop();
        } else {
            base.push(name.clone());
        }
    }
    Some(base)
}

/// The file that defines what a path names; `None` for a module as a whole.
fn definition(sources: &BTreeMap<Module, Source>, path: &[String], depth: u32) -> Option<String> {
    let modules = (0..=path.len()).rev().find(|end| sources.contains_key(&path[..*end]))?;
    let (module, names) = path.split_at(modules);
    let source = &sources[module];
    let (name, rest) = names.split_first()?;
    let taken = source.names.get(name).and_then(|known| absolute(module, source, known));
    match taken {
        Some(taken) if depth < 8 && taken != path[..=modules] => {
            definition(sources, &[taken.as_slice(), rest].concat(), depth + 1)
        }
        _ => Some(source.file.clone()),
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::` and single signs; no comments, no strings.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(hashes) = raw_string(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = hashes + 2;
            rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len())
        } else if first == '"' {
            string(rest)
        } else if first == '\'' {
            // A character, or the sign before a lifetime.
            let escaped = usize::from(rest[1..].starts_with('\\'));
            let inside: usize = rest[1..].chars().take(1 + escaped).map(char::len_utf8).sum();
            if rest[1 + inside..].starts_with('\'') { inside + 2 } else { 1 }
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(rest[..end].to_owned());
            end
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[taken..];
    }
    tokens
}

/// The number of `#` of a raw string that begins here.
fn raw_string(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('r')?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    rest[hashes..].starts_with('"').then_some(hashes)
}

/// The length of the string that begins here.
fn string(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == '"' && !is_escaped {
            return at + 1;
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    text.len()
}
