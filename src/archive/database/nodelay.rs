//! Sets `TCP_NODELAY` on each TCP connection of this process. sqlx 0.9.0 leaves Nagle's algorithm on. Then the end of
//! a `COPY` waits until the server has acknowledged the rows before it, which a server with nothing to send delays by
//! 40 ms. No release of sqlx fixes its issue 4335 yet. Remove this file when one does.
//!
//! sqlx does not expose its socket. So the process finds its sockets in `/proc/self/fd` and gets a second descriptor
//! of each: it sends the descriptor by number over a socket pair (`SCM_RIGHTS`, unix(7)), and the received one is
//! ours to use and to close. A socket option applies to the connection, whichever descriptor sets it.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketType, recvmsg,
    sockopt::{set_tcp_nodelay, socket_domain, socket_type, tcp_nodelay},
};

/// Sets the option on all TCP connections that are open now. A failure only costs time.
pub(in crate::archive) fn send_at_once() {
    if let Err(error) = try_send_at_once() {
        tracing::debug!(%error, "the database connections hold back what they are to send: COPY takes 40 ms longer over TCP");
    }
}

fn try_send_at_once() -> io::Result<()> {
    let pair = UnixStream::pair()?;
    for number in sockets()? {
        // It may have been closed meanwhile.
        let Ok(socket) = second_descriptor(&pair, number) else { continue };
        let is_tcp = matches!(socket_domain(&socket), Ok(AddressFamily::INET | AddressFamily::INET6))
            && socket_type(&socket) == Ok(SocketType::STREAM);
        if is_tcp && tcp_nodelay(&socket) == Ok(false) {
            set_tcp_nodelay(&socket, true)?;
        }
    }
    Ok(())
}

/// The descriptors that are sockets.
fn sockets() -> io::Result<Vec<RawFd>> {
    let is_socket = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    let entries = fs::read_dir("/proc/self/fd")?.filter_map(Result::ok);
    Ok(entries.filter(is_socket).filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

fn second_descriptor((from, to): &(UnixStream, UnixStream), number: RawFd) -> io::Result<OwnedFd> {
    let (byte, mut received) = ([io::IoSlice::new(&[0])], [0]);
    sendmsg::<()>(from.as_raw_fd(), &byte, &[ControlMessage::ScmRights(&[number])], MsgFlags::empty(), None)?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(to, &mut [io::IoSliceMut::new(&mut received)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.next().and_then(|mut sent| sent.next()).ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn every_tcp_connection_sends_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let stream = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        assert!(!stream.nodelay().expect("the option"));
        send_at_once();
        assert!(stream.nodelay().expect("the option"));
    }
}
