//! A bounded writer thread in front of a file descriptor.
//!
//! Owns the descriptor and the queue before it. Promises that [`Sink::push`]
//! never waits for the output, that memory is bounded, that every line which
//! was not written is counted, and that a broken output neither ends the
//! process nor makes the thread spin: each chunk is tried once. Does not format
//! and does not report: [`Sink::change`] says what there is to report.
//!
//! Others may write to the same output: a predecessor, a successor, our own sink of
//! stderr. A file and a terminal take a write whole. A pipe or a socket may take a long
//! one in parts, between which others come; so it gets whole lines in pieces that are
//! never taken apart. A line that is longer than such a piece may be torn where its
//! reader is slow.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, fstat};

use crate::limits::LINES_TOGETHER;

/// The handle to a writer thread; clones share it. The thread ends when the
/// last clone is gone and what was queued is written.
#[derive(Clone, Debug)]
pub struct Sink {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: &'static str,
    bound: usize,
    /// Held only to move a chunk in or out, never during a write.
    state: Mutex<State>,
    queued: Condvar,
    settled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Chunk>,
    /// Octets in `queue` and in the chunk that is being written.
    waiting: usize,
    /// Chunks taken into the queue, and chunks written or given up, ever.
    accepted: u64,
    settled: u64,
    dropped: u64,
    closed: bool,
    health: Health,
    reported: Reported,
}

#[derive(Debug)]
struct Chunk {
    octets: Vec<u8>,
    lines: u32,
}

/// How a sink fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// What is pushed is written.
    #[default]
    Works,
    /// Lines are dropped because the output is slower than we are.
    Overflows,
    /// Lines are dropped because writing fails, for the reason given.
    Fails(String),
}

#[derive(Debug, Default)]
struct Reported {
    health: Health,
    dropped: u64,
}

/// A change of health since it was last asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The name of the sink.
    pub name: &'static str,
    /// How it fares now.
    pub health: Health,
    /// Lines dropped until now.
    pub dropped: u64,
}

