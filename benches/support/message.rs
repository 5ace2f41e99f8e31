//! The one request and the one response of the bench, as octets.
//!
//! Each request carries a number in its target, and the body of its response
//! begins with it: an answer given to the wrong request does not go unnoticed.

use super::Error;

/// Octets of a response body, as in the research that the bounds come from.
pub(crate) const BODY: usize = 1024;

/// Octets of a request's number, in hexadecimal.
const NUMBER: usize = 16;

const TARGET: &[u8] = b"GET /cost/";
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// The number of a request, as it stands in its target.
pub(crate) type Number = [u8; NUMBER];

/// The octets of number `n`.
pub(crate) fn number(n: u64) -> Number {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut octets = [0; NUMBER];
    for (place, octet) in octets.iter_mut().rev().enumerate() {
        *octet = DIGITS[(n >> (4 * place)) as usize & 15];
    }
    octets
}

/// A request head with the three fields that a plain client sends.
pub(crate) fn request(number: &Number) -> Vec<u8> {
    let fields = b" HTTP/1.1\r\nHost: cost.example\r\nUser-Agent: cost\r\nAccept: */*\r\n\r\n";
    [TARGET, number, fields].concat()
}

/// The same, on a connection that ends with the response.
pub(crate) fn last_request(number: &Number) -> Vec<u8> {
    let mut octets = request(number);
    let end = octets.len() - END_OF_HEAD.len();
    octets.truncate(end);
    octets.extend_from_slice(b"\r\nConnection: close\r\n\r\n");
    octets
}

/// The response to `number`.
pub(crate) fn response(number: &Number) -> Vec<u8> {
    let head = b"HTTP/1.1 200 OK\r\nServer: cost\r\nDate: Sun, 22 Nov 2026 00:00:00 GMT\r\n\
        Content-Type: text/plain\r\nContent-Length: 1024\r\n\r\n";
    [head, number.as_slice(), &[b'.'; BODY - NUMBER]].concat()
}

/// The first request in `octets`: its number and its length, once it is whole.
pub(crate) fn parse_request(octets: &[u8]) -> Result<Option<(Number, usize)>, Error> {
    let Some(length) = head_length(octets) else {
        return Ok(None);
    };
    let number = octets
        .strip_prefix(TARGET)
        .and_then(|rest| rest.first_chunk())
        .ok_or("the backend was asked for something else than /cost/NUMBER")?;
    Ok(Some((*number, length)))
}

/// Whether `octets` are the whole response to `number`; an error if they can
/// no longer become it.
pub(crate) fn check_response(octets: &[u8], number: &Number) -> Result<bool, Error> {
    let Some(head_length) = head_length(octets) else {
        return Ok(false);
    };
    let (head, body) = octets.split_at(head_length);
    if !head.starts_with(b"HTTP/1.1 200 ") || content_length(head) != Some(BODY) {
        return Err(format!("wrong response: {}", String::from_utf8_lossy(head)).into());
    }
    if body.len() < BODY {
        return Ok(false);
    }
    let right = body.len() == BODY
        && body.starts_with(number)
        && body[NUMBER..].iter().all(|&octet| octet == b'.');
    if right { Ok(true) } else { Err("wrong body, or octets after it".into()) }
}

/// The length of the head that `octets` begin with, once it is whole.
pub(crate) fn head_length(octets: &[u8]) -> Option<usize> {
    memchr::memmem::find(octets, END_OF_HEAD).map(|at| at + END_OF_HEAD.len())
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    head.split(|&octet| octet == b'\n')
        .filter_map(|line| line.split_at_checked(NAME.len()))
        .find(|(name, _)| name.eq_ignore_ascii_case(NAME))
        .and_then(|(_, value)| std::str::from_utf8(value).ok()?.trim().parse().ok())
}
