//! The settings as they are written in the file, with every default.
//!
//! Only types are checked here. [`super::Config`] is made from them and is valid.

use serde::{Deserialize, Serialize};

use super::{LogFormat, RedactionPolicy, span::Span};

/// Every setting, in the order in which they are shown and documented.
///
/// A test checks that these are exactly the leaves of [`Settings`].
pub(super) const KEYS: &[&str] = &[
    "data_dir",
    "homeserver.url",
    "homeserver.access_token_file",
    "homeserver.access_token",
    "homeserver.user",
    "homeserver.password_file",
    "homeserver.allow_insecure_http",
    "homeserver.sync_timeout",
    "homeserver.patience",
    "database.url",
    "database.url_file",
    "rooms.include",
    "rooms.exclude",
    "rooms.room",
    "backfill.concurrency",
    "backfill.page_size",
    "backfill.recheck_after",
    "backfill.rewalk_after",
    "redactions.policy",
    "log.format",
    "log.level",
    "http.listen",
];

/// The settings of one `[[rooms.room]]`.
pub(super) const ROOM_KEYS: &[&str] = &["id", "prev_batch"];

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    pub(super) data_dir: Option<String>,
    pub(super) homeserver: HomeserverSettings,
    pub(super) database: DatabaseSettings,
    pub(super) rooms: RoomsSettings,
    pub(super) backfill: BackfillSettings,
    pub(super) redactions: RedactionsSettings,
    pub(super) log: LogSection,
    pub(super) http: HttpSettings,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HomeserverSettings {
    pub(super) url: Option<String>,
    pub(super) access_token_file: Option<String>,
    pub(super) access_token: Option<String>,
    pub(super) user: Option<String>,
    pub(super) password_file: Option<String>,
    pub(super) allow_insecure_http: bool,
    pub(super) sync_timeout: Span,
    pub(super) patience: Span,
}

impl Default for HomeserverSettings {
    fn default() -> Self {
        Self {
            url: None,
            access_token_file: None,
            access_token: None,
            user: None,
            password_file: None,
            allow_insecure_http: false,
            sync_timeout: Span::from_secs(30),
            patience: Span::from_secs(300),
        }
    }
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DatabaseSettings {
    pub(super) url: Option<String>,
    pub(super) url_file: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RoomsSettings {
    pub(super) include: Vec<String>,
    pub(super) exclude: Vec<String>,
    pub(super) room: Vec<RoomSettings>,
}

impl Default for RoomsSettings {
    fn default() -> Self {
        Self { include: vec!["*".to_owned()], exclude: Vec::new(), room: Vec::new() }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoomSettings {
    pub(super) id: String,
    pub(super) prev_batch: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BackfillSettings {
    pub(super) concurrency: u32,
    pub(super) page_size: u32,
    pub(super) recheck_after: Span,
    pub(super) rewalk_after: Vec<Span>,
}

impl Default for BackfillSettings {
    fn default() -> Self {
        Self {
            concurrency: 4,
            page_size: 1000,
            recheck_after: Span::from_secs(60),
            rewalk_after: [600, 3600, 86_400, 604_800].map(Span::from_secs).to_vec(),
        }
    }
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RedactionsSettings {
    pub(super) policy: RedactionPolicy,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogSection {
    pub(super) format: LogFormat,
    pub(super) level: String,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".to_owned() }
    }
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HttpSettings {
    pub(super) listen: Option<String>,
}
