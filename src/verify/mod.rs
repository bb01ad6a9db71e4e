//! Proves that the archive is whole, or finds what is wrong with it. Changes nothing.
//!
//! Three levels, each with the ones before it: the archive by itself ([`mod@offline`]), compared with what the homeserver
//! lists and with its state ([`walk`]), and, if the homeserver gives events in the federation format, their graph and
//! their signatures.

mod candidates;
mod graph;
mod offline;
pub(crate) mod report;
mod room;
mod sample;
pub(crate) mod seal;
mod signatures;
mod state;
mod walk;

pub(crate) use self::{
    candidates::LACKING,
    offline::offline,
    report::{Level, Report, Verdict},
    room::{Verifier, online},
    signatures::Signatures,
    state::STATE,
};
