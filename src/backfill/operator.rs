//! Opens a walk for `backscroll backfill`, after checking that the homeserver shows the room and accepts the tokens.

use ruma::{OwnedRoomId, RoomAliasId, RoomId, RoomOrAliasId};

use crate::{
    Error,
    archive::{self, Shown, Span},
    context::Context,
    matrix::{self, Events, MessagesRequest},
};

/// The largest page of one event to read, in bytes. An event is far smaller (specification, "Size limits").
const PAGE_BYTES: usize = 4 << 20;

/// Opens a walk in a room. A room that the archive does not have is added, if the account is in it or everybody may
/// read it.
///
/// # Errors
/// Why this is not possible, and what to do. Nothing was written then.
pub async fn open(context: &Context, room: &RoomOrAliasId, span: Span<'_>) -> Result<(), Error> {
    let archive = context.writer.archive();
    let Some(room_id) = find(context, room).await? else { return Ok(()) };
    let is_followed = archive.is_followed(room_id.as_str()).await?;
    let Some(joined) = ask(context, || context.client.joined_rooms()).await? else { return Ok(()) };
    let is_joined = joined?.contains(&room_id);
    if !is_joined || span.from.is_some() || span.to.is_some() {
        let Some(tried) = ask_for_one(context, &room_id, span).await? else { return Ok(()) };
        match tried {
            // If the account is in the room, one refusal is no proof: the homeserver may pass on that of another
            // server.
            Err(error) if !is_joined && (error.is_forbidden() || error.is_not_found()) => {
                let (room, answer) = (room.to_string(), words(&error));
                return Err(archive::Error::NotReadable { room, answer }.into());
            }
            Err(error) if error.is_bad_token() => {
                let (room, answer) = (room.to_string(), words(&error));
                return Err(archive::Error::RefusedToken { room, answer }.into());
            }
            _ => {}
        }
    }
    let state = if is_followed {
        None
    } else {
        let Some(state) = state(context, &room_id).await? else { return Ok(()) };
        Some(state)
    };
    let shown = state.as_ref().map(|state| Shown { is_joined, state: state.as_ref() });
    let Some(account) = archive.account().await? else { return Ok(()) };
    let (choices, _) = archive.choices(account.account_key).await?;
    let rooms = context.config.rooms.with_choices(choices);
    context.writer.open_operator_walk(&account, &rooms, room_id.as_str(), span, shown).await?;
    Ok(())
}

/// The room's id. An alias is looked up in the archive, then on the homeserver. `None`: the process shuts down.
async fn find(context: &Context, room: &RoomOrAliasId) -> Result<Option<OwnedRoomId>, Error> {
    let Ok(alias) = <&RoomAliasId>::try_from(room.as_str()) else {
        let room_id =
            RoomId::parse(room.as_str()).map_err(|_| archive::Error::NoSuchRoom(room.to_string()))?;
        return Ok(Some(room_id));
    };
    let known = context.writer.archive().room_called(alias.as_str()).await?;
    if let Some(room_id) = known.and_then(|room_id| RoomId::parse(room_id).ok()) {
        return Ok(Some(room_id));
    }
    match ask(context, || context.client.resolve(alias)).await? {
        None => Ok(None),
        Some(Err(error)) if error.is_not_found() || error.is_bad_token() => {
            Err(archive::Error::NoSuchAlias(alias.to_string()).into())
        }
        Some(answer) => Ok(Some(answer?)),
    }
}

/// Requests one event at the place where the walk would begin.
async fn ask_for_one(
    context: &Context,
    room_id: &RoomId,
    span: Span<'_>,
) -> Result<Option<Result<(), matrix::Error>>, Error> {
    let request = MessagesRequest {
        room_id,
        from: span.from.map(matrix::Token::as_str),
        to: span.to.map(matrix::Token::as_str),
        limit: 1,
        most_bytes: PAGE_BYTES,
        filter: None,
    };
    let tried = ask(context, || context.client.messages(&request)).await?;
    Ok(tried.map(|tried| tried.map(|_| ())))
}

/// The room's state. The inner `None`: the account may not see it. The outer `None`: the process shuts down.
async fn state(context: &Context, room_id: &RoomId) -> Result<Option<Option<Events>>, Error> {
    match ask(context, || context.client.state(room_id)).await? {
        None => Ok(None),
        Some(Err(error)) if error.is_forbidden() || error.is_not_found() => Ok(Some(None)),
        Some(answer) => Ok(Some(Some(answer?))),
    }
}

/// Sends a request and retries until there is a response. A refusal counts as a response. `None`: the process shuts
/// down.
async fn ask<T, R>(
    context: &Context,
    request: impl Fn() -> R,
) -> Result<Option<Result<T, matrix::Error>>, Error>
where
    R: Future<Output = Result<T, matrix::Error>>,
{
    let is_answer =
        |error: &matrix::Error| error.is_forbidden() || error.is_not_found() || error.is_bad_token();
    let answer = context.retry(async || match context.unless_stopped(request()).await {
        Some(Err(error)) if !is_answer(&error) => Err(error.into()),
        answer => Ok(answer),
    });
    Ok(answer.await?.flatten())
}

/// The homeserver's error in words.
fn words(error: &matrix::Error) -> String {
    match error {
        matrix::Error::Api { status, errcode, message } => format!("{status} {errcode}: {message}"),
        error => format!("failed to {error}"),
    }
}
