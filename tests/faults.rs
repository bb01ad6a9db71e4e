//! What goes wrong between the homeserver and the archive, on the wire and with the login, and in the database meanwhile
//! (faults, A6).

mod database;
mod login;
mod pace;
mod parts;
mod refusals;
mod tokens;
mod wire;
