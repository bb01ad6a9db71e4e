//! The socket directory, and a connection that tests whether the server accepts queries.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Uid;

use super::owner::Owner;
use super::{DATABASE, Error, USER};

/// The kernel's limit for the path of a Unix socket, without the final NUL.
const LONGEST_SOCKET: usize = 107;

/// The path of a server's socket.
pub(super) fn socket_file(dir: &Path, port: u16) -> PathBuf {
    dir.join(format!(".s.PGSQL.{port}"))
}

/// Creates the first candidate that is short enough, private, and accessible to the owner.
pub(super) fn prepare_dir(
    data_dir: &Path,
    owner: &Owner,
    program: &Path,
    port: u16,
) -> Result<PathBuf, Error> {
    let mut tried = Vec::new();
    for dir in candidates(data_dir, &|name| std::env::var_os(name).map(PathBuf::from)) {
        let fit = if is_fit(&dir, port) {
            prepare(&dir, owner, program)
        } else {
            Err("too long, or with characters that a list of hosts cannot hold".to_owned())
        };
        match fit {
            Ok(()) => return Ok(dir),
            Err(why) => tried.push(format!("{}: {why}", dir.display())),
        }
    }
    Err(Error::NoSocketDir { tried: tried.join("; ") })
}

fn prepare(dir: &Path, owner: &Owner, program: &Path) -> Result<(), String> {
    owner.private_dir(dir).map_err(|error| error.to_string())?;
    owner.must_reach(dir, program).map_err(|error| error.to_string())
}

/// The directories to try. They depend only on the data directory and the environment, so that a restarted server has
/// the same socket.
fn candidates(data_dir: &Path, variable: &dyn Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let short = format!("backscroll-{:016x}", fnv1a(data_dir.as_os_str().as_encoded_bytes()));
    let mut dirs = Vec::new();
    dirs.extend(first(variable("RUNTIME_DIRECTORY")).map(|dir| dir.join("postgres")));
    dirs.push(data_dir.join("run"));
    if Uid::effective().is_root() {
        dirs.push(Path::new("/run").join(&short));
    } else {
        dirs.extend(first(variable("XDG_RUNTIME_DIR")).map(|dir| dir.join(&short)));
    }
    dirs.push(Path::new("/tmp").join(&short));
    dirs
}

/// The first directory in a variable of systemd, which separates several with colons.
pub(super) fn first(list: Option<PathBuf>) -> Option<PathBuf> {
    let dir = std::env::split_paths(&list?).next()?;
    dir.is_absolute().then_some(dir)
}

/// Whether libpq accepts the path as a host: a comma would begin another host.
fn is_fit(dir: &Path, port: u16) -> bool {
    let plain = |text: &str| !text.contains(|c: char| c.is_control() || ",\"\\".contains(c));
    socket_file(dir, port).as_os_str().len() <= LONGEST_SOCKET && dir.to_str().is_some_and(plain)
}

/// A hash that is the same in every release, unlike that of the standard library.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// How a server reacts to a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It accepts queries.
    Ready,
    /// No server listens, or it is starting, recovering or shutting down.
    NotYet,
    /// It is running but refuses the connection.
    Refused { code: String, message: String },
}

/// Connects as our clients do, which tests the server, the role and the database.
pub(super) async fn knock(dir: &Path, port: u16) -> Answer {
    let socket = socket_file(dir, port);
    let asked = tokio::task::spawn_blocking(move || converse(&socket)).await;
    match asked {
        Ok(Ok(answer)) => answer,
        // The socket has no server, the server is stopping, or the async runtime is.
        Ok(Err(_)) | Err(_) => Answer::NotYet,
    }
}

fn converse(socket: &Path) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(&startup_message())?;
    loop {
        let (kind, body) = read_message(&mut stream)?;
        match (kind, &body[..]) {
            (b'Z', _) => {
                stream.write_all(b"X\0\0\0\x04")?;
                return Ok(Answer::Ready);
            }
            (b'E', fields) => return Ok(judge(fields)),
            // Anything but `AuthenticationOk` would be a request for a password.
            (b'R', code) if code != [0; 4] => {
                return Ok(Answer::Refused {
                    code: "28000".to_owned(),
                    message: "it asks for a password".to_owned(),
                });
            }
            _ => {}
        }
    }
}

fn startup_message() -> Vec<u8> {
    let mut body = vec![0, 3, 0, 0];
    for word in ["user", USER, "database", DATABASE, "application_name", "backscroll probe", ""] {
        body.extend_from_slice(word.as_bytes());
        body.push(0);
    }
    let length = u32::try_from(body.len() + 4).expect("a few short words");
    [&length.to_be_bytes()[..], &body].concat()
}

fn read_message(stream: &mut UnixStream) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    // The server's first messages are short. Anything else is not PostgreSQL.
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if !(4..65_536).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body)?;
    Ok((head[0], body))
}

/// Parses an error response: fields of one letter and a text, each with a final NUL.
fn judge(fields: &[u8]) -> Answer {
    let field = |letter: u8| {
        let mut fields = fields.split(|byte| *byte == 0);
        let text = fields.find_map(|field| field.strip_prefix(&[letter]));
        String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
    };
    let code = field(b'C');
    if code == "53300" {
        // All connections are in use, so the server is running.
        Answer::Ready
    } else if code.starts_with("57") || code.starts_with("53") {
        // Operator intervention (starting, stopping) or insufficient resources. Both are temporary.
        Answer::NotYet
    } else {
        Answer::Refused { code, message: field(b'M') }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<PathBuf> {
        None
    }

    #[test]
    fn a_socket_is_never_too_long() {
        let long = PathBuf::from(format!("/{}", "d".repeat(200)));
        let candidates = candidates(&long, &none);
        assert!(!is_fit(&candidates[0], 5432));
        assert!(is_fit(candidates.last().unwrap(), 5432));
        let limit = LONGEST_SOCKET - "/.s.PGSQL.5432".len();
        assert!(is_fit(Path::new(&format!("/{}", "d".repeat(limit - 1))), 5432));
        assert!(!is_fit(Path::new(&format!("/{}", "d".repeat(limit))), 5432));
        assert!(!is_fit(Path::new("/srv/a,b"), 5432));
    }

    #[test]
    fn the_place_is_a_function_of_the_data_directory() {
        let here = candidates(Path::new("/srv/a"), &none);
        assert_eq!(here, candidates(Path::new("/srv/a"), &none));
        assert_eq!(here[0], Path::new("/srv/a/run"));
        assert_ne!(here.last(), candidates(Path::new("/srv/b"), &none).last());
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn the_runtime_directory_comes_first() {
        let dirs = candidates(Path::new("/srv/a"), &|name| {
            (name == "RUNTIME_DIRECTORY").then(|| "/run/backscroll:/run/other".into())
        });
        assert_eq!(dirs[0], Path::new("/run/backscroll/postgres"));
    }

    #[test]
    fn a_server_that_starts_or_is_full_is_no_failure() {
        assert_eq!(judge(b"SFATAL\0C57P03\0Mstarting up\0\0"), Answer::NotYet);
        assert_eq!(judge(b"SFATAL\0C53300\0Mtoo many\0\0"), Answer::Ready);
        let gone = judge(b"SFATAL\0C3D000\0Mdatabase does not exist\0\0");
        assert!(matches!(gone, Answer::Refused { ref code, .. } if code == "3D000"));
    }
}
