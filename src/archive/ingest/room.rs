//! Stores one room's part of a `/sync` response, in the transactions of [`Intake`](crate::archive::Intake).
//!
//! [`Decision::of`] decides what to do with it. A room that is new to the archive gets a bootstrap: its state is
//! stored, and a history walk is opened. Otherwise the timeline is appended, and a gap is opened if events are
//! missing before it. Both move the current state.

use std::collections::{BTreeMap, HashSet};

use sqlx::PgConnection;

use super::{
    overlap::{self, Overlap},
    portion::Portion,
    response::{Afterwards, Response},
    room_update::{discontinuity, may_repeat, rejoined, state_is_partial},
    silent_gap,
};
use crate::{
    archive::{
        Error, HistoryState, SyncOutcome, WalkKind, Writer,
        event::{self, lookup, quarantine},
        redaction,
        room::{self, Room, choice, current_state::Cause, history, stripped},
        timeline::position,
        walk::{
            self, NewWalk,
            gap::{self, NewGap},
            operator,
        },
        writer::lock_rooms,
    },
    config::Rooms,
    matrix::{
        Membership, RoomBatch, Section, room_state,
        room_update::{after, canonical_alias, last_of_own, membership, own, state_events},
    },
};

/// What to do with a room's part of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// An invite or a knock. Its stripped state is stored if the room is wanted.
    Invited { is_wanted: bool },
    /// The account has left a room that it never joined, according to the response: it declined an invite, or its
    /// knock was rejected. Nothing is stored.
    NeverJoined,
    /// The response lacks the create event of a new room, or shows a new alias that may change whether the room is
    /// wanted. Nothing is stored. The next request asks for the whole state.
    NeedFullState,
    /// The room is not wanted. Nothing is stored.
    NotWatched,
    /// The room is new to the archive. Its events are stored without positions, and a history walk is opened.
    Bootstrap,
    /// The archive has the room. The timeline is appended.
    Append,
}

impl Decision {
    fn of(response: &Response<'_>, before: &Room, update: &RoomBatch) -> Self {
        let is_wanted =
            |aliases: &[&str]| room::is_wanted(response.rooms, &before.room_id, aliases.iter().copied());
        if matches!(update.section, Section::Invite | Section::Knock) {
            let aliases: Vec<&str> = room_state::stripped_aliases(&update.stripped).collect();
            return Self::Invited { is_wanted: is_wanted(&aliases) };
        }
        let has_create = state_events(update).any(|event| event.is_state("m.room.create"));
        // A limited timeline may have left the join out. Only the whole state shows it then.
        let shows_all = response.full || !update.limited;
        if !before.bootstrapped
            && before.membership != Membership::Join
            && update.section == Section::Leave
            && !update.is_unread()
            && !has_create
            && own(update, &response.account.user_id, Membership::Join).next().is_none()
            && shows_all
        {
            return Self::NeverJoined;
        }
        let alias = canonical_alias(update);
        let is_wanted = is_wanted(alias.as_slice());
        // Without the whole state, a response without an alias does not mean that the room has none.
        let has_whole_state = response.full || has_create;
        if !has_whole_state && alias.is_some() && is_wanted != before.watched {
            return Self::NeedFullState;
        }
        let is_watched = if has_whole_state { is_wanted } else { before.watched };
        if !is_watched {
            Self::NotWatched
        } else if before.bootstrapped {
            Self::Append
        } else if has_whole_state {
            Self::Bootstrap
        } else {
            Self::NeedFullState
        }
    }
}

