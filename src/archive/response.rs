//! What one room's part of a `/sync` response becomes: a bootstrap at first sight, later an appended timeline, a gap where
//! events were left out, and moves of the current state. Runs inside the transaction of [`Writer::apply_sync`].

use sqlx::PgConnection;

use super::{
    Account, Error, Kind, SyncOutcome, Writer, choice, event,
    found::{self, LookUp, look_up},
    gap::{self, NewGap},
    ingest::with_positions,
    operator,
    overlap::{self, Overlap},
    quarantine, redaction,
    room::{self, Room},
    state::{self, Cause, Pointers},
    timeline,
    told::{
        after, canonical_alias, discontinuity, last_of_own, membership, own, rejoined, state_events,
        tells_again, told_in_part,
    },
    walk::{self, NewWalk},
    writer::lock_rooms,
};
use crate::{
    config::Rooms,
    matrix::{RoomBatch, Section},
};

/// A `/sync` response on its way into the archive.
pub(super) struct Response<'a> {
    pub(super) account: &'a Account,
    pub(super) next_batch: &'a str,
    pub(super) rooms: &'a Rooms,
    /// Whether every room comes with its whole state.
    pub(super) full: bool,
}

impl Writer {
    pub(super) async fn apply_room(
        &self,
        connection: &mut PgConnection,
        response: &Response<'_>,
        before: Room,
        told: &RoomBatch,
        outcome: &mut SyncOutcome,
    ) -> Result<(), Error> {
        let rejoined = rejoined(connection, response, &before, told).await?;
        let mut room = before.clone();
        room.membership = membership(told, &response.account.user_id);
        if room.membership == "join" {
            room.left_since = None;
        } else if before.membership == "join" || rejoined {
            room.left_since.clone_from(&response.account.since);
        }
        if matches!(told.section, Section::Invite | Section::Knock) {
            let aliases = room::stripped_aliases(&told.stripped);
            let wanted = room::is_wanted(response.rooms, &room.room_id, aliases);
            let shown = if wanted { told.stripped.as_slice() } else { &[] };
            room::set_stripped(connection, &room, shown).await?;
            if wanted {
                quarantine::keep(connection, self.policy(), &room, &told.set_aside).await?;
            }
            if !before.bootstrapped {
                room.watched = wanted;
            }
            return room::update(connection, &before, &room).await;
        }
        let was_asked_in = matches!(before.membership.as_str(), "invite" | "knock");
        if was_asked_in {
            room::set_stripped(connection, &room, &[]).await?;
        }
        let create = state_events(told).find(|event| event.is_state("m.room.create"));
        if !before.bootstrapped
            && before.membership != "join"
            && told.section == Section::Leave
            && !told.is_unread()
            && create.is_none()
            && own(told, &response.account.user_id, "join").next().is_none()
            && (response.full || !told.limited)
        {
            // An invite or knock came to nothing. That it hid the account's time in the room from all answers before, only the
            // room's history tells. Where the timeline leaves something out, it may be in that, which a whole state tells.
            if was_asked_in {
                choice::doubt_left_room(connection, response.rooms, room.room_key, &room.room_id).await?;
            }
            room.watched = true;
            return room::update(connection, &before, &room).await;
        }
        let alias = canonical_alias(told);
        let is_wanted = room::is_wanted(response.rooms, &room.room_id, alias.into_iter());
        // Without the whole state, that no alias is told does not mean that there is none.
        if response.full || create.is_some() {
            room.watched = is_wanted;
        } else if alias.is_some() && is_wanted != room.watched {
            outcome.needs_full_state = true;
            return Ok(());
        }
        if !room.watched {
            if was_asked_in && told.section == Section::Leave {
                // It may have been taken up again meanwhile, which an invite or knock leaves open.
                choice::doubt_left_room(connection, response.rooms, room.room_key, &room.room_id).await?;
            }
            return room::update(connection, &before, &room).await;
        }
        if let Some(create) = create {
            room.room_version = Some(room::declared_version(create));
        } else if !before.bootstrapped && !response.full {
            outcome.needs_full_state = true;
            return Ok(());
        }
        room.bootstrapped = true;
        room::update(connection, &before, &room).await?;
        if (was_asked_in || before.membership == "ban") && room.membership == "leave" {
            // Refused while nothing but an invite, or a ban, told who the account is to the room: who has left may read again.
            walk::reopen_stalled(connection, Some(room.room_key)).await?;
        }
        quarantine::keep(connection, self.policy(), &room, &told.set_aside).await?;
        for section in
            [Some(&told.state), Some(&told.timeline), told.state_after.as_ref()].into_iter().flatten()
        {
            quarantine::keep(connection, self.policy(), &room, &section.malformed).await?;
        }
        outcome.event_count += if before.bootstrapped {
            self.follow(connection, response, &before, &room, told, rejoined).await?
        } else {
            self.bootstrap(connection, response, &room, told).await?
        };
        if self.move_state(connection, response, &before, told, rejoined).await? {
            room::set_suspect(connection, room.room_key, true).await?;
        }
        Ok(())
    }

