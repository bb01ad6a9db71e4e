//! `backscroll run` on the model homeserver: what happens while it follows.

mod edits;
mod first;
mod gaps;
mod live;
mod membership;
mod prev_content;
mod process;
mod redactions;
mod rewalks;
mod state;
