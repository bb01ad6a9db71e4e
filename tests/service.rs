//! Backscroll as a service: what a service manager, a probe, a scraper and a log collector see of it.

mod canary;
mod deploy;
mod health;
mod indexes;
mod signals;
mod systemd;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use crate::support::{daemon::Daemon, port::free_port, stage::Stage};

/// A stage whose daemon listens.
pub(crate) async fn listening() -> (Stage, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    (Stage::new().await.set("http.listen", &address.to_string()), address)
}

/// Status and text of an answer; `None`: nobody there.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Waits until the daemon is ready to be reported so over HTTP.
pub(crate) async fn until_ready(daemon: &mut Daemon, address: SocketAddr) {
    let ready = async || get(address, "/readyz").is_some_and(|(status, _)| status == 200);
    daemon.until("it is ready", ready).await;
}

/// The value of a metric's line, such as `backscroll_walks{state="done"}`.
fn metric(metrics: &str, name: &str) -> Option<f64> {
    let mut lines = metrics.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
