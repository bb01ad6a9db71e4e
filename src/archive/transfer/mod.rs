//! Takes a room out of the archive and puts it in again, row for row, for `backscroll export` and `import`.

mod export;
mod import;

pub(crate) use self::{
    export::{ExportedEvent, Period, Snapshot},
    import::{Import, ImportedEvent},
};

/// A table whose rows of a room are transferred as they are. What follows from other rows is derived anew instead:
/// `members`, `activity`, `search_*`; what is under way (`resequences`, `verified_*`) begins anew. Keys
/// of encrypted messages and what these say (`megolm_sessions`, `decrypted_events`) stay here: an export is no place for secrets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    /// Its name in the schema `archive`.
    pub(crate) name: &'static str,
    /// What orders a room's rows.
    order: &'static str,
    /// Which rows belong to a period, as an SQL condition on `t`. `None`: all.
    of_period: Option<&'static str>,
}

const fn table(name: &'static str, order: &'static str) -> Table {
    Table { name, order, of_period: None }
}

const fn of_period(table: Table, condition: &'static str) -> Table {
    Table { of_period: Some(condition), ..table }
}

const OF_EVENTS: &str = "exists (select from archive.events e where e.room_id = t.room_id and e.event_id = t.event_id and {period})";

/// The tables, beside `archive.events`, in the order in which they are written.
pub(crate) const TABLES: [Table; 18] = [
    table("rooms", "t.room_id"),
    table("anchors", "t.event_id"),
    table("stripped_state", "t.type, t.state_key"),
    table("current_state", "t.type, t.state_key"),
    table("state_changes", "t.change_id"),
    table("redactions", "t.target_event_id, t.redaction_event_id"),
    of_period(table("imported_events", "t.event_id"), OF_EVENTS),
    of_period(table("replaced_copies", "t.event_id, t.replaced_at"), OF_EVENTS),
    of_period(table("originals", "t.event_id"), OF_EVENTS),
    // Derived anew from the events of a period.
    of_period(table("waiting_edits", "t.message_id, t.edit_id"), "false"),
    of_period(table("unnamed_prev_content", "t.event_id"), OF_EVENTS),
    of_period(table("quarantine", "t.raw_sha256"), "false"),
    table("gaps", "t.gap_id"),
    table("walks", "t.walk_id"),
    // They speak of all events.
    of_period(table("verifications", "t.verification_id"), "false"),
    of_period(table("only_here", "t.event_id"), OF_EVENTS),
    of_period(table("seals", "t.seal_id"), "false"),
    of_period(table("evidence", "t.event_id"), OF_EVENTS),
];
