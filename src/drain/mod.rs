//! The drain core: tell, count, wait and cut. Knows nothing of HTTP, sockets or processes.

mod phase;

pub use phase::Phase;
