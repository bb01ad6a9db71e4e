//! `backscroll status`

mod render;

use anyhow::Context as _;

use crate::{
    Error, Exit, archive,
    config::{Config, RedactionPolicy},
    daemon::{NoArchive, Store},
    text::{Canvas, print, write_escaped_json},
};

/// Show how much of each room is archived.
///
/// One line for each room: the state of its history, the number of archived events, and the day of the oldest one.
/// The states are: walking (being fetched), complete (the room's first event is archived), truncated (the homeserver
/// returns no older events), stalled (fetching failed) and paused (by command). Works whether the daemon is running
/// or not, and changes nothing.
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// Print one JSON object, for scripts
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<Exit> {
        let status = read(config).await?;
        let text = match &status {
            _ if self.json => json(&status.unwrap_or_default())?,
            Err(missing) => format!("Nothing is archived yet: {missing}\n\n{FIRST_STEPS}"),
            Ok(status) => {
                render::page(status, config.redactions == RedactionPolicy::Retain, Canvas::stdout())
            }
        };
        print(&text)?;
        Ok(Exit::Success)
    }
}

const FIRST_STEPS: &str = "  backscroll check   checks whether everything is set up\n  \
                             backscroll run     archives until you stop it\n";

/// The archive's status, or the error that there is no archive yet.
async fn read(config: &Config) -> anyhow::Result<Result<archive::Status, NoArchive>> {
    let store = match Store::open_archive(config).await {
        Ok(store) => store,
        Err(error) => return Ok(Err(error.downcast::<NoArchive>()?)),
    };
    let status = store.archive.status().await;
    store.close().await?;
    match status {
        Err(error) if is_other_schema(&error) => Err(Error::from(error))
            .context(
                "the archive's schema is that of another version: `backscroll check` shows which, `backscroll migrate` \
                 updates an older one",
            ),
        status => Ok(Ok(status.map_err(Error::from)?)),
    }
}

/// Whether a table, column or function of this version's schema is missing.
fn is_other_schema(error: &archive::Error) -> bool {
    let archive::Error::Database(sqlx::Error::Database(error)) = error else { return false };
    error.code().is_some_and(|code| matches!(&*code, "42P01" | "42703" | "42883"))
}

/// One line of JSON. Characters that could control a terminal occur only in strings, where they are escaped.
fn json(status: &archive::Status) -> serde_json::Result<String> {
    let mut text = String::new();
    write_escaped_json(&mut text, &serde_json::to_string(status)?).expect("a string takes all");
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::needs_escape;

    #[test]
    fn json_stays_the_same_and_is_harmless() {
        let user_id = Some("@a\u{202e}b\u{9b}\n:hs".to_owned());
        let status = archive::Status { user_id: user_id.clone(), ..archive::Status::default() };
        let text = json(&status).unwrap();
        assert_eq!(text.trim_end().chars().find(|c| needs_escape(*c)), None, "{text}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["user_id"].as_str(), user_id.as_deref());
        assert_eq!(read["rooms"], serde_json::json!([]));
    }
}
