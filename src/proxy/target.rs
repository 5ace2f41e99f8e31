//! Request targets and hosts (RFC 9112 section 3.2, RFC 9110 section 7.2).

use super::failure::Failure;

/// A target that may be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'b> {
    /// Path and query, or `*`: what the app server is asked for, octets untouched.
    /// One that begins with its query has still to get its `/`.
    pub(super) path: &'b str,
    /// The authority of an absolute-form target: it overrides `Host`.
    pub(super) authority: Option<&'b str>,
}

/// Takes a target apart: origin-form, absolute-form, or `*` for OPTIONS.
#[inline]
pub(super) fn target<'b>(method: &str, target: &'b str) -> Result<Target<'b>, Failure> {
    if target.contains('#') {
        return Err(Failure::BadRequest("fragment in request target"));
    }
    if !target.is_ascii() {
        return Err(Failure::BadRequest("octets beyond ASCII in request target"));
    }
    if target.starts_with('/') {
        return Ok(Target { path: target, authority: None });
    }
    if target == "*" && method == "OPTIONS" {
        return Ok(Target { path: target, authority: None });
    }
    let scheme = ["http://", "https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme)));
    let Some(scheme) = scheme else {
        return Err(Failure::BadRequest("bad request target"));
    };
    let rest = &target[scheme.len()..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !is_host(authority.as_bytes()) {
        return Err(Failure::BadRequest("bad authority in request target"));
    }
    let path = match (path, method) {
        ("", "OPTIONS") => "*",
        ("", _) => "/",
        (path, _) => path,
    };
    Ok(Target { path, authority: Some(authority) })
}

/// The `:path` of an HTTP/2 request: what stands in an HTTP/1 request line for
/// the origin form, and nothing else (RFC 9113 section 8.3.1).
#[inline]
pub(super) fn stream_target<'b>(method: &str, path: &'b str) -> Result<&'b str, Failure> {
    match target(method, path)? {
        Target { path, authority: None } => Ok(path),
        Target { .. } => Err(Failure::BadRequest("bad :path")),
    }
}

/// Whether this is one host with an optional port: no list, no userinfo, no path.
pub(super) fn is_host(value: &[u8]) -> bool {
    let (name, port) = match value {
        [b'[', rest @ ..] => match rest.iter().position(|&octet| octet == b']') {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => return false,
        },
        _ => {
            let end = value.iter().position(|&octet| octet == b':').unwrap_or(value.len());
            value.split_at(end)
        }
    };
    let literal = value.first() == Some(&b'[');
    let name_octet = |octet: &u8| match octet {
        b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*'
        | b'+' | b';' | b'=' => true,
        octet => octet.is_ascii_alphanumeric(),
    };
    let is_name = if literal {
        std::str::from_utf8(name).is_ok_and(|name| name.parse::<std::net::Ipv6Addr>().is_ok())
    } else {
        !name.is_empty() && name.iter().all(name_octet) && is_percent_encoded(name)
    };
    let port = match port {
        [] => return is_name,
        [b':', digits @ ..] => digits,
        _ => return false,
    };
    let number = port.iter().try_fold(0u32, |number, octet| {
        let digit = octet.is_ascii_digit().then(|| u32::from(octet - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    });
    is_name && number.is_some_and(|n| n <= 65_535)
}

/// Whether every `%` stands before two hexadecimal digits.
fn is_percent_encoded(name: &[u8]) -> bool {
    memchr::memchr_iter(b'%', name).all(|at| {
        name.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_host_with_a_port_is_a_host() {
        for good in ["a", "a.b-c:80", "[::1]:443", "[::1]", "127.0.0.1:1", "a_b", "a:"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "a b",
            "a/b",
            "u@a",
            "a,b",
            "a:b",
            "a:65536",
            ":80",
            "[::1",
            "::1",
            "a\\b",
            "[a]",
            "[]",
            "[::1%251]",
            "a%",
            "a%4",
            "a%zz",
            "a:4294967300",
            "a:42949672959",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn a_target_is_forwarded_untouched_and_only_if_it_is_one() {
        let taken =
            |m, t| target(m, t).map(|t| (t.path.to_owned(), t.authority.map(str::to_owned)));
        assert_eq!(taken("GET", "/a/../b%2f?x=/").unwrap(), ("/a/../b%2f?x=/".into(), None));
        assert_eq!(taken("GET", "HTTP://h:1/p?q").unwrap(), ("/p?q".into(), Some("h:1".into())));
        assert_eq!(taken("GET", "http://h").unwrap(), ("/".into(), Some("h".into())));
        assert_eq!(taken("OPTIONS", "http://h").unwrap(), ("*".into(), Some("h".into())));
        assert_eq!(taken("OPTIONS", "*").unwrap(), ("*".into(), None));
        for bad in ["*", "foo", "http://u@h/", "ftp://h/", "http:///p", "/a#b", "", "?q", "/\u{e9}"]
        {
            assert!(taken("GET", bad).is_err(), "{bad}");
        }
    }
}
