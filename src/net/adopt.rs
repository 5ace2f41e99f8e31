//! Listeners that another process has opened: a predecessor, or a service manager.
//!
//! Their socket is one with that process's, and so is its queue: as long as it is held
//! there, too, it is never filtered, plugged or re-listened, and its path stays.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use rustix::net::SocketType;
use rustix::net::sockopt::{socket_acceptconn, socket_type};
use socket2::{SockRef, Socket as RawSocket};

use super::listener::{Kind, Listener, inheritable};
use super::plug::Spare;
use super::probe::Probe;
use crate::config::Listen;
use crate::handoff::path::SocketFile;
use crate::handoff::{FileId, Keeper};

/// Whether a listener belongs to another network (a namespace) than this process: then
/// those who connect here do not get to it. Not where the kernel does not tell.
///
/// # Errors
///
/// If it has no address.
pub fn is_in_another_network(fd: impl AsFd) -> io::Result<bool> {
    let listed = |socket: BorrowedFd<'_>| -> io::Result<Option<bool>> {
        match SockRef::from(&socket).local_addr()?.as_socket() {
            Some(address) => Ok(Probe::open(socket, address)?.is_listed()),
            None => Ok(None),
        }
    };
    if listed(fd.as_fd())? != Some(false) {
        return Ok(false);
    }
    // One that is certainly of ours shows whether what is told can be believed.
    let ours = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    Ok(listed(ours.as_fd())? == Some(true))
}

impl Listener {
    /// The listener that somebody else has opened for this address. What it is bound to
    /// is not compared: port 0 has become another, and a service manager gives what it is
    /// told to. It counts as held elsewhere.
    ///
    /// # Errors
    ///
    /// If it is no listener of that family.
    pub fn adopt(listen: &Listen, secure: bool, fd: OwnedFd) -> io::Result<Listener> {
        if socket_type(&fd)? != SocketType::STREAM || !socket_acceptconn(&fd)? {
            return Err(io::Error::other("it is no listening socket"));
        }
        let socket = RawSocket::from(fd);
        let bound = socket.local_addr()?;
        socket.set_nonblocking(true)?;
        socket.set_cloexec(true)?;
        let kind = match listen {
            Listen::Tcp(_) => {
                let Some(address) = bound.as_socket() else {
                    return Err(io::Error::other("it is no listener for TCP"));
                };
                inheritable(&socket)?;
                let socket = TcpListener::from(socket);
                let spare = Some(Spare::new(&socket, address)?);
                Kind::Tcp { socket, address, spare }
            }
            Listen::Unix { path, mode } => {
                if !bound.is_unix() {
                    return Err(io::Error::other("it is no unix socket"));
                }
                let here = bound.as_pathname() == Some(path);
                // Where it is elsewhere, it is not ours to remove.
                let file = here.then(|| SocketFile::adopt(path, *mode));
                let path = bound.as_pathname().unwrap_or(path).to_path_buf();
                Kind::Unix { socket: UnixListener::from(OwnedFd::from(socket)), path, file }
            }
            Listen::Fd(_) => {
                let text = "what a service manager has opened is known by its own address";
                return Err(io::Error::other(text));
            }
        };
        Ok(Listener { kind, name: Listener::name_of(listen), secure, held: true, keeper: None })
    }

    /// Its path is that of `listen`, whatever it was when it was bound: that leads to it.
    #[must_use]
    pub fn found_at(mut self, listen: &Listen) -> Listener {
        if let (Kind::Unix { path, file, .. }, Listen::Unix { path: at, mode }) =
            (&mut self.kind, listen)
        {
            at.clone_into(path);
            *file = Some(SocketFile::adopt(at, *mode));
        }
        self
    }

    /// Its path gets the permissions that the configuration gives it, where it was adopted:
    /// they may be others than it was opened with. Not before the process serves: until
    /// then it is another's.
    ///
    /// # Errors
    ///
    /// If it is somebody else's file.
    pub fn set_mode(&mut self) -> io::Result<()> {
        match &mut self.kind {
            Kind::Unix { file: Some(file), .. } => file.set_mode(),
            _ => Ok(()),
        }
    }

    /// The file of its path, where it has one.
    #[must_use]
    pub fn file(&self) -> Option<FileId> {
        match &self.kind {
            Kind::Unix { file, .. } => file.as_ref().and_then(SocketFile::id),
            Kind::Tcp { .. } => None,
        }
    }

    /// What a listener at this address is called: the address as configured, so that a
    /// successor with the same configuration finds it whatever port it has become.
    #[must_use]
    pub fn name_of(listen: &Listen) -> String {
        match listen {
            Listen::Tcp(address) => address.to_string(),
            // The mode is not who it is.
            Listen::Unix { path, .. } => format!("unix:{}", path.display()),
            Listen::Fd(_) => listen.to_string(),
        }
    }

