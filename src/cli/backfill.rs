//! `backscroll backfill`

use ruma::OwnedRoomOrAliasId;

use crate::{
    Exit, archive::Span, backfill::operator, config::Config, daemon, matrix::Token, telemetry::Telemetry,
};

/// Walk one room's history again: all of it, or from a pagination token.
///
/// If the archive does not have the room yet, it is added. The account must be in the room, or the room's history
/// must be readable by everybody (history visibility `world_readable`). `run` then follows a room that the account is
/// in. A room that it is not in does not appear in /sync, so it is walked again from time to time
/// (`backfill.rewalk_after`), or when you run this command again.
///
/// Events that are archived already stay as they are. The next `run` or `backfill` resumes an interrupted walk. Walks
/// that depend on /sync, such as the later passes through a gap, wait for `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Backfill {
    /// Room id or alias, such as '!abc:example.org' or '#abc:example.org'
    room: OwnedRoomOrAliasId,

    /// Token to start from, such as a `prev_batch` from /sync or an `end` from /messages [default: the newest event]
    #[arg(long, value_name = "TOKEN", value_parser = token)]
    from: Option<Token>,

    /// Token to stop at [default: the room's start]
    #[arg(long, value_name = "TOKEN", value_parser = token)]
    to: Option<Token>,
}

impl Backfill {
    pub(super) async fn run(self, config: Config, telemetry: &Telemetry) -> anyhow::Result<Exit> {
        let open = async |context: &crate::context::Context| {
            let span = Span { from: self.from.as_ref(), to: self.to.as_ref() };
            operator::open(context, &self.room, span).await
        };
        daemon::walk(config, telemetry, super::shutdown_on_signal()?, open).await?;
        Ok(Exit::Success)
    }
}

fn token(text: &str) -> Result<Token, &'static str> {
    Token::new(text).ok_or("the token is empty or too long for a URL")
}
