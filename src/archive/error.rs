//! The errors of the archive.

use sqlx::migrate::MigrateError;

use crate::{Exit, backoff::Retry};

/// An error of the archive. The texts contain no event content.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Any error of the database or the connection.
    #[error("use the database: {}", describe(.0))]
    Database(#[from] sqlx::Error),
    /// The connection has no PostgreSQL session of its own.
    #[error(
        "use the database: the server is a connection pooler that uses another session for each transaction ({0}); connect to \
         PostgreSQL itself, or set the pooler to session mode"
    )]
    Pooler(String),
    /// A migration failed.
    #[error("migrate the database: {0}")]
    Migrate(#[source] MigrateError),
    /// The database was migrated by a newer Backscroll.
    #[error(
        "open the database: its schema is of version {found}, this Backscroll knows {known}; \
         install the newer Backscroll that made it"
    )]
    NewerSchema {
        /// The database's version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The tables are those of a version before the first release, which no later version can read.
    #[error(
        "open the database: its tables were made by a Backscroll from before the first release, which this one cannot \
         read; archive the rooms anew into another database, or into this one after \
         `drop schema archive, room_reader, room_reader_tables, room_reader_views cascade` and dropping the old views"
    )]
    PreReleaseSchema,
    /// The archive's own device cannot be used (`encryption.device`).
    #[error("use the device of the access token: {0}")]
    Device(String),
    /// The database lacks migrations, and this role may not apply them.
    #[error(
        "open the database: its schema is of version {found}, this Backscroll needs {known}, and the role {role:?} may \
         not change it; run `backscroll migrate` as the owner, {owner:?}"
    )]
    OlderSchema {
        /// The database's version.
        found: i64,
        /// Ours.
        known: i64,
        /// Who asked.
        role: String,
        /// Whose tables they are.
        owner: String,
    },
    /// Another Backscroll writes to this database.
    #[error(
        "become the writer of this database: another Backscroll is at work (server process {pid}, connected since \
         {since}); stop it first, or use another database"
    )]
    AnotherWriter {
        /// Process id of its database backend.
        pid: i32,
        /// When it connected.
        since: String,
    },
    /// Another Backscroll has become the writer while this one had lost its session. This one has written nothing
    /// since.
    #[error(
        "remain the writer of this database: another Backscroll has taken the lease while this one had lost its session \
         ({by}); stop one of the two, or use another database"
    )]
    LeaseTaken {
        /// Who has it.
        by: String,
    },
    /// The session that holds the writer's lease is lost and could not be replaced yet. Nothing is written meanwhile.
    #[error("hold the writer's lease: its session is lost and cannot be made anew yet: {why}")]
    LeaseLost {
        /// Why not.
        why: String,
    },
    /// The archive belongs to another account.
    #[error(
        "archive as {ours}: this database is the archive of {theirs}; use another database for another account"
    )]
    AnotherAccount {
        /// The account that was configured.
        ours: String,
        /// The account whose archive this is.
        theirs: String,
    },
    /// A checkpoint differs from its last known value, so another process has moved it. Nothing was written.
    #[error("move a checkpoint: it is not where it was last seen")]
    CheckpointMoved,
    /// The room of a walk is no longer archived. Nothing was written.
    #[error("store a page: the room was paused or removed meanwhile")]
    Unwatched,
    /// The first pass through a newer gap of the room must go first. Nothing was written.
    #[error("store a page: the first walk through a newer gap of the room comes first")]
    YieldToNewerGap,
    /// No such room.
    #[error(
        "find the room {0} in the archive: it is not there (yet); `backscroll run --once` looks for rooms"
    )]
    NoSuchRoom(String),
    /// An alias cannot be resolved.
    #[error("find the room {0}: neither the archive nor the homeserver knows this alias")]
    NoSuchAlias(String),
    /// The account may not read the room to archive.
    #[error(
        "archive the room {room}: the account is not in it, and the homeserver does not show it to others ({answer}); join it \
         with a client or with `backscroll rooms add --join {room}`"
    )]
    NotReadable {
        /// The room, as it was named.
        room: String,
        /// The homeserver's error.
        answer: String,
    },
    /// The homeserver refuses a token that the operator gave.
    #[error(
        "begin a walk in the room {room}: the homeserver refuses the token ({answer}); one is good on the homeserver that gave it, \
         as `prev_batch` in an answer to /sync, or as `end` in one to /messages of this room"
    )]
    RefusedToken {
        /// The room.
        room: String,
        /// The homeserver's error.
        answer: String,
    },
    /// The text is not a user id, and no archived event has such a sender.
    #[error(
        "find the user {0}: a user id has the form @name:server, and the archive has no events of such a sender"
    )]
    NoSuchUser(String),
    /// The account is not in the room to add.
    #[error("add the room {0}: the account is not in it; join it with a client, or add --join")]
    NotJoined(String),
    /// A walk was requested in a room that is not archived now.
    #[error(
        "walk the room {0}: it is paused, removed or left out, so nothing of it is fetched; `backscroll rooms list` shows \
         which, `backscroll rooms resume` and `backscroll rooms add` change it"
    )]
    NotWatched(String),
    /// The room was erased.
    #[error(
        "archive the room {0}: it was erased; its row in archive.erasures, if removed, lets it be archived again"
    )]
    ErasedRoom(String),
}

impl Error {
    /// Whether and when to retry.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::Database(_) if self.passes() => Retry::Backoff,
            Self::CheckpointMoved | Self::LeaseLost { .. } => Retry::Backoff,
            _ => Retry::Never,
        }
    }

    /// Whether a row was refused because its key is taken.
    pub(super) fn is_duplicate(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else { return false };
        // Citus gives no SQLSTATE to what another of its servers refuses of a COPY. The message has the name of the key.
        let is_elsewhere = error.code().as_deref() == Some("XX000") && error.message().contains("_pkey_");
        error.is_unique_violation() || is_elsewhere
    }

    /// The exit code of a process that ends with this error.
    pub fn exit_code(&self) -> Exit {
        match self {
            Self::Database(error) if denied(error) => Exit::Refused,
            Self::OlderSchema { .. } => Exit::Refused,
            Self::Database(_)
            | Self::LeaseLost { .. }
            | Self::CheckpointMoved
            | Self::Unwatched
            | Self::YieldToNewerGap => Exit::Unavailable,
            Self::AnotherWriter { .. } | Self::LeaseTaken { .. } => Exit::AnotherWriter,
            Self::NoSuchRoom(_)
            | Self::NoSuchAlias(_)
            | Self::NoSuchUser(_)
            | Self::NotReadable { .. }
            | Self::RefusedToken { .. }
            | Self::NotJoined(_)
            | Self::NotWatched(_)
            | Self::ErasedRoom(_) => Exit::Usage,
            Self::Pooler(_)
            | Self::Migrate(_)
            | Self::NewerSchema { .. }
            | Self::PreReleaseSchema
            | Self::Device(_)
            | Self::AnotherAccount { .. } => Exit::Configuration,
        }
    }
}

/// Whether the role lacks a right.
fn denied(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if matches!(error.code().as_deref(), Some("42501" | "0LP01")))
}

/// The error without DETAIL and CONTEXT, which would quote the row.
fn describe(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => {
            format!("{} (SQLSTATE {})", error.message(), error.code().unwrap_or_default())
        }
        other => other.to_string(),
    }
}