    /// The names of all listeners of a configuration, in its order: the second at the
    /// same address, such as port 0, is called `#2`.
    pub fn names_of<'a>(listeners: impl IntoIterator<Item = &'a Listen>) -> Vec<String> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        let numbered = listeners.into_iter().map(|listen| {
            let name = Listener::name_of(listen);
            let times = seen.entry(name.clone()).or_default();
            *times += 1;
            if *times == 1 { name } else { format!("{name}#{times}") }
        });
        numbered.collect()
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives it another name than that of its address.
    #[must_use]
    pub fn named(mut self, name: String) -> Listener {
        self.name = name;
        self
    }

    /// Says whether another generation holds the same socket: then closing it only closes
    /// our copy and leaves the queue, and the path, to that one.
    pub fn set_held(&mut self, held: bool) {
        self.held = held;
        self.settle_path();
    }

    /// Whether another process holds the same socket.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held || self.keeper.is_some()
    }

    /// Says how a service manager holds the same socket, whatever becomes of us and of
    /// those after us, who have to be told.
    pub fn set_keeper(&mut self, keeper: Option<Keeper>) {
        self.keeper = keeper;
        self.settle_path();
    }

    fn settle_path(&mut self) {
        let held = self.is_held();
        match &mut self.kind {
            Kind::Unix { file: Some(file), .. } if held => file.leave(),
            Kind::Unix { file: Some(file), .. } => file.own(),
            _ => {}
        }
    }

    /// How a service manager holds the same socket, if one does.
    #[must_use]
    pub fn keeper(&self) -> Option<Keeper> {
        self.keeper
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::drain::Deadline;
    use crate::net::{Peer, Taker, Way, close};

    struct Count(usize);

    impl Taker for &mut Count {
        fn has_room(&self) -> bool {
            true
        }

        fn take(&mut self, _: OwnedFd, _: Peer) {
            self.0 += 1;
        }
    }

    fn tcp() -> Listen {
        Listen::Tcp("127.0.0.1:0".parse().unwrap())
    }

    fn copy(listener: &Listener) -> OwnedFd {
        listener.as_fd().try_clone_to_owned().unwrap()
    }

    fn closed(listener: Listener) -> (crate::net::Closed, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut count = Count(0);
        let patience = Deadline::after(Instant::now(), Duration::from_secs(5));
        let closed = runtime.block_on(close(listener, &mut count, patience));
        (closed, count.0)
    }

    #[test]
    fn a_shared_queue_is_left_to_the_other_holder() {
        let elder = Listener::bind(&tcp(), false).unwrap();
        let successor = Listener::adopt(&tcp(), true, copy(&elder)).unwrap();
        assert!(successor.is_held() && successor.is_secure() && !elder.is_held());
        assert_eq!((successor.name(), successor.to_string()), ("127.0.0.1:0", elder.to_string()));
        let address: SocketAddr = elder.to_string().parse().unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let (first, taken) = closed(successor);
        assert_eq!((first.way, first.accepted, first.reset, taken), (Way::Shared, 0, 0, 0));
        assert_eq!(first.way.name(), "shared");
        // Neither filtered nor plugged: the next one is let in, too.
        let _next = TcpStream::connect(address).unwrap();
        let (last, taken) = closed(elder);
        assert_eq!((last.accepted, last.reset, taken), (2, 0, 2));
        assert_ne!(last.way, Way::Shared);
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn a_path_goes_with_the_last_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listen = Listen::Unix { path: path.clone(), mode: Some(0o600) };
        let elder = Listener::bind(&listen, false).unwrap();
        let mut successor = Listener::adopt(&listen, false, copy(&elder)).unwrap();
        let mut elder = elder;
        elder.set_held(true);
        assert_eq!(closed(elder).0.way, Way::Shared);
        let _client = UnixStream::connect(&path).unwrap();
        successor.set_held(false);
        let (last, taken) = closed(successor);
        assert_eq!((last.way, taken), (Way::Unlinked, 1));
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_such_listener_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let unix = Listen::Unix { path: dir.path().join("s"), mode: None };
        let of_tcp = Listener::bind(&tcp(), false).unwrap();
        let of_unix = Listener::bind(&unix, false).unwrap();
        assert!(Listener::adopt(&unix, false, copy(&of_tcp)).is_err());
        assert!(Listener::adopt(&tcp(), false, copy(&of_unix)).is_err());
        let (stream, _far) = UnixStream::pair().unwrap();
        assert!(Listener::adopt(&unix, false, stream.into()).is_err());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Listener::adopt(&tcp(), false, file.into()).is_err());
        // One that is elsewhere keeps its path.
        let other = Listen::Unix { path: dir.path().join("other"), mode: None };
        let mut adopted = Listener::adopt(&other, false, copy(&of_unix)).unwrap();
        adopted.set_held(false);
        assert_eq!(closed(adopted).0.way, Way::Unlinked);
        assert!(dir.path().join("s").exists());
    }

    #[test]
    fn accepted_connections_inherit_the_same_as_ours() {
        let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = foreign.local_addr().unwrap();
        let adopted = Listener::adopt(&tcp(), false, foreign.into()).unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let Kind::Tcp { socket, .. } = &adopted.kind else { panic!("no TCP listener") };
        socket.set_nonblocking(false).unwrap();
        let (accepted, _) = socket.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap() && accepted.keepalive().unwrap());
    }

    #[test]
    fn listeners_are_named_by_their_configuration() {
        let unix = Listen::Unix { path: "/run/s".into(), mode: Some(0o660) };
        let again = Listen::Unix { path: "/run/s".into(), mode: None };
        let names = Listener::names_of([&tcp(), &unix, &tcp(), &tcp(), &again]);
        let expected =
            ["127.0.0.1:0", "unix:/run/s", "127.0.0.1:0#2", "127.0.0.1:0#3", "unix:/run/s#2"];
        assert_eq!(names, expected);
        let named = Listener::bind(&tcp(), false).unwrap().named("a".to_owned());
        assert_eq!(named.share().unwrap().name(), "a");
    }
}
