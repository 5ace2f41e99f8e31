//! A request as only one reading allows: a parser that takes nothing on trust and
//! mends nothing (RFC 9112). It shares no code with the proxy.

/// A whole request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// The method.
    pub(crate) method: Vec<u8>,
    /// The target.
    pub(crate) target: Vec<u8>,
    /// The fields in order.
    pub(crate) fields: Vec<Field>,
    /// The body, chunks put together.
    pub(crate) body: Vec<u8>,
    /// The fields behind a chunked body.
    pub(crate) trailers: Vec<Field>,
}

/// A name and a value.
pub(crate) type Field = (Vec<u8>, Vec<u8>);

impl Request {
    /// Every value of a field.
    pub(crate) fn all<'r>(&'r self, name: &'r str) -> impl Iterator<Item = &'r [u8]> {
        let named = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
        named.map(|(_, value)| value.as_slice())
    }

    /// The target in origin-form: an absolute one is for the host of Host, or it would
    /// be broken.
    pub(crate) fn path(&self) -> &[u8] {
        match behind_scheme(&self.target).map(|rest| &rest[authority_len(rest)..]) {
            None => &self.target,
            Some(b"") => b"/",
            Some(path) => path,
        }
    }
}

/// What octets are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    /// The whole requests, in order.
    pub(crate) requests: Vec<Request>,
    /// Whether a request begins behind them that is not whole.
    pub(crate) partial: bool,
    /// Whether that request's head says that it waits for a 100.
    pub(crate) waits: bool,
    /// Why what follows is no request that has one reading only.
    pub(crate) broken: Option<String>,
}

/// Reads all requests in octets.
pub(crate) fn read(octets: &[u8]) -> Reading {
    let mut reading = Reading::default();
    let mut rest = octets;
    while !rest.is_empty() {
        match request(rest) {
            Ok((request, len)) => {
                reading.requests.push(request);
                rest = &rest[len..];
            }
            Err(Stop::More { waits }) => {
                reading.partial = true;
                reading.waits = waits;
                return reading;
            }
            Err(Stop::Broken(why)) => {
                reading.broken = Some(why);
                return reading;
            }
        }
    }
    reading
}

/// Why there is no whole request.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    /// More octets are needed.
    More { waits: bool },
    /// No octets make it one.
    Broken(String),
}

const MORE: Stop = Stop::More { waits: false };

fn broken<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Broken(why.into()))
}

fn request(octets: &[u8]) -> Result<(Request, usize), Stop> {
    let mut reader = Reader { octets, at: 0 };
    let line = reader.line()?;
    let mut request = request_line(line)?;
    request.fields = reader.section()?;
    let framing = framing(&request)?;
    host(&request)?;
    let waits = request.all("expect").any(|value| value.eq_ignore_ascii_case(b"100-continue"));
    let body = match framing {
        Framing::Length(length) => reader.take(length).map(|body| (body.to_vec(), Vec::new())),
        Framing::Chunked => reader.chunked(),
    };
    (request.body, request.trailers) = body.map_err(|stop| match stop {
        Stop::More { .. } => Stop::More { waits },
        broken => broken,
    })?;
    Ok((request, reader.at))
}

fn request_line(line: &[u8]) -> Result<Request, Stop> {
    let parts: Vec<&[u8]> = line.split(|octet| *octet == b' ').collect();
    let [method, target, version] = parts[..] else {
        return broken("a request line that is not of three parts");
    };
    if !is_token(method) {
        return broken("a method that is no token");
    }
    if version != b"HTTP/1.1" && version != b"HTTP/1.0" {
        return broken("another version");
    }
    if method == b"CONNECT" {
        return broken("CONNECT at the origin");
    }
    let origin_form = target.first() == Some(&b'/');
    let absolute = behind_scheme(target).is_some();
    let asterisk = target == b"*" && method == b"OPTIONS";
    if !(origin_form || absolute || asterisk) {
        return broken("a target in no form");
    }
    if !target.iter().all(|octet| octet.is_ascii_graphic() && *octet != b'#') {
        return broken("an octet in the target that may not be there");
    }
    Ok(Request { method: method.to_vec(), target: target.to_vec(), ..Request::default() })
}