impl Sink {
    /// Starts the thread that writes to `output` what is pushed. At most `bound`
    /// octets, and one chunk more, wait in memory.
    pub fn new<W>(name: &'static str, output: W, bound: usize) -> io::Result<Self>
    where
        W: Write + AsFd + Send + 'static,
    {
        let shared = Arc::new(Shared {
            name,
            bound,
            state: Mutex::default(),
            queued: Condvar::new(),
            settled: Condvar::new(),
        });
        let together = together(output.as_fd());
        let writer = Writer { shared: Arc::clone(&shared), output, together, torn: false };
        std::thread::Builder::new().name(name.to_owned()).spawn(move || writer.run())?;
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    /// A sink that writes to stdout, past the standard library's buffer and lock.
    pub fn stdout(name: &'static str, bound: usize) -> io::Result<Self> {
        Self::duplicate(name, io::stdout().as_fd(), bound)
    }

    /// A sink that writes to stderr.
    pub fn stderr(name: &'static str, bound: usize) -> io::Result<Self> {
        Self::duplicate(name, io::stderr().as_fd(), bound)
    }

    fn duplicate(name: &'static str, fd: BorrowedFd<'_>, bound: usize) -> io::Result<Self> {
        Self::new(name, File::from(fd.try_clone_to_owned()?), bound)
    }

    /// Queues whole lines, or drops and counts them when the bound is reached.
    pub fn push(&self, chunk: Vec<u8>, lines: u32) {
        if chunk.is_empty() {
            return;
        }
        let shared = &self.handle.shared;
        let mut state = shared.lock();
        if state.waiting >= shared.bound {
            state.dropped += u64::from(lines);
            // A failing output explains the overflow; keep the better reason.
            if state.health == Health::Works {
                state.health = Health::Overflows;
            }
            return;
        }
        state.waiting += chunk.len();
        state.accepted += 1;
        state.queue.push_back(Chunk { octets: chunk, lines });
        drop(state);
        shared.queued.notify_one();
    }

    /// Lines that were not written, ever.
    pub fn dropped(&self) -> u64 {
        self.handle.shared.lock().dropped
    }

    /// Waits until everything queued so far is written or given up; `false` if
    /// the deadline came first. Blocks the thread: only for the end of a process.
    pub fn flush(&self, deadline: Instant) -> bool {
        let shared = &self.handle.shared;
        let mut state = shared.lock();
        let target = state.accepted;
        while state.settled < target {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            if left.is_zero() {
                return false;
            }
            state =
                shared.settled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// What changed since the last call. An output that only keeps up now and
    /// then is not said to work again: no line may have been lost in between.
    pub fn change(&self) -> Option<Change> {
        let shared = &self.handle.shared;
        let mut state = shared.lock();
        let lost = state.dropped != state.reported.dropped;
        state.reported.dropped = state.dropped;
        if state.health == state.reported.health || (state.health == Health::Works && lost) {
            return None;
        }
        state.reported.health = state.health.clone();
        Some(Change { name: shared.name, health: state.health.clone(), dropped: state.dropped })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.queued.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer<W> {
    shared: Arc<Shared>,
    output: W,
    /// How much is written at once.
    together: usize,
    /// The last write ended inside a line.
    torn: bool,
}

impl<W: Write + AsFd> Writer<W> {
    fn run(mut self) {
        while let Some(chunk) = self.next() {
            let result = self.write(&chunk.octets);
            self.settle(&chunk, result);
        }
    }

    fn next(&self) -> Option<Chunk> {
        let mut state = self.shared.lock();
        loop {
            if let Some(chunk) = state.queue.pop_front() {
                return Some(chunk);
            }
            if state.closed {
                return None;
            }
            state = self.shared.queued.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn settle(&self, chunk: &Chunk, result: Result<(), Failure>) {
        let mut state = self.shared.lock();
        state.waiting -= chunk.octets.len();
        state.settled += 1;
        match result {
            Ok(()) => state.health = Health::Works,
            Err(failure) => {
                state.dropped += u64::from(chunk.lines.saturating_sub(failure.lines_written));
                state.health = Health::Fails(failure.error.to_string());
            }
        }
        drop(state);
        self.shared.settled.notify_all();
    }

    /// Writes a chunk. After a line was torn the next chunk starts on a new one,
    /// so that one lost line does not spoil its successor.
    fn write(&mut self, octets: &[u8]) -> Result<(), Failure> {
        if self.torn {
            self.write_all(b"\n").map_err(|(_, error)| Failure { lines_written: 0, error })?;
            self.torn = false;
        }
        self.write_all(octets).map_err(|(written, error)| {
            let written = octets.get(..written).unwrap_or_default();
            self.torn = written.last().is_some_and(|&last| last != b'\n');
            let lines = memchr::memchr_iter(b'\n', written).count();
            Failure { lines_written: u32::try_from(lines).unwrap_or(u32::MAX), error }
        })
    }

    /// Like [`Write::write_all`], but says how much was written, and waits where
    /// somebody made our output non-blocking (a pipe's mode is shared with
    /// whoever else holds it).
    fn write_all(&mut self, octets: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while written < octets.len() {
            let rest = &octets[written..];
            match self.output.write(&rest[..piece(rest, self.together)]) {
                Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.wait_writable().map_err(|e| (written, e))?;
                }
                Err(e) => return Err((written, e)),
            }
        }
        Ok(())
    }

    fn wait_writable(&self) -> io::Result<()> {
        let mut fds = [PollFd::new(&self.output, PollFlags::OUT)];
        match poll(&mut fds, None) {
            // Whatever it reports, the next write meets the error itself.
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// How much `output` takes without what others write in between.
fn together(output: BorrowedFd<'_>) -> usize {
    let kind = fstat(output).map(|stat| FileType::from_raw_mode(stat.st_mode));
    match kind {
        Ok(FileType::Fifo | FileType::Socket) => LINES_TOGETHER,
        _ => usize::MAX,
    }
}

/// The length of the lines at the beginning of `octets` that fit into `together`; of the
/// first if it does not.
fn piece(octets: &[u8], together: usize) -> usize {
    if octets.len() <= together {
        return octets.len();
    }
    let last = memchr::memrchr(b'\n', &octets[..together]);
    last.or_else(|| memchr::memchr(b'\n', octets)).map_or(octets.len(), |last| last + 1)
}

struct Failure {
    lines_written: u32,
    error: io::Error,
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, pipe};
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn piped(bound: usize) -> (Sink, PipeReader) {
        let (reader, writer) = pipe().unwrap();
        (Sink::new("test", writer, bound).unwrap(), reader)
    }

    /// A pipe that takes nothing more, and how much it holds.
    fn full_pipe() -> (PipeReader, PipeWriter, usize) {
        let (reader, mut writer) = pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let mut held = 0;
        while let Ok(n) = writer.write(&[b'x'; 4096]) {
            held += n;
        }
        (reader, writer, held)
    }

    #[test]
    fn chunks_are_written_in_order_and_flush_waits_for_them() {
        let (sink, mut reader) = piped(1 << 20);
        sink.push(b"one\n".to_vec(), 1);
        sink.clone().push(b"two\nthree\n".to_vec(), 2);
        assert!(sink.flush(soon()));
        drop(sink);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\nthree\n");
    }

    /// What two writers to one output wrote, who both are faster than its reader: each
    /// line is of one letter, and tells its own length.
    fn two_writers(mut reader: impl Read, output: impl Fn() -> File) {
        const CHUNKS: usize = 40;
        for letter in [b'a', b'b'] {
            let sink = Sink::new("test", output(), 64 << 20).unwrap();
            for n in 0..CHUNKS {
                let mut chunk = Vec::new();
                while chunk.len() < 16 << 10 {
                    let length = (n * 37 + chunk.len() * 31) % 1500 + 1;
                    chunk.extend(format!("{length:4}").bytes());
                    chunk.extend(vec![letter; length]);
                    chunk.push(b'\n');
                }
                sink.push(chunk, 1);
            }
        }
        drop(output);
        let mut text = Vec::new();
        let mut some = [0; 700];
        loop {
            std::thread::yield_now();
            match reader.read(&mut some).unwrap() {
                0 => break,
                n => text.extend_from_slice(&some[..n]),
            }
        }
        assert!(text.len() > 2 * CHUNKS * (16 << 10));
        for line in text.split(|&octet| octet == b'\n').filter(|line| !line.is_empty()) {
            let (length, letters) = line.split_at_checked(4).unwrap_or_default();
            let length = std::str::from_utf8(length).ok().and_then(|text| text.trim().parse().ok());
            assert_eq!(Some(letters.len()), length, "{}", String::from_utf8_lossy(line));
            assert!(letters.iter().all(|&letter| letter == letters[0]));
        }
    }

    #[test]
    fn lines_of_two_writers_to_one_output_are_not_torn() {
        let (reader, writer) = pipe().unwrap();
        let writer = std::os::fd::OwnedFd::from(writer);
        two_writers(reader, move || File::from(writer.try_clone().unwrap()));
        let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let writer = std::os::fd::OwnedFd::from(writer);
        two_writers(reader, move || File::from(writer.try_clone().unwrap()));
    }

    #[test]
    fn a_piece_is_of_whole_lines() {
        for (octets, together, length) in [
            ("a\nb\n", 4, 4),
            ("a\nb\n", 3, 2),
            ("a\nbcdef\n", 4, 2),
            ("abcdef\ng\n", 4, 7),
            ("abcdef", 4, 6),
            ("a\nb\n", usize::MAX, 4),
        ] {
            assert_eq!(piece(octets.as_bytes(), together), length, "{octets:?} {together}");
        }
    }

    #[test]
    fn a_full_pipe_never_blocks_push_and_flush_returns_at_its_deadline() {
        for nonblocking in [false, true] {
            let (reader, writer, _) = full_pipe();
            rustix::io::ioctl_fionbio(&writer, nonblocking).unwrap();
            let sink = Sink::new("test", writer, 64 << 10).unwrap();
            for _ in 0..1000 {
                sink.push(vec![b'\n'; 1024], 1024);
            }
            let begun = Instant::now();
            assert!(!sink.flush(begun + Duration::from_millis(50)));
            assert!(begun.elapsed() < Duration::from_secs(5));
            assert!(sink.dropped() >= 900 * 1024);
            let change = sink.change().unwrap();
            assert_eq!(change.health, Health::Overflows);
            assert_eq!(sink.change(), None);
            drop(reader);
        }
    }

    #[test]
    fn a_non_blocking_pipe_is_waited_for_and_loses_nothing() {
        let (mut reader, writer, held) = full_pipe();
        let sink = Sink::new("test", writer, 1 << 20).unwrap();
        sink.push(b"late\n".to_vec(), 1);
        reader.read_exact(&mut vec![0; held]).unwrap();
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line).unwrap();
        assert_eq!(line, "late\n");
        assert!(sink.flush(soon()));
        assert_eq!((sink.dropped(), sink.change()), (0, None));
    }

    #[test]
    fn a_full_disk_is_counted_and_reported_once_and_the_process_goes_on() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let sink = Sink::new("access log", full, 1 << 20).unwrap();
        for _ in 0..3 {
            sink.push(b"a\nb\n".to_vec(), 2);
            assert!(sink.flush(soon()));
        }
        assert_eq!(sink.dropped(), 6);
        let change = sink.change().unwrap();
        assert!(
            matches!(&change.health, Health::Fails(why) if why.contains("No space left on device"))
        );
        assert_eq!((change.name, change.dropped), ("access log", 6));
        sink.push(b"c\n".to_vec(), 1);
        assert!(sink.flush(soon()));
        assert_eq!(sink.change(), None);
    }

    #[test]
    fn a_reader_that_went_away_is_counted_not_fatal() {
        let (sink, reader) = piped(1 << 20);
        drop(reader);
        sink.push(b"lost\n".to_vec(), 1);
        assert!(sink.flush(soon()));
        assert_eq!(sink.dropped(), 1);
        assert!(matches!(sink.change().unwrap().health, Health::Fails(_)));
    }

    /// Fails every second write, after half of it.
    struct Flaky {
        output: PipeWriter,
        writes: u32,
    }

    impl Write for Flaky {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.writes += 1;
            match self.writes {
                1 => self.output.write(&octets[..octets.len() / 2]),
                2 => Err(io::ErrorKind::StorageFull.into()),
                _ => self.output.write(octets),
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl AsFd for Flaky {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.output.as_fd()
        }
    }

    #[test]
    fn an_output_that_recovers_says_so_and_a_torn_line_spoils_no_other() {
        let (mut reader, output) = pipe().unwrap();
        let sink = Sink::new("test", Flaky { output, writes: 0 }, 1 << 20).unwrap();
        sink.push(b"a\nbcde\n".to_vec(), 2);
        assert!(sink.flush(soon()));
        assert_eq!(sink.dropped(), 1);
        assert!(matches!(sink.change().unwrap().health, Health::Fails(_)));
        sink.push(b"whole\n".to_vec(), 1);
        assert!(sink.flush(soon()));
        assert_eq!(sink.change().unwrap().health, Health::Works);
        drop(sink);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "a\nb\nwhole\n");
    }
}
