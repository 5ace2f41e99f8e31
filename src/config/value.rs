//! The text forms of values: durations, sizes, numbers and addresses.
//!
//! Owns the syntax and nothing else: which key takes which form, its bounds
//! and its place in the configuration are the business of the table in `keys`.
//! Every parser is total, takes the text without surrounding space and says
//! [`Refused`] to whatever it does not understand. None resolves a name or
//! touches the file system.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::model::{Address, Endpoint, INFINITY, Listen, Speaks};
use crate::limits;
use crate::stream::websocket;

/// A text is not a value of the wanted form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// What the list of allowed forms alone would not tell, if anything.
    pub(super) why: Option<&'static str>,
}

impl Refused {
    /// Not one of the allowed forms; there is nothing to add to that.
    pub(super) const FORM: Self = Self { why: None };

    /// Refused for a reason worth a sentence.
    pub(super) const fn because(why: &'static str) -> Self {
        Self { why: Some(why) }
    }
}

/// What a parser answers.
pub(super) type Parsed<T> = Result<T, Refused>;

/// The units of a duration with their nanoseconds, largest first.
pub(super) const UNITS: [(&str, u128); 4] =
    [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000)];

/// `500ms`, `1.5s`, `1m30s`, `1h`; a bare number is seconds; `infinity` is [`INFINITY`].
pub(super) fn duration(text: &str) -> Parsed<Duration> {
    if text == "infinity" {
        return Ok(INFINITY);
    }
    let nanos = match decimal(text, 1_000_000_000) {
        Some(seconds) => seconds,
        None => sum_of_units(text)?,
    };
    if nanos > limits::DURATION_MAX.as_nanos() {
        return Err(Refused::because("it is longer than a year (8760h)"));
    }
    // The bound above keeps both parts in range: a year is 3e16 nanoseconds.
    let nanos = u64::try_from(nanos).map_err(|_| Refused::FORM)?;
    Ok(Duration::from_nanos(nanos))
}

/// `1m30s`: numbers with units, each unit once, larger units first.
fn sum_of_units(text: &str) -> Parsed<u128> {
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut sum = 0_u128;
    if rest.is_empty() {
        return Err(Refused::FORM);
    }
    while !rest.is_empty() {
        let (number, after) = split(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, after) = split(after, |c| c.is_ascii_alphabetic());
        let (_, nanos) = units.find(|(name, _)| *name == unit).ok_or(Refused::FORM)?;
        let part = decimal(number, *nanos).ok_or(Refused::FORM)?;
        sum = sum.checked_add(part).ok_or(Refused::FORM)?;
        rest = after;
    }
    Ok(sum)
}

/// Splits where `belongs` first says no.
fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// A decimal number of `unit`s, exactly: `1.5` of 1000 is 1500. What lies
/// below one is dropped.
fn decimal(text: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = match text.split_once('.') {
        Some((_, "")) => return None,
        Some((whole, fraction)) if fraction.len() <= 9 => (whole, fraction),
        Some(_) => return None,
        None => (text, ""),
    };
    let whole = u128::from(digits(whole)?);
    let part = if fraction.is_empty() { 0 } else { u128::from(digits(fraction)?) };
    // Nine digits at most: the power fits.
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_mul(unit)?.checked_add(part * unit / scale)
}

/// Digits and nothing else; `str::parse` alone would take a sign too.
fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// A protocol's name in `Upgrade` (RFC 9110 section 7.8), in lower case.
pub(super) fn upgrade_token(text: &str) -> Parsed<String> {
    let token = text.to_ascii_lowercase();
    let is_tchar =
        |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&octet);
    if token == "h2c" || token.starts_with("http") {
        return Err(Refused::because("HTTP is spoken to the app in one way only"));
    }
    if token == "websocket" {
        return Err(Refused::because("it is always allowed"));
    }
    if token.is_empty() || token.starts_with('/') || !token.bytes().all(is_tchar) {
        return Err(Refused::FORM);
    }
    Ok(token)
}

