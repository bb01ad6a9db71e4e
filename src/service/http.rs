//! The opt-in HTTP listener: `/livez`, `/readyz` and `/metrics`, for GET only.
//!
//! It has neither password nor TLS. It shows counts and error messages, but no rooms and no content. Listen on
//! loopback, or on an address that only trusted clients can reach.

use std::{
    convert::Infallible,
    fmt::Write as _,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Bytes, header::CONTENT_TYPE, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

use super::health::Health;
use crate::{
    Exit,
    telemetry::{metrics::Metrics, pulse::Homeserver},
};

/// The most open connections. A new one beyond that closes the least important one. A probe needs one connection.
const MOST_CONNECTIONS: usize = 64;
/// How long the head of a request may take to arrive.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// How long one request and its response may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long the query for the gauges may take. Prometheus waits ten seconds by default.
const GAUGES: Duration = Duration::from_secs(5);
/// The pause after a failure to accept a connection, for example if there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The listener cannot bind to the address.
#[derive(Debug, thiserror::Error)]
#[error(
    "failed to listen on {address} (`http.listen`): {source}; choose another address, or stop the process that uses it"
)]
pub(crate) struct Error {
    address: SocketAddr,
    source: io::Error,
}

impl Error {
    /// The process's exit code.
    #[expect(clippy::unused_self, reason = "as of the other errors")]
    pub(crate) const fn exit_code(&self) -> Exit {
        Exit::Unavailable
    }
}

/// The data behind the pages.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// The daemon's health.
    pub(crate) health: Arc<Health>,
    /// Its metrics.
    pub(crate) metrics: Metrics,
}

/// An open socket that is not served yet.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Opens the socket.
    ///
    /// # Errors
    /// If the address is in use, or is not an address of this machine.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bound.await.map_err(|source| Error { address, source })
    }

    /// The address on which it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is dropped.
    pub(crate) async fn serve(self, service: Service) {
        let mut tasks = JoinSet::new();
        let mut connections = Connections::default();
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection to http.listen");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            while tasks.try_join_next().is_some() {}
            connections.make_space();
            let progress = Arc::new(Mutex::new(Progress::default()));
            let task = tasks.spawn(serve_one(stream, service.clone(), Arc::clone(&progress)));
            connections.open.push(Connection { task, progress });
        }
    }
}

/// The progress of a connection. The variants are in the order in which connections are closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    /// The request has not arrived.
    #[default]
    Idle,
    /// The response is being sent, and the client reads it slowly.
    Sending,
    /// The response is being prepared.
    Answering,
}

#[derive(Debug)]
struct Connection {
    task: AbortHandle,
    progress: Arc<Mutex<Progress>>,
}

/// The open connections, the oldest first.
#[derive(Debug, Default)]
struct Connections {
    open: Vec<Connection>,
}

impl Connections {
    /// Removes connections that have ended. If too many are left, closes the oldest of those with the least progress.
    fn make_space(&mut self) {
        self.open.retain(|connection| !connection.task.is_finished());
        if self.open.len() < MOST_CONNECTIONS {
            return;
        }
        let progress = |connection: &Connection| *lock(&connection.progress);
        let oldest = self.open.iter().enumerate().min_by_key(|(_, connection)| progress(connection));
        if let Some((index, _)) = oldest {
            self.open.remove(index).task.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve_one(stream: TcpStream, service: Service, progress: Arc<Mutex<Progress>>) {
    let answer = service_fn(|request| {
        let (service, progress) = (service.clone(), Arc::clone(&progress));
        async move {
            *lock(&progress) = Progress::Answering;
            let answer = service.answer(&request).await;
            *lock(&progress) = Progress::Sending;
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    // The client has hung up or is too slow. There is nobody to report that to.
    let _ = tokio::time::timeout(DEADLINE, connection).await;
}

impl Service {
    async fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        }
        match request.uri().path() {
            "/livez" => self.live().await,
            "/readyz" => self.ready().await,
            "/metrics" => self.metrics().await,
            _ => plain(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n".to_owned()),
        }
    }

    /// `/livez`: fails if a loop is stuck, so that a restart would help.
    async fn live(&self) -> Response<Full<Bytes>> {
        match self.health.stuck().await {
            None => plain(StatusCode::OK, "ok\n".to_owned()),
            Some(stuck) => {
                let text = format!("stuck: no sign of life from {stuck}\n");
                plain(StatusCode::SERVICE_UNAVAILABLE, text)
            }
        }
    }

    /// `/readyz`: fails if Backscroll cannot archive at this moment.
    async fn ready(&self) -> Response<Full<Bytes>> {
        let database = self.health.database().await;
        let homeserver = match self.health.homeserver() {
            Homeserver::Answers => Ok(()),
            Homeserver::Unknown => Err("has not answered yet".to_owned()),
            Homeserver::Fails(error) => Err(error),
        };
        let stuck = self.health.stuck().await.map_or(Ok(()), |stuck| Err(format!("{stuck} is stuck")));
        let parts = [("database", database), ("homeserver", homeserver), ("loops", stuck)];
        let is_ready = parts.iter().all(|(_, state)| state.is_ok());
        let mut text = String::new();
        for (part, state) in parts {
            let _ = writeln!(text, "{part}: {}", state.err().unwrap_or_else(|| "ok".to_owned()));
        }
        plain(if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
    }

    async fn metrics(&self) -> Response<Full<Bytes>> {
        let gauges = match self.health.archive() {
            Some(archive) => tokio::time::timeout(GAUGES, archive.gauges()).await.ok().and_then(Result::ok),
            None => None,
        };
        let text = self.metrics.render(gauges.as_ref(), &self.health.homeserver());
        answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", text)
}

fn answer(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}

/// The address at which this machine reaches a listener on `listen`: loopback if it listens on all addresses.
pub(crate) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_connection_closes_the_oldest_with_the_least_progress() {
        let mut tasks = JoinSet::new();
        let mut connections = Connections::default();
        for number in 0..MOST_CONNECTIONS {
            let progress = match number {
                1 => Progress::Sending,
                2 | 3 => Progress::Idle,
                _ => Progress::Answering,
            };
            let task = tasks.spawn(std::future::pending::<()>());
            connections.open.push(Connection { task, progress: Arc::new(Mutex::new(progress)) });
        }
        let mut closed = Vec::new();
        for _ in 0..4 {
            let before: Vec<_> = connections.open.iter().map(|connection| connection.task.id()).collect();
            connections.make_space();
            let after: Vec<_> = connections.open.iter().map(|connection| connection.task.id()).collect();
            let gone: Vec<_> = before.iter().filter(|id| !after.contains(id)).copied().collect();
            assert_eq!(gone.len(), 1, "one connection is closed");
            let task = tasks.spawn(std::future::pending::<()>());
            let progress = Arc::new(Mutex::new(Progress::Answering));
            connections.open.push(Connection { task, progress });
            closed.push(before.iter().position(|id| *id == gone[0]).unwrap());
        }
        // First both idle ones, then the one that is read slowly, then one that waits for its response.
        assert_eq!(closed, [2, 2, 1, 0]);
    }

    #[test]
    fn a_listener_at_all_addresses_is_reached_at_loopback() {
        let reached = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:9464"), "127.0.0.1:9464");
        assert_eq!(reached("[::]:9464"), "[::1]:9464");
        assert_eq!(reached("192.0.2.7:9464"), "192.0.2.7:9464");
    }
}