impl Writer {
    /// Stores a room's part of a response, or sets in `outcome` that the whole state is needed first.
    pub(in crate::archive) async fn apply_room(
        &self,
        connection: &mut PgConnection,
        portion: &mut Portion,
        response: &Response<'_>,
        before: Room,
        update: &RoomBatch,
        (outcome, afterwards): (&mut SyncOutcome, &mut Afterwards),
    ) -> Result<(), Error> {
        let rejoined = rejoined(response, &before, update, &portion.found(before.room_key).known);
        let mut room = before.clone();
        room.membership = membership(update, &response.account.user_id);
        if room.membership == Membership::Join {
            room.left_since = None;
        } else if before.membership == Membership::Join || rejoined {
            room.left_since.clone_from(&response.account.since);
        }
        let decision = Decision::of(response, &before, update);
        let was_invited = before.membership.is_pending();
        if was_invited || matches!(decision, Decision::Invited { .. }) {
            let is_shown = decision == Decision::Invited { is_wanted: true };
            let shown = if is_shown { update.stripped.as_slice() } else { &[] };
            stripped::set_stripped(connection, &room, shown).await?;
        }
        match decision {
            Decision::Invited { is_wanted } => {
                if is_wanted {
                    quarantine::keep(connection, self.policy(), &room, &update.set_aside).await?;
                }
                if !before.bootstrapped {
                    room.watched = is_wanted;
                }
                portion.changes.set(&room);
                return Ok(());
            }
            Decision::NeedFullState => {
                outcome.needs_full_state = true;
                return Ok(());
            }
            Decision::NeverJoined | Decision::NotWatched => {
                if was_invited && update.section == Section::Leave {
                    // `/sync` reported the invite or knock instead of an earlier membership, so the account may have
                    // been in the room before. Only the room's state and history show it.
                    choice::mark_left_room_stale(connection, response.rooms, room.room_key, &room.room_id)
                        .await?;
                }
                room.watched = decision == Decision::NeverJoined;
                portion.changes.set(&room);
                return Ok(());
            }
            Decision::Bootstrap | Decision::Append => room.watched = true,
        }
        if let Some(create) = state_events(update).find(|event| event.is_state("m.room.create")) {
            room.room_version = Some(room_state::declared_version(create));
        }
        // A room of a first response counts as bootstrapped only after the whole response is stored.
        room.bootstrapped |= !response.is_first();
        portion.changes.set(&room);
        if (was_invited || before.membership == Membership::Ban) && room.membership == Membership::Leave {
            // The server refuses the history to an invited or banned account. One that has left may read it again.
            walk::reopen_stalled(connection, Some(room.room_key)).await?;
        }
        self.keep_unread(connection, &room, update).await?;
        outcome.event_count += if decision == Decision::Append {
            self.follow(connection, portion, response, &before, &room, update, rejoined, afterwards).await?
        } else {
            self.bootstrap(connection, portion, response, &room, update, afterwards).await?
        };
        let was_compared = self.state_order().was_compared(&room.room_id);
        if move_state(portion, response, &before, update, rejoined, was_compared) && room.bootstrapped {
            portion.changes.stale(&room);
        }
        Ok(())
    }

    /// Stores unreadable parts in quarantine.
    async fn keep_unread(
        &self,
        connection: &mut PgConnection,
        room: &Room,
        update: &RoomBatch,
    ) -> Result<(), Error> {
        quarantine::keep(connection, self.policy(), room, &update.set_aside).await?;
        let sections = [Some(&update.state), Some(&update.timeline), update.state_after.as_ref()];
        for section in sections.into_iter().flatten() {
            quarantine::keep(connection, self.policy(), room, &section.malformed).await?;
        }
        Ok(())
    }

    /// Stores a room's first part: its events get no positions. The history walk will place them.
    async fn bootstrap(
        &self,
        connection: &mut PgConnection,
        portion: &mut Portion,
        response: &Response<'_>,
        room: &Room,
        update: &RoomBatch,
        afterwards: &mut Afterwards,
    ) -> Result<usize, Error> {
        let events = event::row::distinct(state_events(update));
        let new = self.gather(connection, portion, room, &events, &[]).await?;
        if portion.top(room.room_key).position().is_some() {
            match response.next_batch {
                Some(next_batch) => operator::hand_over(connection, room.room_key, next_batch).await?,
                None => afterwards.handed_over.push(room.room_key),
            }
        }
        // The walk begins at next_batch, not at prev_batch. Late events that sort early are neither below prev_batch
        // nor in this timeline (P160).
        match response.next_batch {
            Some(next_batch) => self.begin_history(connection, response.rooms, room, next_batch).await?,
            None if response.rooms.prev_batch(&room.room_id).is_some() => {
                afterwards.begun_by_operator.push(room.clone());
            }
            None => afterwards.begun.push(room.room_key),
        }
        Ok(new)
    }