/// A code that may stand in a Close frame.
pub(super) fn close_code(text: &str) -> Parsed<u16> {
    let code = digits(text).and_then(|code| u16::try_from(code).ok()).ok_or(Refused::FORM)?;
    if !websocket::is_sendable(code) {
        return Err(Refused::because("it may not be sent"));
    }
    Ok(code)
}

/// A reason that fits into a Close frame.
pub(super) fn close_reason(text: &str) -> Parsed<String> {
    if text.len() > websocket::REASON_MAX {
        return Err(Refused::because("it is too long"));
    }
    Ok(text.to_owned())
}

/// A whole number.
pub(super) fn number(text: &str) -> Parsed<u64> {
    digits(text).ok_or(Refused::FORM)
}

/// `64k`, `1m`, 1024-based; a bare number is bytes.
pub(super) fn size(text: &str) -> Parsed<u64> {
    let (number, unit) = split(text, |c| c.is_ascii_digit());
    let factor = match unit {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return Err(Refused::FORM),
    };
    digits(number).and_then(|n| n.checked_mul(factor)).ok_or(Refused::FORM)
}

/// `true` or `false`.
pub(super) fn flag(text: &str) -> Parsed<bool> {
    text.parse().map_err(|_| Refused::FORM)
}

/// Where to listen: `HOST:PORT`, `:PORT`, `[::1]:PORT`, `unix:PATH[,mode=0660]`, `fd:NAME`.
///
/// A listener is an address, never a name that would have to be resolved;
/// `localhost` stands for 127.0.0.1. `:PORT` is every IPv4 address, `0.0.0.0`:
/// `[::]` would take IPv6 along only where the kernel was told so, and cannot
/// be bound at all where IPv6 is switched off.
pub(super) fn listen(text: &str) -> Parsed<Listen> {
    if let Some(rest) = text.strip_prefix("unix:") {
        let (path, mode) = match rest.rsplit_once(",mode=") {
            Some((path, mode)) => (path, Some(self::mode(mode)?)),
            None => (rest, None),
        };
        return Ok(Listen::Unix { path: socket_path(path)?, mode });
    }
    if let Some(name) = text.strip_prefix("fd:") {
        return fd_name(name).map(Listen::Fd);
    }
    let (host, port) = host_and_port(text)?;
    let address = match host {
        Host::None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Host::V6(address) => IpAddr::V6(address),
        Host::Name("localhost") => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Host::Name(name) => IpAddr::V4(name.parse().map_err(|_| {
            Refused::because("a listener takes an IP address or localhost, not a name")
        })?),
    };
    Ok(Listen::Tcp(SocketAddr::new(address, port)))
}

/// The name that a service manager gives a socket (FileDescriptorName=).
fn fd_name(text: &str) -> Parsed<String> {
    let fits = |octet: u8| octet.is_ascii_graphic() && octet != b':';
    if text.is_empty() || text.len() > limits::FD_NAME_MAX || !text.bytes().all(fits) {
        return Err(Refused::because(
            "a socket's name has 1 to 255 visible ASCII letters, no colon",
        ));
    }
    Ok(text.to_owned())
}

/// Permission bits in octal.
fn mode(text: &str) -> Parsed<u32> {
    let refused = Refused::because("mode is three octal digits, such as 0660");
    digits(text).ok_or(refused)?;
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(refused),
    }
}

/// The path of a unix socket.
pub(super) fn socket_path(text: &str) -> Parsed<PathBuf> {
    if text.len() > limits::UNIX_PATH_MAX {
        return Err(Refused::because("the path of a unix socket has at most 107 bytes"));
    }
    path(text)
}

/// The path of a file.
pub(super) fn path(text: &str) -> Parsed<PathBuf> {
    if text.is_empty() || text.contains('\0') {
        return Err(Refused::FORM);
    }
    Ok(PathBuf::from(text))
}

