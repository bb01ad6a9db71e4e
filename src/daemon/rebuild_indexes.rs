//! Rebuilds indexes that inserting has left half empty, when no history is being fetched. Runs beside the loops.

use std::time::{Duration, Instant};

use crate::{Error, archive, context::Context};

/// How often it looks for an index to rebuild.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// How often it checks whether the archive has caught up.
const CAUGHT_UP: Duration = Duration::from_secs(1);
/// How long it waits after an error.
const AFTER_ERROR: Duration = Duration::from_secs(3600);

/// Runs until shutdown. Returns at once if `database.rebuild_indexes` is false, and once it finds that its role may not
/// rebuild an index. An index that cannot be rebuilt ends nothing else.
///
/// # Errors
/// Another Backscroll has become the writer.
pub(super) async fn rebuild(context: &Context) -> Result<(), Error> {
    if !context.config.database.rebuild_indexes {
        return Ok(());
    }
    let prepare = async || {
        context.writer.note_index_builds().await?;
        context.writer.archive().drop_unfinished_indexes().await
    };
    let mut is_prepared = false;
    loop {
        let step = async {
            if !is_prepared {
                prepare().await?;
                is_prepared = true;
            }
            rebuild_next(context).await
        };
        let pause = match context.unless_stopped(step).await {
            None | Some(Ok(Next::NotOurs)) => return Ok(()),
            Some(Ok(Next::Rebuilt { rest })) => rest,
            Some(Ok(Next::CatchingUp)) => CAUGHT_UP,
            Some(Ok(Next::None)) => LOOK_AGAIN,
            Some(Err(error @ archive::Error::LeaseTaken { .. })) => return Err(error.into()),
            Some(Err(error)) => {
                context.writer.failed(&error);
                tracing::warn!(
                    %error, retry_in_s = AFTER_ERROR.as_secs(),
                    "an index that is half empty cannot be rebuilt now"
                );
                AFTER_ERROR
            }
        };
        if context.unless_stopped(tokio::time::sleep(pause)).await.is_none() {
            return Ok(());
        }
    }
}

/// What became of the next index to rebuild.
enum Next {
    /// The archive has to catch up first.
    CatchingUp,
    /// There is none.
    None,
    /// This role may not rebuild it.
    NotOurs,
    Rebuilt {
        /// How long to leave the database to the loops.
        rest: Duration,
    },
}

async fn rebuild_next(context: &Context) -> Result<Next, archive::Error> {
    if !context.sync_is_current() {
        return Ok(Next::CatchingUp);
    }
    let archive = context.writer.archive();
    // Somebody may have rebuilt it since.
    let Some(_) = archive.half_empty_index().await? else { return Ok(Next::None) };
    context.writer.note_index_builds().await?;
    let Some(index) = archive.half_empty_index().await? else { return Ok(Next::None) };
    let (name, bytes) = (&index.name, index.bytes);
    if !index.is_ours {
        tracing::info!(
            index = name,
            bytes,
            "an index is half empty, and only its owner may rebuild it: `reindex table concurrently archive.events`, and archive.activity"
        );
        return Ok(Next::NotOurs);
    }
    let begun = Instant::now();
    context.writer.rebuild_index(&index).await?;
    let (bytes_now, took_s) = (archive.index_bytes(name).await?, begun.elapsed().as_secs_f64());
    tracing::info!(index = name, bytes, bytes_now, took_s, "rebuilt an index that was half empty");
    Ok(Next::Rebuilt { rest: begun.elapsed() })
}
