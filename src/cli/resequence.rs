//! `backscroll resequence`

use ruma::OwnedRoomId;

use crate::{
    Exit,
    backfill::resequence,
    config::Config,
    daemon::{self, Store},
    telemetry::Telemetry,
};

/// Give a room exactly the homeserver's order.
///
/// The archive never moves an event that it has placed, so what came late stands where it was when it was found.
/// This reads the room's whole order anew and then rewrites all positions of the room at once; a reader that pages by
/// position should begin again. Events that the homeserver does not list any more stay above their old neighbour. An
/// interrupted run is resumed by the next.
#[derive(Debug, clap::Args)]
pub(super) struct Resequence {
    /// Room id, such as '!abc:example.org'
    room: OwnedRoomId,
}

impl Resequence {
    pub(super) async fn run(self, config: Config, telemetry: &Telemetry) -> anyhow::Result<Exit> {
        // An archive that is not there is not made for this.
        Store::open_archive(&config).await?.close().await?;
        let read = async |context: &crate::context::Context| {
            if let Some(event_count) = resequence::run(context, &self.room).await? {
                tracing::info!(room.id = %self.room, event_count, "the room has the homeserver's order");
            }
            Ok(())
        };
        daemon::walk(config, telemetry, super::shutdown_on_signal()?, read).await?;
        Ok(Exit::Success)
    }
}