    /// Opens the history walk of a room that is new to the archive. `now`: the token of its state.
    pub(in crate::archive) async fn begin_history(
        &self,
        connection: &mut PgConnection,
        rooms: &Rooms,
        room: &Room,
        now: &str,
    ) -> Result<(), Error> {
        let operator = rooms.prev_batch(&room.room_id);
        let from_token = operator.unwrap_or(now);
        if let Some(prev_batch) = operator {
            let hole = NewGap {
                room_key: room.room_key,
                reason: "the operator's prev_batch: what is newer, up to the first sync, was not asked for",
                upper_token: Some(now),
                lower_token: Some(prev_batch),
                upper_event_id: None,
                // Leaves space for the missing events below future live ones.
                upper_position: position::append(None, true).next(),
                from_position: None,
                lower: None,
            };
            gap::skip(connection, &hole).await?;
        }
        self.open_history(connection, room, from_token, operator.map(|_| 0)).await
    }

    /// Walks a truncated history again, because older events may be visible now. Also completes a history of which
    /// only a part was walked at the operator's request.
    pub(in crate::archive) async fn reopen_history(
        &self,
        connection: &mut PgConnection,
        room: &Room,
        now: &str,
    ) -> Result<(), Error> {
        if !room.history_state.is_partial() {
            return Ok(());
        }
        self.open_history(connection, room, now, None).await
    }

    async fn open_history(
        &self,
        connection: &mut PgConnection,
        room: &Room,
        from_token: &str,
        upper_position: Option<i64>,
    ) -> Result<(), Error> {
        let walk = NewWalk {
            room_key: room.room_key,
            gap_id: None,
            kind: WalkKind::History,
            from_token: Some(from_token),
            to_token: None,
            upper_position,
            delay_s: 0.0,
        };
        walk::open(connection, &walk).await?;
        history::set(connection, room.room_key, HistoryState::Walking, None).await
    }

    /// Stores a later part of a room: appends its timeline, and opens a gap if events are missing before it.
    #[expect(clippy::too_many_arguments, reason = "all that is known of a room and its part of the response")]
    async fn follow(
        &self,
        connection: &mut PgConnection,
        portion: &mut Portion,
        response: &Response<'_>,
        before: &Room,
        room: &Room,
        update: &RoomBatch,
        rejoined: bool,
        afterwards: &mut Afterwards,
    ) -> Result<usize, Error> {
        let known = &portion.found(room.room_key).known;
        let may_repeat = may_repeat(response, update, rejoined, known);
        let removals = redaction::removals(update.state.events.iter().chain(after(update)));
        let mut unnamed = redaction::names_no_target(room, &removals, known);
        let top = portion.top(room.room_key);
        let awaits_walk = top.awaits_walk;
        let (top, newest) = (top.position(), top.newest);
        // An interrupted first response may have opened the gap already.
        let mut hole = discontinuity(response, before, update, rejoined)
            .filter(|_| !(response.is_first() && awaits_walk));
        let is_left_out = hole.is_none()
            && !response.is_first()
            && silent_gap::is_shown(connection, room.room_key, update).await?;
        if is_left_out {
            hole = Some(silent_gap::REASON);
        }
        let mut positions = position::append(top, hole.is_some()).peekable();
        let first = positions.peek().copied();

        let state = event::row::distinct(update.state.events.iter().chain(after(update)));
        let mut new = self.gather(connection, portion, room, &state, &[]).await?;
        portion.found(room.room_key).note_unplaced(&state);
        let events = event::row::distinct(&update.timeline.events);
        let known = &portion.found(room.room_key).known;
        let places = lookup::places(&events, known);
        unnamed |= redaction::names_no_target(room, &events, known);
        // Unreadable events may belong between the readable ones. So may events that the server left out without
        // saying so.
        let from_end = response.is_first() || rejoined || update.timeline_unread || is_left_out;
        let (overlap, newest) = if is_in_graph_order(response, update, rejoined) {
            (Some(Overlap::of_all(&places)), newest)
        } else {
            overlap::ahead(connection, room.room_key, newest, &events, &places).await?
        };
        let (again, fresh) = places.split_at(overlap.as_ref().map_or(0, |overlap| overlap.len));
        let mut given = match &overlap {
            Some(overlap) => overlap.place(connection, room.room_key, again).await?,
            None => Vec::new(),
        };
        // A known event in the rest of the timeline was placed by an earlier walk. It keeps its position.
        let lowest = overlap.and_then(|overlap| overlap.lowest(&given));
        given.extend(fresh.iter().map(|place| place.position().or_else(|| positions.next())));
        new += self.gather(connection, portion, room, &events, &given).await?;
        if unnamed {
            walk::rewalk_now(connection, room.room_key).await?;
        }

        if update.section == Section::Join && (hole.is_some() || may_repeat) {
            // The server may have refused the walk while the account was not in the room. The leave and the return
            // may both be in the missing part.
            walk::reopen_stalled(connection, Some(room.room_key)).await?;
        }
        if let Some(reason) = hole {
            if response.account.since.is_some() && may_repeat {
                // Redactions sent meanwhile may be hidden from the account. Only the redacted events show them.
                walk::rewalk_now(connection, room.room_key).await?;
            }
            let place = GapPlace {
                is_reported_from_end: from_end,
                end: given.iter().copied().flatten().max().or(top),
                upper_position: lowest.or(first),
                lower: newest,
            };
            let gap = new_gap(response, before, update, rejoined, reason, place);
            gap::open(connection, &gap).await?;
        }
        match response.next_batch {
            Some(next_batch)
                if hole.is_some() && (before.membership != Membership::Join || !before.watched) =>
            {
                self.reopen_history(connection, before, next_batch).await?;
            }
            None if before.history_state.is_partial() => afterwards.partial.push(room.room_key),
            _ => {}
        }
        Ok(new)
    }
}

