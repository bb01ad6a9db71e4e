//! Formats text for people: makes names safe to print, formats numbers and times, and lays out lines for a terminal.

mod escape;
mod number;
pub(crate) mod table;
mod terminal;
mod time;

pub(crate) use escape::{Printable, escape, needs_escape};
pub(crate) use escape::{write_escaped, write_escaped_json};
pub(crate) use number::{count, rate, size, thousands, whole};
pub(crate) use terminal::{Canvas, Painted, cut, fit, is_colour_wanted, paint, print};
pub(crate) use time::{ago, date, day, duration};
