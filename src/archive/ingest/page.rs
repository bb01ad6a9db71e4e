//! Stores a page of `/messages`: the events with their positions, and the new checkpoint of the walk.

use std::time::Duration;

use sqlx::PgConnection;

use crate::{
    archive::{
        Error, Walk, WalkKind, WalkState, Writer,
        event::{
            self,
            lookup::{self, LookupScope, look_up},
            quarantine,
            row::with_positions,
        },
        redaction, room,
        timeline::{
            neighbours::{self, walk_down},
            position::{self, Below, Place},
        },
        walk::{
            self,
            advance::{self, Passed},
            gap::{self, Top},
        },
    },
    config::Backfill,
    matrix::Page,
};

/// A page of `/messages` to store.
#[derive(Clone, Copy)]
struct FetchedPage<'a> {
    /// The walk that requested it.
    walk: &'a Walk,
    page: &'a Page,
    /// How long fetching it took.
    busy: Duration,
    settings: &'a Backfill,
}

impl Writer {
    /// Stores a page of `walk`, or [several as one](Page::append), and moves the checkpoint, in one transaction.
    /// `busy`: how long fetching it took. Returns the walk with its new checkpoint.
    ///
    /// # Errors
    /// [`Error::CheckpointMoved`] if the checkpoint differs from that in `walk`, which must then be read again.
    /// [`Error::Unwatched`] if the room was paused or removed meanwhile. [`Error::YieldToNewerGap`] if another walk
    /// must go first.
    pub(crate) async fn apply_page(
        &self,
        walk: &Walk,
        page: &Page,
        busy: Duration,
        settings: &Backfill,
    ) -> Result<Walk, Error> {
        let fetched = FetchedPage { walk, page, busy, settings };
        let asked = LookupScope::before(walk);
        match self.try_page(fetched, asked).await {
            // An event of the page was stored already after all. The transaction was rolled back. Retry, and look up
            // all events.
            Err(error) if asked == LookupScope::State && error.is_duplicate() => {
                self.try_page(fetched, LookupScope::All).await
            }
            stored => stored,
        }
    }

    async fn try_page(&self, fetched: FetchedPage<'_>, asked: LookupScope) -> Result<Walk, Error> {
        let walk = fetched.walk;
        let mut transaction = self.begin_in_room(&walk.room_id).await?;
        let after = match self.store_page(&mut transaction, fetched, asked).await {
            Ok(after) => after,
            Err(error) => {
                transaction.undo(Some(&error)).await;
                return Err(error);
            }
        };
        transaction.commit().await?;
        if after.state == WalkState::Stalled {
            tracing::warn!(room.id = %walk.room_id, error = after.last_error, "a walk has stalled");
        }
        Ok(after)
    }

    /// The same in the caller's transaction.
    async fn store_page(
        &self,
        connection: &mut PgConnection,
        fetched: FetchedPage<'_>,
        asked: LookupScope,
    ) -> Result<Walk, Error> {
        let FetchedPage { walk, page, busy, settings } = fetched;
        let mut room = room::get(connection, &walk.room_id).await?;
        if !room.watched {
            return Err(Error::Unwatched);
        }
        if gap::yields_to_newer_gap(connection, walk).await? {
            return Err(Error::YieldToNewerGap);
        }
        room::learn_version(connection, &mut room, &page.chunk.events).await?;
        for section in [&page.chunk, &page.state] {
            quarantine::keep(connection, self.policy(), &room, &section.malformed).await?;
        }
        self.store_unplaced(connection, &room, &page.state.events).await?;

        let mut after = walk.clone();
        let events = event::row::distinct(&page.chunk.events);
        let mut found = look_up(connection, &room.room_id, &events, asked, walk.upper_position).await?;
        let known = lookup::places(&events, &found.known);
        let placement = place_page(connection, walk, &known, found.below).await?;
        let positions = placement.as_ref().map_or(&[][..], |placement| &placement.positions);
        let placed = with_positions(&events, positions);
        let new = event::store(connection, self.policy(), &room, &placed, &mut found).await?;
        let upper = placement.as_ref().map(|placement| placement.upper);
        if let Some(last) = events.last() {
            after.upper_position = upper;
            after.oldest_ts = last.origin_server_ts.or(walk.oldest_ts);
        }
        // A walk through the whole history meets the redacted events themselves.
        let whole = matches!(walk.kind, WalkKind::History | WalkKind::Rewalk);
        if !whole && redaction::names_no_target(&room, &events, &found.known) {
            walk::rewalk_now(connection, &room.room_id).await?;
        }
        let passed = Passed {
            end: page.end.as_ref(),
            answers: page.answers,
            events: events.len(),
            new,
            bottom_passed: bottom_passed(connection, walk, page, upper).await?,
            lower_passed: lower_passed(connection, walk, &known, upper).await?,
        };
        let pause_s = advance::after_page(connection, &mut after, &passed, settings).await?;
        if after.cursor == walk.cursor {
            // The same page is requested again. New events on it then belong among those of this page, not below them.
            after.upper_position = walk.upper_position;
        }
        walk::save(connection, walk, &after, busy, pause_s).await?;
        after.due_in_s = pause_s;
        Ok(after)
    }
}