/// Whether the events of a later timeline are in graph order.
///
/// Those of an initial timeline are, and those of a room that the account has rejoined. Late events that sort early are
/// neither in it nor below its `prev_batch` (P160). Any other timeline may be in the order of arrival, also if the account
/// has left again, or has left and returned in between (although Synapse uses graph order there). In such a timeline, the
/// neighbours of a late event need not be its neighbours in the room.
fn is_in_graph_order(response: &Response<'_>, update: &RoomBatch, rejoined: bool) -> bool {
    response.is_first() || (rejoined && update.section == Section::Join)
}

/// The place of a gap before a timeline.
struct GapPlace {
    /// Whether missing events may also belong between the timeline's events, so that the walk begins above them.
    is_reported_from_end: bool,
    /// The room's highest position, including the timeline.
    end: Option<i64>,
    /// The position above the missing events, if they are below the timeline.
    upper_position: Option<i64>,
    /// The newest event before the gap.
    lower: Option<(String, i64)>,
}

/// Describes the gap before the timeline of `update`.
fn new_gap<'a>(
    response: &'a Response<'_>,
    before: &'a Room,
    update: &'a RoomBatch,
    rejoined: bool,
    reason: &'a str,
    place: GapPlace,
) -> NewGap<'a> {
    let from_end = place.is_reported_from_end;
    let since = if rejoined { &before.left_since } else { &response.account.since };
    let lower_token = since.as_deref().filter(|_| before.watched);
    let prev_batch = update.prev_batch.as_ref().filter(|_| !from_end);
    NewGap {
        room_key: before.room_key,
        reason,
        upper_token: prev_batch.map_or(response.next_batch, |token| Some(token.as_str())),
        lower_token,
        upper_event_id: update.timeline.events.first().map(|event| event.event_id.as_str()),
        upper_position: if (from_end && update.section == Section::Leave) || lower_token.is_none() {
            // After a leave, the walk may only begin after the account has returned, and then with events after the
            // leave. Without a lower token, it goes down from above the timeline, in which a late event may be below
            // all missing ones.
            position::append(place.end, true).next()
        } else {
            place.upper_position
        },
        // Events that arrive before the gap is walked may belong between the timeline's events.
        from_position: (from_end && update.section == Section::Join).then(|| position::just_above(place.end)),
        lower: place.lower,
    }
}