enum Framing {
    Length(usize),
    Chunked,
}

/// Where the body ends; nothing that two fields could say differently.
fn framing(request: &Request) -> Result<Framing, Stop> {
    let lengths: Vec<&[u8]> = request.all("content-length").collect();
    let codings: Vec<&[u8]> = request.all("transfer-encoding").collect();
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(Framing::Length(0)),
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        ([length], []) => match number(length, 10) {
            Some(length) if length <= i64::MAX as u64 => Ok(Framing::Length(length as usize)),
            _ => broken("a Content-Length that is none"),
        },
        ([], _) => broken("a Transfer-Encoding other than one `chunked`"),
        (_, []) => broken("Content-Length more than once"),
        _ => broken("Content-Length and Transfer-Encoding"),
    }
}

/// One host, and none other in the target.
fn host(request: &Request) -> Result<(), Stop> {
    let hosts: Vec<&[u8]> = request.all("host").collect();
    let [host] = hosts[..] else {
        return broken(format!("{} times Host", hosts.len()));
    };
    let plain = |octet: &u8| octet.is_ascii_graphic() && !b",/@\\\"<>?#".contains(octet);
    if host.is_empty() || !host.iter().all(plain) {
        return broken("a Host that is none");
    }
    let Some(rest) = behind_scheme(&request.target) else { return Ok(()) };
    if rest[..authority_len(rest)].eq_ignore_ascii_case(host) {
        Ok(())
    } else {
        broken("a target for another host than Host")
    }
}

/// What follows the scheme of a target in absolute form.
fn behind_scheme(target: &[u8]) -> Option<&[u8]> {
    let after = |scheme: &[u8]| {
        let start = target.get(..scheme.len()).filter(|start| start.eq_ignore_ascii_case(scheme));
        start.map(|_| &target[scheme.len()..])
    };
    after(b"http://").or_else(|| after(b"https://"))
}

fn authority_len(behind_scheme: &[u8]) -> usize {
    let end = behind_scheme.iter().position(|octet| b"/?".contains(octet));
    end.unwrap_or(behind_scheme.len())
}

/// What frames or routes a message may not come behind it (RFC 9110 section 6.5.1).
const NOT_IN_TRAILERS: [&str; 8] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

struct Reader<'o> {
    octets: &'o [u8],
    at: usize,
}

impl<'o> Reader<'o> {
    fn take(&mut self, len: usize) -> Result<&'o [u8], Stop> {
        let end = self.at.checked_add(len).ok_or(MORE)?;
        let taken = self.octets.get(self.at..end).ok_or(MORE)?;
        self.at = end;
        Ok(taken)
    }

    /// A line, without its CRLF; neither CR nor LF nor NUL is anywhere else.
    fn line(&mut self) -> Result<&'o [u8], Stop> {
        let rest = &self.octets[self.at..];
        for (at, octet) in rest.iter().enumerate() {
            match octet {
                b'\n' => return broken("LF without CR"),
                0 => return broken("NUL"),
                b'\r' => {
                    return match rest.get(at + 1) {
                        None => Err(MORE),
                        Some(b'\n') => {
                            self.at += at + 2;
                            Ok(&rest[..at])
                        }
                        Some(_) => broken("CR without LF"),
                    };
                }
                _ => {}
            }
        }
        Err(MORE)
    }

    /// Fields up to the empty line.
    fn section(&mut self) -> Result<Vec<Field>, Stop> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            fields.push(field(line)?);
        }
    }

    fn chunked(&mut self) -> Result<(Vec<u8>, Vec<Field>), Stop> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = chunk_size(line)?;
            if size == 0 {
                break;
            }
            body.extend(self.take(size)?);
            if !self.line()?.is_empty() {
                return broken("a chunk longer than its size");
            }
        }
        let trailers = self.section()?;
        for (name, _) in &trailers {
            if NOT_IN_TRAILERS.iter().any(|not| name.eq_ignore_ascii_case(not.as_bytes())) {
                return broken(format!("{} behind the body", name.escape_ascii()));
            }
        }
        Ok((body, trailers))
    }
}

