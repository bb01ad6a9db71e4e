//! The configuration of the private server.

use std::path::Path;

use super::{DATABASE, PORT, USER};

/// Included from `postgresql.conf` and rewritten at every start. `alter system` takes precedence over it, but not over
/// [`arguments`].
///
/// The text of a statement, or a value from one, must never be logged: statements contain people's messages. The
/// server's messages of level ERROR quote values, hence `log_min_messages = log`, which is above ERROR. The client
/// that sent the statement receives the error anyway. After a crash the server reports the statement as a detail,
/// hence `terse`.
pub(super) const SETTINGS: &str = "\
# Written by backscroll on every start. To tune this server, use `alter system`.
cluster_name = 'backscroll'
timezone = 'UTC'

fsync = on
full_page_writes = on
shared_buffers = 128MB
max_wal_size = 2GB
random_page_cost = 1.1                  # a room's page by its index, not by reading every event
wal_compression = on
max_logical_replication_workers = 0     # nothing subscribes here
jit = off                               # cannot run where memory may not be both written and executed

log_destination = 'stderr'
logging_collector = off                 # backscroll keeps postgres.log
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
log_checkpoints = off
log_min_messages = log
log_error_verbosity = terse
log_min_error_statement = panic
log_statement = none
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
log_min_duration_statement = -1
";

/// The line at the end of `postgresql.conf` that includes our settings.
pub(super) const INCLUDE: &str = "include = 'backscroll.conf'\n";

/// The file that [`INCLUDE`] includes.
pub(super) const SETTINGS_FILE: &str = "backscroll.conf";

/// Peer authentication: the kernel says which user is at the other end of the socket.
pub(super) const HBA: &str = "\
# Written by backscroll on every start. TYPE DATABASE USER METHOD
local all         all peer map=backscroll
local replication all peer map=backscroll
";

/// Root and the owner of the cluster may connect. Root could become the owner anyway.
pub(super) fn ident(owner: &str) -> String {
    let mut text = String::from("# Written by backscroll on every start. MAP SYSTEM-USER ROLE\n");
    for user in ["root", owner] {
        let user = user.replace('"', "\"\"");
        text.push_str("backscroll \"");
        text.push_str(&user);
        text.push_str("\" ");
        text.push_str(USER);
        text.push('\n');
    }
    text
}

/// The settings that `alter system` must not change: who can reach the server, and durability.
pub(super) fn arguments(socket_dir: &Path) -> Vec<std::ffi::OsString> {
    // The setting is a list, so a path with spaces must be quoted.
    let mut directories = std::ffi::OsString::from("unix_socket_directories=\"");
    directories.push(socket_dir);
    directories.push("\"");
    let settings = [
        "listen_addresses=".into(),
        directories,
        format!("port={PORT}").into(),
        "unix_socket_permissions=0700".into(),
        "fsync=on".into(),
        "full_page_writes=on".into(),
    ];
    settings.into_iter().flat_map(|setting| ["-c".into(), setting]).collect()
}

/// SQL that runs once, in single-user mode, before the cluster gets its name.
pub(super) fn create_database() -> String {
    format!("create database {DATABASE} owner {USER};\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_owner_are_let_in() {
        let text = ident("alice");
        assert!(text.contains("backscroll \"root\" backscroll\n"));
        assert!(text.contains("backscroll \"alice\" backscroll\n"));
    }

    #[test]
    fn the_socket_directory_stays_in_one_piece() {
        let arguments = arguments(Path::new("/tmp/a b"));
        assert!(arguments.contains(&"unix_socket_directories=\"/tmp/a b\"".into()));
        assert!(arguments.contains(&"listen_addresses=".into()));
    }
}
