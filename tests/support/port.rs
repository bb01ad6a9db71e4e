//! Ports for servers that must be told one before they listen.

use std::{
    collections::HashSet,
    net::TcpListener,
    sync::{Mutex, PoisonError},
};

/// A TCP port of 127.0.0.1 at which nobody listens. No other call in this process returns it.
///
/// It lies below the ports that Linux gives to outgoing connections, so that no connection of another test takes
/// it before the server listens.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_default();
    for _ in 0..1000 {
        let port = fastrand::u16(10_000..first_ephemeral_port());
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
    panic!("no free port below {}", first_ephemeral_port());
}

fn first_ephemeral_port() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range
        .split_whitespace()
        .next()
        .and_then(|first| first.parse().ok())
        .filter(|it| *it > 12_000)
        .unwrap_or(32_768)
}
