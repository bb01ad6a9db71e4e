//! HTTP/1.1 by hand, because a framework insists on finishing its replies: the faults are made here, on the wire.

use super::fault::{Wire, Wired};
use super::json::{object, quote};
use flate2::{Compression, write::GzEncoder};
use std::io::{self, Write as _};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A request as it came; the journal is a list of these.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// The path, each segment percent-decoded.
    pub(crate) segments: Vec<String>,
    /// Path and query as they were sent.
    pub(crate) target: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) at: Instant,
}

impl Request {
    /// The decoded path. A `/` inside a segment looks like any other here; `segments` distinguishes them.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.segments.join("/"))
    }

    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The room asked about, if one is.
    pub(crate) fn room(&self) -> Option<&str> {
        let rooms = self.segments.iter().position(|segment| segment == "rooms")?;
        self.segments.get(rooms + 1).map(String::as_str)
    }

    /// Whether this asks for a page of messages.
    pub(crate) fn is_messages(&self) -> bool {
        self.room().is_some() && self.segments.last().is_some_and(|last| last == "messages")
    }

    /// Reads one request; nothing when the client has closed the connection.
    async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let headers = read_headers(stream).await?;
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let mut request = Self {
            segments: path.split('/').skip(1).map(|segment| decode(segment, false)).collect(),
            query: query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect(),
            method,
            target: target.clone(),
            headers,
            body: String::new(),
            at: Instant::now(),
        };
        let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        request.body = String::from_utf8_lossy(&body).into_owned();
        Ok(Some(request))
    }
}

async fn read_headers(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        let read = stream.read_line(&mut line).await?;
        match line.split_once(':') {
            Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
            None if read > 2 => {}
            None => return Ok(headers),
        }
    }
}

fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (decode(name, true), decode(value, true))
}

/// Percent-decoding; in a query `+` is a space.
fn decode(text: &str, in_query: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(if in_query && *first == b'+' { b' ' } else { *first }));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A reply before it meets the wire.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        Self { status: 200, headers, body: body.into() }
    }

    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        let body = object(&[("errcode", quote(code)), ("error", quote(message))]);
        Self { status, ..Self::ok(body) }
    }

    pub(super) fn forbidden() -> Self {
        Self::error(
            403,
            "M_FORBIDDEN",
            "User @archive:model.test not in room, and room previews are disabled",
        )
    }

    pub(super) fn not_found(message: &str) -> Self {
        Self::error(404, "M_NOT_FOUND", message)
    }

    pub(super) fn invalid_from() -> Self {
        Self::error(400, "M_UNKNOWN", "'from' parameter is invalid")
    }

    fn head(&self, framing: &str) -> String {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head + framing + "\r\n\r\n"
    }

    pub(super) fn compressed(mut self) -> Self {
        self.headers.push(("Content-Encoding".to_owned(), "gzip".to_owned()));
        self.body = gzip(&self.body);
        self
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        502 => "Bad Gateway",
        _ => "Whatever",
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory takes every byte");
    encoder.finish().expect("memory takes every byte")
}

/// Serves one connection until either side has had enough of it.
pub(super) async fn serve(stream: TcpStream, server: super::Shared) {
    let mut stream = BufReader::new(stream);
    while let Ok(Some(request)) = Request::read(&mut stream).await {
        let answer = server.answer(request);
        let Some(wired) = unless_closed(&mut stream, answer).await else {
            return;
        };
        if !write(stream.get_mut(), wired).await.unwrap_or(false) {
            return;
        }
    }
}

/// The answer, unless the client goes away while it is being made: then the request no longer counts as in flight.
async fn unless_closed<T>(stream: &mut BufReader<TcpStream>, answer: impl Future<Output = T>) -> Option<T> {
    let mut byte = [0];
    let closed = async {
        while stream.get_mut().peek(&mut byte).await.is_ok_and(|read| read > 0) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        answer = answer => Some(answer),
        () = closed => None,
    }
}

/// Sends a reply the way its fault wants; says whether the connection may live on.
async fn write(stream: &mut TcpStream, Wired { reply, wire }: Wired) -> io::Result<bool> {
    let length = reply.body.len();
    let half = &reply.body[..length / 2];
    let declared = |length: usize| reply.head(&format!("Content-Length: {length}"));
    let chunked = || reply.head("Transfer-Encoding: chunked");
    match wire {
        Wire::Whole => {
            send(stream, &[declared(length).as_bytes(), &reply.body]).await?;
            return Ok(true);
        }
        Wire::Close => {}
        Wire::Reset => stream.set_zero_linger()?,
        Wire::CutHead => send(stream, &[&declared(length).as_bytes()[..20]]).await?,
        Wire::CutBody => send(stream, &[declared(length).as_bytes(), half]).await?,
        Wire::LongLength => send(stream, &[declared(length + 100).as_bytes(), &reply.body]).await?,
        Wire::CutChunks => {
            let size = format!("{:x}\r\n", half.len());
            send(stream, &[chunked().as_bytes(), size.as_bytes(), half, b"\r\n"]).await?;
        }
        Wire::CutGzip => {
            let reply = reply.clone().compressed();
            let cut = &reply.body[..reply.body.len() / 2];
            let head = reply.head(&format!("Content-Length: {}", cut.len()));
            send(stream, &[head.as_bytes(), cut]).await?;
        }
        Wire::StallInBody => {
            send(stream, &[declared(length).as_bytes(), half]).await?;
            wait_for_hangup(stream).await;
        }
        Wire::Endless => endless(stream, chunked().as_bytes(), &reply.body).await?,
    }
    stream.shutdown().await?;
    Ok(false)
}

async fn send(stream: &mut TcpStream, parts: &[&[u8]]) -> io::Result<()> {
    stream.write_all(&parts.concat()).await?;
    stream.flush().await
}

/// The body but for its last byte, then spaces until the client has had enough.
async fn endless(stream: &mut TcpStream, head: &[u8], body: &[u8]) -> io::Result<()> {
    let body = &body[..body.len().saturating_sub(1)];
    let space = vec![b' '; 0x10000];
    send(stream, &[head, format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n"]).await?;
    loop {
        send(stream, &[b"10000\r\n", &space, b"\r\n"]).await?;
    }
}

async fn wait_for_hangup(stream: &mut TcpStream) {
    let mut byte = [0];
    while stream.read(&mut byte).await.is_ok_and(|read| read > 0) {}
}
