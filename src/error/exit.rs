//! The exit codes of the process.

use std::process::ExitCode;

/// The exit codes: those of sysexits where one fits. The table in README.md lists the same codes for the operator.
/// `backscroll psql` ends with psql's own code instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The command is done, or the daemon was stopped by a signal.
    Success = 0,
    /// `verify`, `evidence`: something is missing, altered or does not fit. `erase`: the operator did not confirm, and
    /// nothing was erased.
    No = 1,
    /// `verify`: not everything could be compared, so the result is unclear.
    Unclear = 2,
    /// The command line is wrong, or names a room, user or token that cannot be used (`EX_USAGE`).
    Usage = 64,
    /// `run --once`: the history of a room has stalled; everything else is archived. `import`, `keys import`: the input
    /// is not what it should be; nothing was imported (`EX_DATAERR`).
    Stalled = 65,
    /// The database or the homeserver cannot be reached, or the address of `http.listen` is in use (`EX_UNAVAILABLE`).
    /// A retry may help.
    Unavailable = 69,
    /// Any other error (`EX_SOFTWARE`).
    Other = 70,
    /// A file, a terminal or a pipe could not be read or written (`EX_IOERR`).
    Io = 74,
    /// Another Backscroll writes to this database, or took over while this one had lost its connection
    /// (`EX_TEMPFAIL`).
    AnotherWriter = 75,
    /// The homeserver refuses the token, or a permission of the database or the system is missing (`EX_NOPERM`).
    Refused = 77,
    /// The configuration is wrong, the database is unsuitable, or there is no PostgreSQL to run or no archive
    /// to open (`EX_CONFIG`).
    Configuration = 78,
    /// Ended at once, by a second signal or by Ctrl-C at the password prompt. A shell reports the same for SIGINT.
    Interrupted = 130,
}

impl Exit {
    /// The number.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }

    /// Ends the process at once.
    pub(crate) fn now(self) -> ! {
        std::process::exit(i32::from(self.code()))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_lists_each_code() {
        let source = include_str!("exit.rs");
        let (_, variants) = source.split_once("pub enum Exit {").expect("it is above");
        let (variants, _) = variants.split_once("\n}").expect("it ends");
        let codes: Vec<_> =
            variants.lines().filter_map(|line| line.split_once(" = ")?.1.strip_suffix(',')).collect();
        let readme = include_str!("../../README.md");
        let (_, table) =
            readme.split_once("| exit code | meaning |\n| --- | --- |\n").expect("there is a table");
        let rows = table.lines().take_while(|line| line.starts_with('|'));
        let listed: Vec<_> = rows.filter_map(|row| row.split('|').nth(1)).map(str::trim).collect();
        assert_eq!(listed, codes);
    }

    #[test]
    fn systemd_does_not_restart_what_a_restart_does_not_help() {
        let lasting = [Exit::Usage, Exit::AnotherWriter, Exit::Refused, Exit::Configuration];
        let codes = lasting.map(|exit| exit.code().to_string()).join(" ");
        let unit = include_str!("../../deploy/systemd/backscroll.service");
        assert!(unit.lines().any(|line| line == format!("RestartPreventExitStatus={codes}")), "{codes}");
    }
}
