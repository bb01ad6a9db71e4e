//! `backscroll backfill`

use std::process::ExitCode;

use ruma::OwnedRoomId;

use crate::{config::Config, daemon, matrix::Token, telemetry::Telemetry};

/// Walk one room's history from a pagination token, or all of it anew.
///
/// Events that are in the archive already stay as they are. An interrupted walk is gone on with by the next `run` or
/// `backfill`; what goes by what /sync tells, such as the later passes through a gap, waits for `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Backfill {
    /// Room id, such as '!abc:example.org'
    room: OwnedRoomId,

    /// Token to begin at, such as a `prev_batch` from /sync or an `end` from /messages [default: the newest event]
    #[arg(long, value_name = "TOKEN", value_parser = token)]
    from: Option<Token>,

    /// Token to stop at [default: the room's start]
    #[arg(long, value_name = "TOKEN", value_parser = token)]
    to: Option<Token>,
}

impl Backfill {
    pub(super) async fn run(self, config: Config, telemetry: &Telemetry) -> anyhow::Result<ExitCode> {
        let open = async |context: &daemon::Context| {
            let (from, to) = (self.from.as_ref(), self.to.as_ref());
            context.writer.open_operator_walk(self.room.as_str(), from, to).await.map_err(Into::into)
        };
        daemon::walk(config, telemetry, super::shutdown_on_signal()?, open).await?;
        Ok(ExitCode::SUCCESS)
    }
}

fn token(text: &str) -> Result<Token, &'static str> {
    Token::new(text).ok_or("a token is not empty")
}
