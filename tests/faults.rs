//! What goes wrong between the homeserver and the archive, on the wire and with the login (faults, A6).

mod login;
mod wire;
