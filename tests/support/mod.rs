//! What the tests stand on: databases, two kinds of homeserver, the program under test, and what is compared.

pub(crate) mod agreement;
pub(crate) mod archive;
pub(crate) mod cluster;
pub(crate) mod daemon;
pub(crate) mod derived;
pub(crate) mod fill;
pub(crate) mod homeserver;
pub(crate) mod port;
pub(crate) mod postgres;
pub(crate) mod random;
pub(crate) mod stage;
pub(crate) mod synapse;
