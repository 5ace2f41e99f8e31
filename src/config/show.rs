//! Values as text again, in the same forms in which they are configured.
//!
//! Owns how a person reads a checked value, in `check`, at start and in
//! warnings. What is shown here parses back to the same value.

use std::fmt;
use std::time::Duration;

use super::model::{Address, Endpoint, INFINITY, Listen, Plan, Speaks};
use super::value::UNITS;
use crate::limits;

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix { path, mode: None } => write!(f, "unix:{}", path.display()),
            Self::Unix { path, mode: Some(mode) } => {
                write!(f, "unix:{},mode={mode:04o}", path.display())
            }
            Self::Fd(name) => write!(f, "fd:{name}"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = &self.address;
        match (self.speaks, address) {
            (Speaks::Http, _) => write!(f, "{address}"),
            (Speaks::Https, _) => write!(f, "https://{address}"),
            (Speaks::H2c, Address::Unix(_)) => write!(f, "h2c:{address}"),
            (Speaks::H2c, _) => write!(f, "h2c://{address}"),
            (Speaks::H2, _) => write!(f, "h2://{address}"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A duration as it is configured: `1m30s`, `1s500ms`, `infinity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == INFINITY {
            return f.write_str("infinity");
        }
        let mut rest = self.0.as_nanos();
        if rest < 1_000_000 {
            // Only a bare fraction of seconds reaches below a millisecond.
            return if rest == 0 { f.write_str("0s") } else { write!(f, "0.{rest:09}") };
        }
        for (unit, nanos) in UNITS {
            let count = rest / nanos;
            rest %= nanos;
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Plan {
    /// The sum of the phases of a stop, which is the default of `total_timeout`
    /// and the least it may be. [`INFINITY`] if `drain_timeout` is.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.rest().saturating_add(self.lame_duck).saturating_add(limits::CLOSING)
    }

    /// The same of a drain that closes no listener, since a successor has them.
    #[must_use]
    pub fn rest(&self) -> Duration {
        let parts = [self.cut_timeout, self.finish_timeout];
        parts.iter().fold(self.drain_timeout, |sum, part| sum.saturating_add(*part))
    }

    /// The longest time from the signal to the end of the process: the bound
    /// of all phases and the watchdog's patience after it.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.total_timeout.saturating_add(self.force_timeout)
    }

    /// One line for people: how long a stop takes at most, of what that is
    /// made, and what the platform has to grant.
    #[must_use]
    pub fn sum_line(&self) -> String {
        let phases = format!(
            "lame duck {}, closing {}, draining {}, cutting {}, finishing {}",
            Span(self.lame_duck),
            Span(limits::CLOSING),
            Span(self.drain_timeout),
            Span(self.cut_timeout),
            Span(self.finish_timeout),
        );
        if self.total_timeout == INFINITY {
            return format!(
                "a stop has no bound ({phases}): it waits until the last request has ended, or \
                 until a second signal, or until the platform kills the process"
            );
        }
        format!(
            "a stop takes at most {} (+{} watchdog): {phases}; grant the process {} or more \
             (terminationGracePeriodSeconds, TimeoutStopSec, docker stop -t)",
            Span(self.total_timeout),
            Span(self.force_timeout),
            Span(self.longest()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value;

    #[test]
    fn what_is_shown_parses_back() {
        for text in ["0s", "500ms", "1s500ms", "1m30s", "1h", "2h1s", "infinity", "0.000000001"] {
            let parsed = value::duration(text).unwrap();
            assert_eq!(Span(parsed).to_string(), text);
        }
        for text in ["0.0.0.0:80", "[::1]:80", "unix:/a", "unix:/a,mode=0660"] {
            assert_eq!(value::listen(text).unwrap().to_string(), text);
        }
        for text in [
            "app:80",
            "[::1]:80",
            "unix:/a",
            "https://app:443",
            "https://[::1]:443",
            "h2c://app:80",
            "h2c:unix:/a",
            "h2://app:443",
        ] {
            assert_eq!(value::endpoint(text).unwrap().to_string(), text);
        }
    }
}
