//! The environment of a child process is made for it: no secret of ours, and nothing that misleads the program.
//!
//! Our own environment may hold an access token and passwords. A child inherits none of it but what programs need to be
//! found and to load, see [`command`]; whoever starts a program for a person adds [`TERMINAL`].

use std::{ffi::OsStr, process::Command};

/// What a program needs to run at all.
const NEEDED: [&str; 4] = ["PATH", "LD_LIBRARY_PATH", "LOCPATH", "LOCALE_ARCHIVE"];
/// What a program that a person uses needs besides.
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

/// A command that inherits [`NEEDED`] alone.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    pass(&mut command, |name| NEEDED.contains(&name));
    command
}

/// Lets the command inherit the variables for whose names `wanted` holds.
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
