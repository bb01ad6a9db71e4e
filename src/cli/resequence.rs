//! `backscroll resequence`

use ruma::OwnedRoomId;

use crate::{
    Exit,
    backfill::resequence,
    config::Config,
    daemon::{self, Store},
    telemetry::Telemetry,
};

/// Rewrite the positions of a room to match exactly the homeserver's order.
///
/// The archive never moves an event on its own, so an event that arrived late stays where it was first placed. This
/// command reads the room's whole order again and then rewrites all its positions at once. A reader that pages by
/// position should start over. Events that the homeserver no longer lists stay above the event that was below them.
/// The next run of this command resumes an interrupted one.
#[derive(Debug, clap::Args)]
pub(super) struct Resequence {
    /// Room id, such as '!abc:example.org'
    room: OwnedRoomId,
}

impl Resequence {
    pub(super) async fn run(self, config: Config, telemetry: &Telemetry) -> anyhow::Result<Exit> {
        // This command needs an existing archive and creates none.
        Store::open_archive(&config).await?.close().await?;
        let read = async |context: &crate::context::Context| {
            if let Some(event_count) = resequence::run(context, &self.room).await? {
                tracing::info!(room.id = %self.room, event_count, "the room now has the homeserver's order");
            }
            Ok(())
        };
        daemon::walk(config, telemetry, super::shutdown_on_signal()?, read).await?;
        Ok(Exit::Success)
    }
}