/// An app server: an address, after `http://`, `https://`, `h2c://` or `h2://` if it is
/// HOST:PORT, after `h2c:` if it is a unix socket. Names are kept as written: they are
/// resolved at each connect.
pub(super) fn endpoint(text: &str) -> Parsed<Endpoint> {
    const SCHEMES: [(&str, Speaks); 4] = [
        ("http://", Speaks::Http),
        ("https://", Speaks::Https),
        ("h2c://", Speaks::H2c),
        ("h2://", Speaks::H2),
    ];
    for (text, speaks) in [(Some(text), Speaks::Http), (text.strip_prefix("h2c:"), Speaks::H2c)] {
        if let Some(path) = text.and_then(|text| text.strip_prefix("unix:")) {
            return Ok(Endpoint { speaks, address: Address::Unix(socket_path(path)?) });
        }
    }
    if text.starts_with("https:unix:") || text.starts_with("h2:unix:") {
        return Err(Refused::because("a unix socket needs no TLS"));
    }
    let found = SCHEMES.iter().find_map(|(scheme, speaks)| {
        let rest = text.strip_prefix(scheme)?;
        Some((rest.strip_suffix('/').unwrap_or(rest), *speaks))
    });
    if found.is_none() && text.contains("://") {
        return Err(Refused::because("no scheme that we speak"));
    }
    let (authority, speaks) = found.unwrap_or((text, Speaks::Http));
    if authority.contains('/') {
        return Err(Refused::because("an upstream has no path; requests keep their own"));
    }
    let (host, port) = host_and_port(authority)?;
    let host = match host {
        Host::None => return Err(Refused::because("it names no host")),
        Host::V6(address) => address.to_string(),
        Host::Name(name) => name.to_owned(),
    };
    if port == 0 {
        return Err(Refused::because("port 0 cannot be connected to"));
    }
    Ok(Endpoint { speaks, address: Address::Tcp { host, port } })
}

/// A host name, without a port.
pub(super) fn name(text: &str) -> Parsed<String> {
    if is_name(text) { Ok(text.to_ascii_lowercase()) } else { Err(Refused::FORM) }
}

/// The host of an address as written.
enum Host<'a> {
    /// `:PORT`
    None,
    /// `[::1]:PORT`
    V6(Ipv6Addr),
    /// A name or an IPv4 address.
    Name(&'a str),
}

/// `HOST:PORT`, in which an IPv6 address has brackets.
fn host_and_port(text: &str) -> Parsed<(Host<'_>, u16)> {
    let (host, port) = text.rsplit_once(':').ok_or(Refused::because("it has no port"))?;
    let port = digits(port)
        .and_then(|port| u16::try_from(port).ok())
        .ok_or(Refused::because("a port is a number up to 65535"))?;
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address = inner.parse().map_err(|_| Refused::FORM)?;
        return Ok((Host::V6(address), port));
    }
    if host.contains(':') {
        return Err(Refused::because("an IPv6 address is written in brackets, such as [::1]:8080"));
    }
    match host {
        "" => Ok((Host::None, port)),
        name if is_name(name) => Ok((Host::Name(name), port)),
        _ => Err(Refused::FORM),
    }
}

