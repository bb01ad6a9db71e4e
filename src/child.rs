//! The environment of child processes. Backscroll's own environment may contain an access token and passwords, and
//! variables such as `PGHOST` that change what a program does.
//!
//! So a child inherits only what it needs to be found and to load, see [`command`]. A program that a person uses also
//! inherits [`TERMINAL`].

use std::{ffi::OsStr, process::Command};

/// What every program needs.
const NEEDED: [&str; 4] = ["PATH", "LD_LIBRARY_PATH", "LOCPATH", "LOCALE_ARCHIVE"];
/// What an interactive program needs besides.
pub(crate) const TERMINAL: [&str; 22] = [
    "COLORTERM",
    "COLUMNS",
    "EDITOR",
    "HOME",
    "INPUTRC",
    "LANG",
    "LANGUAGE",
    "LESS",
    "LINES",
    "LOGNAME",
    "NO_COLOR",
    "PAGER",
    "SHELL",
    "TERM",
    "TERMINFO",
    "TMPDIR",
    "TZ",
    "USER",
    "VISUAL",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
];

/// A command that inherits only [`NEEDED`].
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    pass(&mut command, |name| NEEDED.contains(&name));
    command
}

/// Lets the command inherit the variables whose names are `wanted`.
pub(crate) fn pass(command: &mut Command, wanted: impl Fn(&str) -> bool) {
    let variables = std::env::vars_os();
    command.envs(variables.filter(|(name, _)| name.to_str().is_some_and(&wanted)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_inherits_what_programs_need_and_nothing_else() {
        let output = command("/usr/bin/env").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.is_empty(), "PATH is passed on");
        for line in text.lines() {
            let name = line.split('=').next().unwrap();
            assert!(NEEDED.contains(&name), "{name}");
        }
    }
}