fn field(line: &[u8]) -> Result<Field, Stop> {
    let Some(colon) = line.iter().position(|octet| *octet == b':') else {
        return broken("a field without a colon");
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        return broken(format!("a field name that is no token: {}", name.escape_ascii()));
    }
    let blank = |octet: &u8| matches!(octet, b' ' | b'\t');
    let start = value.iter().position(|octet| !blank(octet)).unwrap_or(value.len());
    let end = value.iter().rposition(|octet| !blank(octet)).map_or(start, |last| last + 1);
    Ok((name.to_vec(), value[start..end].to_vec()))
}

fn chunk_size(line: &[u8]) -> Result<usize, Stop> {
    let digits = line.iter().take_while(|octet| octet.is_ascii_hexdigit()).count();
    let behind = &line[digits..];
    let extension = behind.first() == Some(&b';')
        && behind.iter().all(|octet| octet.is_ascii_graphic() || matches!(octet, b' ' | b'\t'));
    if !behind.is_empty() && !extension {
        return broken("a chunk size with something behind it");
    }
    match number(&line[..digits], 16) {
        Some(size) if digits <= 16 && size <= i64::MAX as u64 => Ok(size as usize),
        _ => broken("a chunk size that is none"),
    }
}

/// Digits and nothing else.
fn number(text: &[u8], base: u32) -> Option<u64> {
    let digits = text.iter().all(|octet| char::from(*octet).is_digit(base));
    let text = std::str::from_utf8(text).ok().filter(|text| digits && !text.is_empty())?;
    u64::from_str_radix(text, base).ok()
}

fn is_token(octets: &[u8]) -> bool {
    let tchar = |octet: &u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(octet);
    !octets.is_empty() && octets.iter().all(tchar)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(octets: &str) -> String {
        read(octets.as_bytes()).broken.unwrap_or_default()
    }

    #[test]
    fn whole_requests_are_read_one_after_the_other() {
        let octets = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n\
                      POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc\
                      POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                      2;x=y\r\nde\r\n0\r\nX-T: 1\r\n\r\nPOST /d";
        let reading = read(octets.as_bytes());
        let bodies: Vec<&[u8]> = reading.requests.iter().map(|r| r.body.as_slice()).collect();
        assert_eq!(bodies, [&b""[..], b"abc", b"de"]);
        assert_eq!(reading.requests[2].trailers, [(b"X-T".to_vec(), b"1".to_vec())]);
        assert!(reading.partial && reading.broken.is_none());
    }

    #[test]
    fn every_cut_of_a_request_needs_more() {
        let octets = b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                       2\r\nde\r\n0\r\nX-T: 1\r\n\r\n";
        for cut in 1..octets.len() {
            let reading = read(&octets[..cut]);
            assert!(reading.partial && reading.requests.is_empty(), "{cut}: {reading:?}");
        }
    }

    #[test]
    fn what_has_two_readings_is_broken() {
        let head = |fields: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n");
        for fields in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: +1",
            "Content-Length:",
            "Content-Length: 9223372036854775808",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Host: i",
            "A : b",
            " A: b",
            "A: b\r\n c",
            "A: b\nB: c",
            "A: b\rB: c",
            "A: \0",
            "Transfer-Encoding: \x0bchunked",
            "no colon",
        ] {
            assert_ne!(wrong(&head(fields)), "", "{fields:?}");
        }
        for start in [
            "GET /a b HTTP/1.1",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.2",
            "GET http://other/ HTTP/1.1",
            "GET a HTTP/1.1",
            "GET * HTTP/1.1",
            "GET /\u{e9} HTTP/1.1",
            "G@T / HTTP/1.1",
            "CONNECT h:1 HTTP/1.1",
        ] {
            assert_ne!(wrong(&format!("{start}\r\nHost: h\r\n\r\n")), "", "{start}");
        }
        for body in
            ["0x1\r\n", "1 \r\n", "1\na", "-1\r\n", ";\r\n", "0\r\nHost: i\r\n\r\n", "1\r\nab\r\n"]
        {
            let head = head("Transfer-Encoding: chunked");
            assert_ne!(wrong(&format!("{head}{body}")), "", "{body:?}");
        }
    }
}