    /// A room's first response: its events are stored unplaced, for the history walk to place them.
    async fn bootstrap(
        &self,
        connection: &mut PgConnection,
        response: &Response<'_>,
        room: &Room,
        told: &RoomBatch,
    ) -> Result<usize, Error> {
        let new = self.store_unplaced(connection, room, state_events(told)).await?;
        operator::hand_over(connection, room.room_key, response.next_batch).await?;
        // From next_batch, not prev_batch: events that arrived late but sort early are below neither the latter nor in
        // this timeline (P160).
        self.begin_history(connection, response.rooms, room, response.next_batch).await?;
        Ok(new)
    }

    /// Opens the walk through all that there was of a room that is new to the archive. `now`: the token of its state.
    pub(super) async fn begin_history(
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
                // So that what comes live leaves room for it.
                upper_position: timeline::append(None, true).next(),
                from_position: None,
                lower: None,
            };
            gap::skip(connection, &hole).await?;
        }
        self.open_history(connection, room, from_token, operator.map(|_| 0)).await
    }

    /// Walks a truncated history again: what was out of reach may be visible now. And a history of which only a part was
    /// walked, as the operator asked.
    pub(super) async fn reopen_history(
        &self,
        connection: &mut PgConnection,
        room: &Room,
        now: &str,
    ) -> Result<(), Error> {
        if !matches!(room.history_state.as_str(), "truncated" | "none") {
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
            kind: Kind::History,
            from_token: Some(from_token),
            to_token: None,
            upper_position,
            delay_s: 0.0,
        };
        walk::open(connection, &walk).await?;
        room::set_history(connection, room.room_key, "walking", None).await
    }

    /// A later response: its timeline is appended, and a hole before it becomes a gap.
    async fn follow(
        &self,
        connection: &mut PgConnection,
        response: &Response<'_>,
        before: &Room,
        room: &Room,
        told: &RoomBatch,
        rejoined: bool,
    ) -> Result<usize, Error> {
        let tells_again = tells_again(connection, response, room.room_key, told, rejoined).await?;
        let top = gap::top(connection, room.room_key).await?;
        let (top, newest) = (top.position(), top.newest);
        let hole = discontinuity(response, before, told, rejoined);
        let mut positions = timeline::append(top, hole.is_some()).peekable();
        let first = positions.peek().copied();

        let state = || told.state.events.iter().chain(after(told));
        let mut unnamed = redaction::state_names_no_target(connection, room, state()).await?;
        let mut new = self.store_unplaced(connection, room, state()).await?;
        let events = event::distinct(&told.timeline.events);
        let mut found = look_up(connection, room.room_key, &events, LookUp::All, None).await?;
        let places = found::places(&events, &found.known);
        // An initial timeline has the graph's order, and so does that of a room that the account is back in: what arrived late but
        // sorts early is neither in it nor below its prev_batch (P160). In any other what is new may come as it arrived,
        // also where the account has left again, or has left and returned (Synapse gives the graph's order there too): what came
        // late tells nothing of where its neighbours belong.
        let is_initial = response.account.since.is_none();
        let in_graph_order = is_initial || (rejoined && told.section == Section::Join);
        // Events that could not be read may belong between those that could.
        let from_end = is_initial || rejoined || told.timeline_unread;
        let (overlap, newest) = if in_graph_order {
            (Some(Overlap::of_all(&places)), newest)
        } else {
            overlap::ahead(connection, room.room_key, newest, &events, &places).await?
        };
        let (again, fresh) = places.split_at(overlap.as_ref().map_or(0, |overlap| overlap.len));
        let mut given = match &overlap {
            Some(overlap) => overlap.place(connection, room.room_key, again).await?,
            None => Vec::new(),
        };
        // A known event in what arrived since `since` is one that a walk has met before and placed where it belongs.
        let lowest = overlap.and_then(|overlap| overlap.lowest(&given));
        given.extend(fresh.iter().map(|place| place.position().or_else(|| positions.next())));
        let appended = with_positions(&events, &given);
        let appended = event::store(connection, self.policy(), room, &appended, &mut found).await?;
        room::count_events(connection, room.room_key, appended).await?;
        new += appended;
        unnamed |= redaction::names_no_target(room, &events, &found.known);
        if unnamed {
            walk::rewalk_now(connection, room.room_key).await?;
        }

        if told.section == Section::Join && (hole.is_some() || tells_again) {
            // Refused while the account was out of the room, which may be told only by what is missing here.
            walk::reopen_stalled(connection, Some(room.room_key)).await?;
        }
        if let Some(reason) = hole {
            if response.account.since.is_some() && tells_again {
                // Redactions of meanwhile may be hidden from the account: only what they redacted shows them.
                walk::rewalk_now(connection, room.room_key).await?;
            }
            let since = if rejoined { &before.left_since } else { &response.account.since };
            let end = given.iter().copied().flatten().max().or(top);
            let lower_token = since.as_deref().filter(|_| before.watched);
            let gap = NewGap {
                room_key: room.room_key,
                reason,
                upper_token: told
                    .prev_batch
                    .as_ref()
                    .filter(|_| !from_end)
                    .map_or(Some(response.next_batch), |token| Some(token.as_str())),
                lower_token,
                upper_event_id: told.timeline.events.first().map(|event| event.event_id.as_str()),
                upper_position: if (from_end && told.section == Section::Leave) || lower_token.is_none() {
                    // The walk may not begin before the account is back: then it begins with what came after the leave. Or it
                    // goes down from above the timeline, of which a late event may sort below all that is missing.
                    timeline::append(end, true).next()
                } else {
                    lowest.or(first)
                },
                // What arrives until that is walked may belong between the timeline's events.
                from_position: (from_end && told.section == Section::Join).then(|| timeline::just_above(end)),
                lower: newest,
            };
            gap::open(connection, &gap).await?;
            if before.membership != "join" || !before.watched {
                self.reopen_history(connection, before, response.next_batch).await?;
            }
        }
        Ok(new)
    }

    /// Moves the current state as the response says. Returns whether it should be compared with the server's.
    async fn move_state(
        &self,
        connection: &mut PgConnection,
        response: &Response<'_>,
        before: &Room,
        told: &RoomBatch,
        rejoined: bool,
    ) -> Result<bool, Error> {
        let mut pointers = Pointers::load_for(connection, before.room_key, state_events(told)).await?;
        let cause = |cause| if before.bootstrapped { cause } else { Cause::Bootstrap };
        match &told.state_after {
            Some(after) => pointers.point(&after.events, cause(Cause::StateAfter)),
            None => pointers.point(&told.state.events, cause(Cause::State)),
        }
        // Of a forked graph Synapse tells the state of the branch that the timeline ends with (P86), not the room's.
        let branched = told.state_after.is_none() && pointers.have_moved();
        // Where the server offers the state after the timeline, nothing else counts (P87), but for a leave after which none of
        // its users is in the room: Synapse has no state any more then, and tells of no change.
        let dropped = told.state_after.is_some()
            && told.section == Section::Leave
            && last_of_own(told, &response.account.user_id).is_some_and(|leave| !pointers.points_at(leave));
        if told.state_after.is_none() || dropped {
            pointers.follow(&told.timeline.events, cause(Cause::Timeline));
        }
        // A power event from another branch may have undone what it does not name, also where there was nothing before it: no
        // response tells that (P93).
        let undone = state_events(told).any(state::takes_power);
        let suspicious = pointers.suspicious()
            || branched
            || dropped
            || undone
            || told.is_unread()
            || told_in_part(response, before, told, rejoined);
        pointers.save(connection).await?;
        Ok(suspicious)
    }
}

