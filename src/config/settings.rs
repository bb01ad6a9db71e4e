//! The settings as they are written in the file, with every default.
//!
//! Only types are checked here. [`super::Config`] is made from them and is valid.

use std::{fmt, sync::LazyLock};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, MapAccess, Visitor},
};

use super::{LogFormat, RedactionPolicy, span::Span};

/// Every setting, in the order in which they are shown and documented: that of the fields of [`Settings`].
pub(super) static KEYS: LazyLock<Vec<&'static str>> = LazyLock::new(|| keys_of(&Settings::default()));

/// The settings of one `[[rooms.room]]`.
pub(super) static ROOM_KEYS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| keys_of(&RoomSettings::default()));

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    pub(super) data_dir: Option<String>,
    pub(super) homeserver: HomeserverSettings,
    pub(super) database: DatabaseSettings,
    pub(super) rooms: RoomsSettings,
    pub(super) backfill: BackfillSettings,
    pub(super) redactions: RedactionsSettings,
    pub(super) verify: VerifySettings,
    pub(super) evidence: EvidenceSettings,
    pub(super) encryption: EncryptionSettings,
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

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DatabaseSettings {
    pub(super) url: Option<String>,
    pub(super) url_file: Option<String>,
    pub(super) rebuild_indexes: bool,
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self { url: None, url_file: None, rebuild_indexes: true }
    }
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

#[derive(Serialize, Deserialize, Default)]
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

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct VerifySettings {
    pub(super) every: Option<Span>,
    pub(super) seal: bool,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EvidenceSettings {
    pub(super) keep: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EncryptionSettings {
    pub(super) key_files: Vec<String>,
    pub(super) passphrase_file: Option<String>,
    pub(super) recovery_key_file: Option<String>,
    pub(super) keep_plaintext: bool,
    pub(super) device: bool,
}

impl Default for EncryptionSettings {
    fn default() -> Self {
        Self {
            key_files: Vec::new(),
            passphrase_file: None,
            recovery_key_file: None,
            keep_plaintext: true,
            device: false,
        }
    }
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

/// The keys of settings, as serde names them. They are made once and live as long as the process.
fn keys_of(settings: &impl Serialize) -> Vec<&'static str> {
    // JSON keeps the order of the fields, and has a null where nothing is set.
    let json = serde_json::to_string(settings).expect("the settings are a struct of plain values");
    let table: Table = serde_json::from_str(&json).expect("a struct is an object");
    table.keys().into_iter().map(|key| &*key.leak()).collect()
}

/// A table: its names and values, in their order.
struct Table(Vec<(String, Named)>);

/// The value of a name in a table.
#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    Section(Table),
    Setting(IgnoredAny),
}

impl Table {
    fn keys(&self) -> Vec<String> {
        let keys = |(name, named): &(String, Named)| match named {
            Named::Section(table) => table.keys().iter().map(|key| format!("{name}.{key}")).collect(),
            Named::Setting(_) => vec![name.clone()],
        };
        self.0.iter().flat_map(keys).collect()
    }
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor)
    }
}

struct TableVisitor;

impl<'de> Visitor<'de> for TableVisitor {
    type Value = Table;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
        let mut names = Vec::new();
        while let Some(entry) = map.next_entry()? {
            names.push(entry);
        }
        Ok(Table(names))
    }
}
