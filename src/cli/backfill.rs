//! `backscroll backfill`

use ruma::OwnedRoomOrAliasId;

use crate::{
    Exit, archive::Span, backfill::operator, config::Config, daemon, matrix::Token, telemetry::Telemetry,
};

/// Walk one room's history from a pagination token, or all of it anew.
///
/// A room that the archive does not have yet is taken up: one that the account is in, or one whose history everybody may read
/// (history visibility `world_readable`), without joining it. `run` then follows the first kind; of the second, /sync reports
/// nothing, so it is walked again from time to time (`backfill.rewalk_after`), or whenever you run this again.
///
/// Events that are in the archive already stay as they are. An interrupted walk is resumed by the next `run` or
/// `backfill`; what goes by what /sync reports, such as the later passes through a gap, waits for `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Backfill {
    /// Room id or alias, such as '!abc:example.org' or '#abc:example.org'
    room: OwnedRoomOrAliasId,

    /// Token to begin at, such as a `prev_batch` from /sync or an `end` from /messages [default: the newest event]
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
    Token::new(text).ok_or("a token is neither empty nor so long that no URL can hold it")
}
