//! One page of a room's history, as walks and resequencing ask for it.

use std::time::{Duration, Instant};

use ruma::RoomId;

use super::{page_size::PageSize, unedit};
use crate::{
    Error,
    context::Context,
    matrix::{MessagesRequest, Page},
};

/// The page at `from`, as large as `size` says and with the events' own content, and the time that it took. `None`: the
/// daemon is to stop.
pub(crate) async fn page(
    context: &Context,
    room_id: &RoomId,
    from: Option<&str>,
    to: Option<&str>,
    size: PageSize,
) -> Option<(Result<Page, Error>, Duration)> {
    let limit = size.limit(context.active_rooms.is_active(room_id));
    let request = MessagesRequest { room_id, from, to, limit, most_bytes: size.most_bytes(), filter: None };
    let start = Instant::now();
    let page = context.unless_stopped(ask(context, &request)).await?;
    Some((page, start.elapsed()))
}

async fn ask(context: &Context, request: &MessagesRequest<'_>) -> Result<Page, Error> {
    let mut page = context.client.messages(request).await?;
    unedit::undo(context, request.room_id, &mut page.chunk).await?;
    Ok(page)
}
