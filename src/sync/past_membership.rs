//! Whether the account was ever in a room.

use std::time::Instant;

use ruma::RoomId;

use crate::{
    fetch::throttle::{Brought, Pace},
    matrix::{Client, Error, Event, Membership, MessagesRequest, Token},
    telemetry::pulse,
};

/// Events per page. A server that applies the filter returns few; one that ignores it returns all of them.
const PAGE: u32 = 1000;
/// The most bytes to read of one response; [`PAGE`] events of the usual size have fewer.
const MOST_BYTES: usize = 32 << 20;
/// How many responses without a next page count as the end of the history. A single one may be wrong.
const ENDS: u32 = 3;
/// After this many pages the account counts as having been in the room: better to archive too much than too little.
const MOST_PAGES: usize = 1000;

/// Whether the account was once in a room that it is not in now: then the room's history contains its join. `/sync`
/// may not show that, because a later invite replaces the leave. `/state` does not show it either: Synapse returns
/// the state also to an account that has only declined an invite.
pub(super) async fn was_in(client: &Client, user_id: &str, room_id: &RoomId) -> Result<bool, Error> {
    let filter = serde_json::json!({ "types": ["m.room.member"], "senders": [user_id] }).to_string();
    let is_join = |event: &Event| event.membership() == Some((user_id, Membership::Join));
    let mut from: Option<Token> = None;
    let (mut pauses, mut seen, mut ends) = (Pace::default(), None, 0);
    for _ in 0..MOST_PAGES {
        let request = MessagesRequest {
            room_id,
            from: from.as_ref().map(Token::as_str),
            to: None,
            limit: PAGE,
            most_bytes: MOST_BYTES,
            filter: Some(&filter),
        };
        let start = Instant::now();
        let page = client.messages(&request).await?;
        if page.chunk.events.iter().any(is_join) {
            return Ok(true);
        }
        if page.end.is_none() || page.end == from {
            ends += 1;
            if ends >= ENDS {
                return Ok(false);
            }
        } else {
            ends = 0;
            from = page.end;
        }
        let oldest = page.chunk.events.last().map(|event| event.event_id.clone());
        let leads_down = oldest.is_some() && oldest != seen;
        let brought = if leads_down { Brought::News } else { Brought::Onward };
        seen = oldest.or(seen);
        let pause = pauses.pause(brought, start.elapsed());
        pulse::within(pause);
        tokio::time::sleep(pause).await;
    }
    Ok(true)
}