/// What can be looked up: letters, digits, dots, hyphens and the underscores
/// that Compose and Swarm put into service names.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> Listen {
        Listen::Tcp(text.parse().unwrap())
    }

    fn host(host: &str, port: u16) -> Endpoint {
        let address = Address::Tcp { host: host.to_owned(), port };
        Endpoint { speaks: Speaks::Http, address }
    }

    #[test]
    fn durations_are_read_exactly() {
        for (text, millis) in [
            ("0", 0),
            ("10", 10_000),
            ("1.5", 1_500),
            ("0.001", 1),
            ("500ms", 500),
            ("30s", 30_000),
            ("1.5s", 1_500),
            ("1m30s", 90_000),
            ("90m", 5_400_000),
            ("1h", 3_600_000),
            ("1h0m0s1ms", 3_600_001),
            ("8760h", 31_536_000_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(duration("infinity"), Ok(INFINITY));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            " ",
            "s",
            "10 parsecs",
            "10 s",
            "-1",
            "+1",
            "1.",
            ".5",
            "1.5.5s",
            "1s1m",
            "1s1s",
            "1d",
            "1S",
            "1e3",
            "inf",
            "Infinity",
            "1m30",
            "0x10",
            "1.0000000001",
            "1m infinity",
            "99999999999999999999999999999999999999999h",
            "18446744073709551616",
        ] {
            assert_eq!(duration(text), Err(Refused::FORM), "{text}");
        }
        for text in ["8761h", "18446744073709551615h", "31536000.1"] {
            assert!(duration(text).is_err_and(|refused| refused.why.is_some()), "{text}");
        }
    }

    #[test]
    fn sizes_count_in_1024() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("64k", 65_536), ("1m", 1 << 20), ("2G", 2 << 30)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "-1", "1.5k", "1kb", "1 k", "64t", "18446744073709551615k"] {
            assert_eq!(size(text), Err(Refused::FORM), "{text}");
        }
    }

    #[test]
    fn listeners_are_addresses_or_sockets() {
        let unix = |path: &str, mode| Listen::Unix { path: path.into(), mode };
        for (text, want) in [
            (":8080", tcp("0.0.0.0:8080")),
            (":0", tcp("0.0.0.0:0")),
            ("127.0.0.1:80", tcp("127.0.0.1:80")),
            ("localhost:80", tcp("127.0.0.1:80")),
            ("[::1]:80", tcp("[::1]:80")),
            ("[::]:80", tcp("[::]:80")),
            ("unix:/run/e.sock", unix("/run/e.sock", None)),
            ("unix:/run/e.sock,mode=0660", unix("/run/e.sock", Some(0o660))),
            ("unix:a,b,mode=600", unix("a,b", Some(0o600))),
            ("fd:web", Listen::Fd("web".to_owned())),
            ("fd:80", Listen::Fd("80".to_owned())),
        ] {
            assert_eq!(listen(text), Ok(want), "{text}");
        }
        let long = format!("unix:/{}", "a".repeat(limits::UNIX_PATH_MAX));
        for text in [
            "",
            "8080",
            "example.org:80",
            "::1:80",
            "[::1]",
            "[x]:80",
            "127.0.0.1:65536",
            "a b:80",
            "127.0.0.1:",
            "unix:",
            "unix:a,mode=0999",
            "unix:a,mode=1777",
            "unix:a,mode=",
            "fd:",
            "fd:a:b",
            "fd:a b",
            &long,
        ] {
            assert!(listen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn endpoints_keep_their_names() {
        for (text, want) in [
            ("127.0.0.1:3000", host("127.0.0.1", 3000)),
            ("app_1:3000", host("app_1", 3000)),
            ("[::1]:3000", host("::1", 3000)),
            ("http://app:3000", host("app", 3000)),
            ("http://app:3000/", host("app", 3000)),
        ] {
            assert_eq!(endpoint(text), Ok(want), "{text}");
        }
        for text in [
            "",
            "app",
            ":3000",
            "app:0",
            "http://app",
            "http://app:80/x",
            "ftp://app:21",
            "h2://app",
            "h2c:app:80",
            "https:unix:/run/app.sock",
            "h2:unix:/run/app.sock",
        ] {
            assert!(endpoint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn endpoints_say_what_they_speak() {
        let app = host("app", 80).address;
        let unix = Address::Unix("/run/app.sock".into());
        for (text, speaks, address) in [
            ("https://app:80", Speaks::Https, &app),
            ("https://app:80/", Speaks::Https, &app),
            ("h2c://app:80", Speaks::H2c, &app),
            ("h2://app:80", Speaks::H2, &app),
            ("unix:/run/app.sock", Speaks::Http, &unix),
            ("h2c:unix:/run/app.sock", Speaks::H2c, &unix),
        ] {
            let want = Endpoint { speaks, address: address.clone() };
            assert_eq!(endpoint(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn host_names_have_no_port() {
        assert_eq!(name("Proxy.Internal"), Ok("proxy.internal".to_owned()));
        for text in ["", "a:1", "a b", "a/b"] {
            assert_eq!(name(text), Err(Refused::FORM), "{text}");
        }
    }
}