/// Moves the current state according to the response. Returns whether it must be compared with the server's.
fn move_state(
    portion: &mut Portion,
    response: &Response<'_>,
    before: &Room,
    update: &RoomBatch,
    rejoined: bool,
    was_compared: bool,
) -> bool {
    let mut pointers = portion.pointers(before.room_key);
    let cause = |cause| if before.bootstrapped { cause } else { Cause::Bootstrap };
    match &update.state_after {
        Some(after) => pointers.point(&after.events, cause(Cause::StateAfter)),
        None => pointers.point(&update.state.events, cause(Cause::State)),
    }
    // In a forked graph, Synapse reports the state of the branch at the end of the timeline (P86), not the room's.
    let branched = update.state_after.is_none() && pointers.have_moved();
    // If the server reports the state after the timeline, only that counts (P87). An exception is a leave after which
    // no local user is in the room: Synapse then has no state and reports no change.
    let dropped = update.state_after.is_some()
        && update.section == Section::Leave
        && last_of_own(update, &response.account.user_id).is_some_and(|leave| !pointers.points_at(leave));
    if update.state_after.is_none() || dropped {
        pointers.follow(&update.timeline.events, cause(Cause::Timeline));
    }
    // A power event from another branch may have reverted other state, even if it replaced nothing. No response
    // reports that (P93).
    let undone = state_events(update).any(room_state::takes_power);
    let suspicious = pointers.suspicious()
        || branched
        || dropped
        || undone
        || update.is_unread()
        || (was_compared && pointers.may_have_gone_back(state_events(update)))
        || state_is_partial(response, before, update, rejoined);
    portion.moved(pointers);
    suspicious
}

/// The rooms of a response and their locked rows.
pub(in crate::archive) struct Claimed<'a> {
    /// Ordered by key.
    pub(in crate::archive) update: Vec<(Room, &'a RoomBatch)>,
    /// The rooms whose rows were inserted just now.
    pub(in crate::archive) made: HashSet<i32>,
}

/// Finds or inserts the rows of the rooms, and locks them. Erased rooms are left out.
pub(in crate::archive) async fn claim_rooms<'a>(
    connection: &mut PgConnection,
    response: &Response<'_>,
    update: &'a [RoomBatch],
) -> Result<Claimed<'a>, Error> {
    let room_ids: Vec<String> = update.iter().map(|batch| batch.room_id.to_string()).collect();
    let known = room::keys(connection, &room_ids).await?;
    let mut lacking: BTreeMap<&str, Membership> = BTreeMap::new();
    for batch in update {
        if let Some((room_id, None)) = known.get_key_value(batch.room_id.as_str()) {
            let first = || membership(batch, &response.account.user_id);
            lacking.entry(room_id).or_insert_with(first);
        }
    }
    let room_ids: Vec<&str> = lacking.keys().copied().collect();
    let memberships: Vec<Membership> = lacking.values().copied().collect();
    let made = room::create_all(connection, &room_ids, &memberships).await?;
    let key = |batch: &RoomBatch| {
        let room_id = batch.room_id.as_str();
        // A room without an entry was erased.
        (*known.get(room_id)?).or_else(|| made.get(room_id).copied())
    };
    let mut claimed: Vec<_> = update.iter().filter_map(|batch| Some((key(batch)?, batch))).collect();
    claimed.sort_by_key(|(room_key, _)| *room_key);
    let room_keys: Vec<i32> = claimed.iter().map(|(room_key, _)| *room_key).collect();
    // New rows need no lock: no other transaction can see them.
    let made: HashSet<i32> = made.into_values().collect();
    let shared: Vec<i32> = room_keys.iter().copied().filter(|room_key| !made.contains(room_key)).collect();
    lock_rooms(connection, &shared).await?;
    // Read after the lock, so that no other transaction can change them.
    let rooms = room::get_all(connection, &room_keys).await?;
    let update =
        claimed.into_iter().filter_map(|(key, batch)| Some((rooms.get(&key)?.clone(), batch))).collect();
    Ok(Claimed { update, made })
}
