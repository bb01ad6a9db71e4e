//! A connection pooler as PgBouncer is with `pool_mode = transaction`: it hands out server sessions for one transaction at a
//! time, the one that was used last first.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixListener, UnixStream},
    task::JoinSet,
};

const SSL_REQUEST: u32 = 80_877_103;

pub(super) struct Pooler {
    directory: TempDir,
    _serving: JoinSet<()>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

type Session = Box<dyn Stream>;

/// What clients share.
struct Shared {
    /// The server's socket, or else its host and port.
    server: Result<PathBuf, String>,
    idle: Mutex<Vec<Session>>,
}

impl Pooler {
    pub(super) fn before(url: &str) -> Self {
        let options: PgConnectOptions = url.parse().unwrap();
        let directory = tempfile::Builder::new().prefix("bsp").tempdir_in("/var/tmp").unwrap();
        let socket = |directory: PathBuf| directory.join(format!(".s.PGSQL.{}", options.get_port()));
        let listener = UnixListener::bind(socket(directory.path().to_owned())).unwrap();
        let host = format!("{}:{}", options.get_host(), options.get_port());
        let server = options.get_socket().cloned().map(socket).ok_or(host);
        let shared = Arc::new(Shared { server, idle: Mutex::default() });
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                clients.spawn(async move { drop(serve(client, &shared).await) });
            }
        });
        Self { directory, _serving: serving }
    }

    /// The way to `url` by this pooler.
    pub(super) fn url(&self, url: &str) -> String {
        format!("{url}&host={}", self.directory.path().display())
    }
}

async fn serve(mut client: UnixStream, shared: &Shared) -> std::io::Result<()> {
    let startup = loop {
        let length = client.read_u32().await?;
        let mut rest = vec![0; length as usize - 4];
        client.read_exact(&mut rest).await?;
        if rest == SSL_REQUEST.to_be_bytes() {
            client.write_all(b"N").await?;
            continue;
        }
        break [&length.to_be_bytes()[..], &rest].concat();
    };
    // The greeting of a session of its own stands for that of all.
    let (session, greeting) = open(shared, &startup).await?;
    shared.idle.lock().unwrap().push(session);
    client.write_all(&greeting).await?;
    let mut session = None;
    loop {
        let message = message(&mut client).await?;
        if message[0] == b'X' {
            return Ok(());
        }
        let server = match &mut session {
            Some(server) => server,
            none => {
                let idle = shared.idle.lock().unwrap().pop();
                let taken = match idle {
                    Some(idle) => idle,
                    None => open(shared, &startup).await?.0,
                };
                none.insert(taken)
            }
        };
        server.write_all(&message).await?;
        if ![b'Q', b'S'].contains(&message[0]) {
            continue;
        }
        let (answer, status) = until_ready(server).await?;
        client.write_all(&answer).await?;
        if status == b'I' {
            shared.idle.lock().unwrap().extend(session.take());
        }
    }
}

async fn open(shared: &Shared, startup: &[u8]) -> std::io::Result<(Session, Vec<u8>)> {
    let mut server: Session = match &shared.server {
        Ok(socket) => Box::new(UnixStream::connect(socket).await?),
        Err(host) => Box::new(TcpStream::connect(host).await?),
    };
    server.write_all(startup).await?;
    let (greeting, _) = until_ready(&mut server).await?;
    Ok((server, greeting))
}

/// All up to `ReadyForQuery`, and the status that it reports.
async fn until_ready(server: &mut Session) -> std::io::Result<(Vec<u8>, u8)> {
    let mut all = Vec::new();
    loop {
        let message = message(server).await?;
        all.extend_from_slice(&message);
        if message[0] == b'Z' {
            return Ok((all, message[5]));
        }
    }
}

async fn message(stream: &mut impl Stream) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; 5];
    stream.read_exact(&mut message).await?;
    let length = u32::from_be_bytes([message[1], message[2], message[3], message[4]]) as usize;
    message.resize(length + 1, 0);
    stream.read_exact(&mut message[5..]).await?;
    Ok(message)
}
