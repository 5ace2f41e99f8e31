//! Responses of our own: an error, said shortly.

use super::failure::Failure;

/// Writes the whole response for a failure, head and body. With `close` it
/// says that the connection ends: what the client sends next may not be what it
/// seems.
pub fn write(
    failure: &Failure,
    handed: bool,
    is_head: bool,
    close: bool,
    out: &mut Vec<u8>,
) -> u16 {
    let status = failure.status(handed);
    let reason = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Error");
    let body = format!("{status} {reason}\n");
    let mut head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nCache-Control: no-store\r\nProxy-Status: ebbtide; error={}\r\n",
        body.len(),
        failure.proxy_error(handed),
    );
    if status == 503 {
        head.push_str("Retry-After: 1\r\n");
    }
    if status == 405 {
        head.push_str("Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE\r\n");
    }
    if close {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    out.extend_from_slice(head.as_bytes());
    if !is_head {
        out.extend_from_slice(body.as_bytes());
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(failure: &Failure, handed: bool) -> String {
        let mut out = Vec::new();
        write(failure, handed, false, true, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_a_request_that_was_never_handed_over_may_be_tried_again() {
        let never = text(&Failure::Cut, false);
        assert!(never.starts_with("HTTP/1.1 503 ") && never.contains("Retry-After: "));
        let handed = text(&Failure::Cut, true);
        assert!(handed.starts_with("HTTP/1.1 504 ") && !handed.contains("Retry-After"));
        for response in [never, handed] {
            assert!(response.contains("Connection: close\r\n"));
            assert!(response.contains("Proxy-Status: ebbtide; error="));
        }
    }
}