/// Places a page below the events that the walk has passed. `None`: the walk's position is not known yet. A later
/// walk with a known position will place these events.
async fn place_page(
    connection: &mut PgConnection,
    walk: &Walk,
    places: &[Place],
    below: Option<Below>,
) -> Result<Option<position::Placement>, Error> {
    let upper = match walk.upper_position {
        Some(upper) => upper,
        None => match edge_above(connection, walk, places).await? {
            Some(edge) => edge,
            None => return Ok(None),
        },
    };
    let placement = go_down(connection, &walk.room_id, upper, places, below).await?;
    let unplaced = placement.positions.iter().filter(|position| position.is_none()).count();
    if unplaced > 0 {
        tracing::warn!(
            room.id = %walk.room_id,
            event_count = unplaced,
            "events could not be placed in the room's order: no position is left between their neighbours"
        );
    }
    Ok(Some(placement))
}

/// Places a page, newest first, of a walk that has come down to `upper`. A page that repeats the event at `upper` and
/// has new events above it ([`position::repeated`]) is placed in two parts, above and below `upper`. Each part passes
/// different events, so the two never use the same space between neighbours.
async fn go_down(
    connection: &mut PgConnection,
    room_id: &str,
    upper: i64,
    places: &[Place],
    below: Option<Below>,
) -> Result<position::Placement, Error> {
    let Some((count, known)) = position::repeated(upper, places) else {
        return walk_down(connection, room_id, upper, places, below).await;
    };
    let above = neighbours::above(connection, room_id, known).await?;
    let again = walk_down(connection, room_id, above, &places[..count], None).await?;
    // `again.upper` is lower than `upper` if the walk has begun just below an event of the page, and the page has known
    // events above that.
    let mut placement = walk_down(connection, room_id, again.upper, &places[count..], None).await?;
    placement.positions.splice(..0, again.positions);
    Ok(placement)
}

/// The position at which a walk without a known position begins. If its first page has a known event, it is above that
/// event. Otherwise:
///
/// * at the upper edge of the gap whose token it has;
/// * above all events, if the walk began at the newest event or at `since`;
/// * below, if it began at a token of the operator.
///
/// `None`: the token may be from within a gap or, if nothing is missing below, newer than all events. A walk from
/// above will show it.
async fn edge_above(
    connection: &mut PgConnection,
    walk: &Walk,
    places: &[Place],
) -> Result<Option<i64>, Error> {
    if let Some(position) = places.iter().find_map(|place| place.position()) {
        return neighbours::above(connection, &walk.room_id, position).await.map(Some);
    }
    if let Some(edge) = gap::edge_at(connection, walk).await? {
        return Ok(Some(edge));
    }
    let from_top = walk.cursor.is_none() || walk.kind != WalkKind::Operator;
    let Top { newest, upper_edge, .. } = gap::top(connection, &walk.room_id).await?;
    match newest {
        Some((_, newest)) if from_top => neighbours::above(connection, &walk.room_id, newest).await.map(Some),
        Some(_) if upper_edge.is_some() => Ok(None),
        Some(_) if neighbours::create_position(connection, &walk.room_id).await?.is_some() => Ok(None),
        _ => neighbours::lowest(connection, &walk.room_id).await.map(Some),
    }
}

/// Whether a walk has reached its end when the server returns no more events: its `to`, the room's start, or the
/// events below its gap. That other walks have been there before is no proof.
async fn bottom_passed(
    connection: &mut PgConnection,
    walk: &Walk,
    page: &Page,
    upper: Option<i64>,
) -> Result<bool, Error> {
    if page.end.is_some() {
        return Ok(false);
    }
    if walk.to_token.is_some() || page.chunk.events.iter().any(|event| event.is_state("m.room.create")) {
        return Ok(true);
    }
    let Some(upper) = upper else { return Ok(false) };
    if neighbours::create_position(connection, &walk.room_id).await?.is_some_and(|create| create >= upper) {
        return Ok(true);
    }
    if walk.gap_id.is_none() {
        return Ok(false);
    }
    gap::is_passed(connection, walk, upper).await
}

/// Whether a gap's walk has reached the events below the gap, or a walk through the whole history has reached events
/// that were placed before.
async fn lower_passed(
    connection: &mut PgConnection,
    walk: &Walk,
    known: &[Place],
    upper: Option<i64>,
) -> Result<bool, Error> {
    if walk.kind == WalkKind::History {
        return Ok(known.iter().any(|place| place.position().is_some()));
    }
    let (Some(_), Some(upper)) = (walk.gap_id, upper) else { return Ok(false) };
    let lower = gap::lower_position(connection, walk).await?;
    Ok(lower.is_some_and(|lower| upper <= lower))
}
