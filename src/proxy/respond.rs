//! Responses of our own: an error, said shortly.

use super::failure::Failure;
use super::stamp::Stamp;

/// A response of our own, whatever protocol it goes out in.
pub(super) struct Text {
    /// The status code.
    pub(super) status: u16,
    /// The reason phrase.
    pub(super) reason: &'static str,
    /// Its fields, names in HTTP/1's spelling.
    pub(super) fields: Vec<(&'static str, String)>,
    /// The body.
    pub(super) body: String,
}

/// What is said of a failure. `handed` is whether the app server may have seen
/// the request.
pub(super) fn text(failure: &Failure, handed: bool, stamp: &Stamp) -> Text {
    let status = failure.status(handed);
    let reason = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Error");
    let body = format!("{status} {reason}\n");
    let mut fields = vec![
        ("Date", stamp.date()),
        ("Content-Type", "text/plain; charset=utf-8".to_owned()),
        ("Content-Length", body.len().to_string()),
        ("Cache-Control", "no-store".to_owned()),
    ];
    if let Some(error) = failure.proxy_error(handed) {
        fields.push(("Proxy-Status", format!("ebbtide; error={error}")));
    }
    if status == 503 {
        fields.push(("Retry-After", "1".to_owned()));
    }
    if let Some(methods) = failure.allows() {
        fields.push(("Allow", methods.to_owned()));
    }
    Text { status, reason, fields, body }
}

/// Writes the whole response for HTTP/1, head and body. With `close` it says
/// that the connection ends: what the client sends next may not be what it
/// seems.
pub(super) fn write(text: &Text, is_head: bool, close: bool, out: &mut Vec<u8>) -> u16 {
    let Text { status, reason, fields, body } = text;
    out.extend_from_slice(format!("HTTP/1.1 {status} {reason}\r\n").as_bytes());
    for (name, value) in fields {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if close {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if !is_head {
        out.extend_from_slice(body.as_bytes());
    }
    *status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(failure: &Failure, handed: bool) -> String {
        let mut out = Vec::new();
        write(&text(failure, handed, &Stamp::new(true)), false, true, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_a_request_that_was_never_handed_over_may_be_tried_again() {
        let never = written(&Failure::Cut, false);
        assert!(never.starts_with("HTTP/1.1 503 ") && never.contains("Retry-After: "));
        let handed = written(&Failure::Cut, true);
        assert!(handed.starts_with("HTTP/1.1 504 ") && !handed.contains("Retry-After"));
        for response in [never, handed] {
            assert!(response.contains("Connection: close\r\n"));
            assert!(response.contains("Proxy-Status: ebbtide; error="));
        }
    }
}