/// Finds or makes the rows of the rooms that were not erased, and locks them.
pub(super) async fn claim_rooms<'a>(
    connection: &mut PgConnection,
    response: &Response<'_>,
    told: &'a [RoomBatch],
) -> Result<Vec<(Room, &'a RoomBatch)>, Error> {
    let room_ids: Vec<String> = told.iter().map(|batch| batch.room_id.to_string()).collect();
    let mut known = room::keys(connection, &room_ids).await?;
    let mut claimed = Vec::with_capacity(told.len());
    for batch in told {
        let room_id = batch.room_id.as_str();
        let Some(room_key) = known.get_mut(room_id) else { continue };
        if room_key.is_none() {
            let membership = membership(batch, &response.account.user_id);
            *room_key = Some(room::create(connection, room_id, &membership).await?.room_key);
        }
        claimed.extend(room_key.map(|room_key| (room_key, batch)));
    }
    claimed.sort_by_key(|(room_key, _)| *room_key);
    let room_keys: Vec<i32> = claimed.iter().map(|(room_key, _)| *room_key).collect();
    lock_rooms(connection, &room_keys).await?;
    // As they are now that nobody else is at work in them.
    let rooms = room::get_all(connection, &room_keys).await?;
    Ok(claimed.into_iter().filter_map(|(key, batch)| Some((rooms.get(&key)?.clone(), batch))).collect())
}
