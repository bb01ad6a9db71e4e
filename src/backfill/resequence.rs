//! Reads a room's whole order from the server for `backscroll resequence`, then rewrites the positions.

use std::{collections::HashSet, time::Duration};

use ruma::RoomId;

use crate::{
    Error,
    backoff::Backoff,
    context::Context,
    fetch::{
        page::page,
        page_size::PageSize,
        throttle::{Brought, Pace},
    },
    matrix,
};

/// How often a page without `end`, or with an `end` that leads back, is requested before the result counts.
const ASK_AGAIN: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// Gives the room the server's order: reads it from the newest event down, then rewrites all positions at once. An
/// interrupted run is resumed. Returns how many events have a new position. `None`: it was interrupted.
///
/// # Errors
/// An error that a retry cannot fix.
pub(crate) async fn run(context: &Context, room_id: &RoomId) -> Result<Option<u64>, Error> {
    let mut at = context.writer.open_resequence(room_id.as_str()).await?;
    let mut seen = HashSet::new();
    let (mut backoff, mut refusals, mut asked_again) = (Backoff::default(), Backoff::default(), 0);
    let mut pauses = Pace::default();
    let mut size = PageSize::new(context.config.backfill.page_size.into());
    loop {
        let asked = page(context, room_id, at.cursor.as_deref(), None, size).await;
        let Some((fetched, took)) = asked else { return Ok(None) };
        let page = match fetched {
            Ok(page) => {
                size.after_page(&page, took);
                page
            }
            Err(Error::Matrix(error)) if at.cursor.is_some() && is_dead(context, &error, &mut refusals) => {
                tracing::warn!(
                    room.id = %room_id, %error,
                    "the homeserver refuses the cursor; beginning anew"
                );
                at = context.writer.restart_resequence(&at).await?;
                seen.clear();
                refusals.reset();
                backoff.reset();
                continue;
            }
            Err(error) => {
                let smaller = matches!(&error, Error::Matrix(error) if size.after_error(error));
                if !smaller {
                    context.recover(error, &mut backoff).await?;
                }
                continue;
            }
        };
        backoff.reset();
        refusals.reset();
        let end = page.end.as_ref().map(|end| end.as_str().to_owned());
        let leads_back =
            end.as_ref().is_some_and(|end| at.cursor.as_ref() == Some(end) || seen.contains(end));
        let next = end.as_deref().filter(|_| !leads_back);
        let read = context.writer.apply_resequence_page(&mut at, &page, next).await?;
        tracing::info!(
            room.id = %room_id, event_count = read.added, page_count = at.pages,
            "read the order of a page"
        );
        if end.is_none() && read.create_passed {
            return Ok(Some(context.writer.finish_resequence(&at).await?));
        }
        if let Some(next) = &at.cursor
            && !leads_back
            && end.is_some()
        {
            seen.insert(next.clone());
            asked_again = 0;
            let brought = if read.added > 0 { Brought::News } else { Brought::Onward };
            context.pause(pauses.pause(brought, took)).await;
            continue;
        }
        asked_again += 1;
        if asked_again < ASK_AGAIN {
            context.pause(PAUSE * asked_again).await;
            continue;
        }
        if leads_back {
            return Err(matrix::Error::Malformed(
                "/messages: its tokens lead back to where they began".into(),
            )
            .into());
        }
        // The server has purged or hides older events. Those in the archive stay at the bottom.
        return Ok(Some(context.writer.finish_resequence(&at).await?));
    }
}

/// Whether the server has refused the cursor so often that it counts as dead.
fn is_dead(context: &Context, error: &matrix::Error, refusals: &mut Backoff) -> bool {
    if !error.is_bad_token() {
        return false;
    }
    refusals.fail();
    matches!(error, matrix::Error::UnusableToken) || context.retries.is_believed(refusals)
}
