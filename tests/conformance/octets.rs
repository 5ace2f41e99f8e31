//! Octets as the case files write them: text with escapes and repeats.

/// Reads `\r \n \t \0 \\ \{ \xHH` and `{TEXT*TIMES}`; everything else is itself.
pub(crate) fn read(text: &str) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(escape) = rest.strip_prefix('\\') {
            let (octet, len) = escaped(escape)?;
            octets.push(octet);
            rest = &escape[len..];
        } else if let Some((inner, times, len)) = repeat(rest) {
            octets.extend(read(inner)?.repeat(times));
            rest = &rest[len..];
        } else {
            let len = first.len_utf8();
            octets.extend(&rest.as_bytes()[..len]);
            rest = &rest[len..];
        }
    }
    Ok(octets)
}

fn escaped(rest: &str) -> Result<(u8, usize), String> {
    let octet = match rest.as_bytes().first() {
        Some(b'r') => b'\r',
        Some(b'n') => b'\n',
        Some(b't') => b'\t',
        Some(b'0') => b'\0',
        Some(b'\\') => b'\\',
        Some(b'{') => b'{',
        Some(b'x') => {
            let digits = rest.get(1..3).ok_or("\\x without two digits")?;
            let octet = u8::from_str_radix(digits, 16);
            return Ok((octet.map_err(|_| format!("\\x{digits} is no octet"))?, 3));
        }
        _ => return Err(format!("no escape: \\{}", rest.chars().next().unwrap_or(' '))),
    };
    Ok((octet, 1))
}

/// `{TEXT*TIMES}` at the front: the text, how often, and how long all of it is.
fn repeat(rest: &str) -> Option<(&str, usize, usize)> {
    let inner = rest.strip_prefix('{')?;
    let (inner, _) = inner.split_once('}')?;
    let (text, times) = inner.rsplit_once('*')?;
    Some((text, times.parse().ok()?, inner.len() + 2))
}

/// Octets for a message: escaped, and cut to what one wants to read.
pub(crate) fn show(octets: &[u8]) -> String {
    let cut = octets[..octets.len().min(400)].escape_ascii().to_string();
    if octets.len() > 400 { format!("{cut}… ({} octets)", octets.len()) } else { cut }
}

#[test]
fn escapes_and_repeats_are_read() {
    assert_eq!(read("a\\r\\n\\x7f\\0").unwrap(), b"a\r\n\x7f\0");
    assert_eq!(read("{ab*3}{c}").unwrap(), b"ababab{c}");
    assert_eq!(read("{a\\n*2}\\{a*2}").unwrap(), b"a\na\n{a*2}");
    assert_eq!(read("é").unwrap(), "é".as_bytes());
    for wrong in ["\\q", "\\x1", "\\xzz", "a\\"] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}
