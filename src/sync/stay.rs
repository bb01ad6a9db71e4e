//! Whether the account was ever in a room.

use ruma::RoomId;

use crate::matrix::{Client, Error, Event, MessagesRequest, Token};

/// Events a page. They are few where the server heeds the filter, and any where it does not.
const PAGE: u32 = 100;
/// As many events of the largest size that the specification allows.
const MOST_BYTES: usize = 8 << 20;
/// After as many pages the account counts as having been there: rather too much is archived than too little.
const MOST_PAGES: usize = 10_000;

/// Whether the account was in a room that it is not in now: the room's history holds its join. No answer of `/sync` may tell,
/// where an invite has taken the leave's place; and Synapse gives the state also to who has declined an invite and nothing more.
pub(super) async fn was_in(client: &Client, user_id: &str, room_id: &RoomId) -> Result<bool, Error> {
    let filter = serde_json::json!({ "types": ["m.room.member"], "senders": [user_id] }).to_string();
    let is_join = |event: &Event| event.membership() == Some((user_id, "join".to_owned()));
    let mut from: Option<Token> = None;
    for _ in 0..MOST_PAGES {
        let request = MessagesRequest {
            room_id,
            from: from.as_ref().map(Token::as_str),
            to: None,
            limit: PAGE,
            most_bytes: MOST_BYTES,
            filter: Some(&filter),
            forward: false,
        };
        let page = client.messages(&request).await?;
        if page.chunk.events.iter().any(is_join) {
            return Ok(true);
        }
        if page.end.is_none() || page.end == from {
            return Ok(false);
        }
        from = page.end;
    }
    Ok(true)
}
