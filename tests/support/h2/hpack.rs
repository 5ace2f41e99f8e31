//! Header compression (RFC 7541): field blocks written in whatever form a test
//! wants them, and read completely.

use std::collections::VecDeque;
use std::sync::LazyLock;

use super::frame::Fields;

/// What a literal does to the dynamic table (sections 6.2.1 to 6.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Indexing {
    /// It becomes an entry.
    Incremental,
    /// It becomes none.
    Without,
    /// It becomes none here and at no next hop.
    Never,
}

impl Indexing {
    /// The pattern of the first octet, and how many of its bits are the index.
    const fn pattern(self) -> (u8, u8) {
        match self {
            Indexing::Incremental => (0x40, 6),
            Indexing::Without => (0x00, 4),
            Indexing::Never => (0x10, 4),
        }
    }
}

/// A block of literals without indexing: leaves no state behind.
pub(crate) fn plain<N: AsRef<str>, V: AsRef<str>>(fields: &[(N, V)]) -> Vec<u8> {
    let literals = fields.iter().map(|(n, v)| literal(Indexing::Without, n.as_ref(), v.as_ref()));
    literals.flatten().collect()
}

/// A literal with a new name, strings as they are.
pub(crate) fn literal(how: Indexing, name: &str, value: &str) -> Vec<u8> {
    let (pattern, _) = how.pattern();
    [vec![pattern], string(name), string(value)].concat()
}

/// A literal with a new name, strings in Huffman code.
pub(crate) fn literal_huffman(how: Indexing, name: &str, value: &str) -> Vec<u8> {
    let (pattern, _) = how.pattern();
    [vec![pattern], huffman_string(name), huffman_string(value)].concat()
}

/// A literal whose name is that of an entry.
pub(crate) fn literal_named(how: Indexing, index: usize, value: &str) -> Vec<u8> {
    let (pattern, bits) = how.pattern();
    [integer(pattern, bits, index), string(value)].concat()
}

/// A literal whose name is that of an entry, the value in Huffman code.
pub(crate) fn literal_named_huffman(how: Indexing, index: usize, value: &str) -> Vec<u8> {
    let (pattern, bits) = how.pattern();
    [integer(pattern, bits, index), huffman_string(value)].concat()
}

/// An entry of a table as a field (section 6.1).
pub(crate) fn indexed(index: usize) -> Vec<u8> {
    integer(0x80, 7, index)
}

/// A new size of the dynamic table (section 6.3).
pub(crate) fn size_update(size: usize) -> Vec<u8> {
    integer(0x20, 5, size)
}

/// A number behind a pattern (section 5.1).
pub(crate) fn integer(pattern: u8, bits: u8, value: usize) -> Vec<u8> {
    let most = (1usize << bits) - 1;
    if value < most {
        return vec![pattern | value as u8];
    }
    let mut octets = vec![pattern | most as u8];
    let mut rest = value - most;
    while rest >= 128 {
        octets.push(0x80 | (rest % 128) as u8);
        rest /= 128;
    }
    octets.push(rest as u8);
    octets
}

/// A string as it is (section 5.2).
pub(crate) fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&integer(0, 7, text.len())[..], text].concat()
}

/// A string in Huffman code.
pub(crate) fn huffman_string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = huffman(text.as_ref());
    [&integer(0x80, 7, text.len())[..], &text].concat()
}

/// Octets in Huffman code, padded as they must be.
pub(crate) fn huffman(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut bits, mut n) = (0u64, 0);
    for octet in octets {
        let (code, len) = HUFFMAN.codes[usize::from(*octet)];
        bits = bits << len | u64::from(code);
        n += len;
        while n >= 8 {
            n -= 8;
            out.push((bits >> n) as u8);
        }
    }
    if n > 0 {
        out.push((bits << (8 - n)) as u8 | (0xff >> n));
    }
    out
}

/// What a decoder finds wrong.
pub(crate) type Wrong = &'static str;

/// Octets out of Huffman code.
pub(crate) fn unhuffman(octets: &[u8]) -> Result<Vec<u8>, Wrong> {
    let mut out = Vec::new();
    let (mut code, mut len) = (0u32, 0usize);
    for octet in octets {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(octet >> bit & 1);
            len += 1;
            match HUFFMAN.symbol(code, len) {
                Some(symbol) => {
                    out.push(u8::try_from(symbol).map_err(|_| "the end of string as a symbol")?);
                    (code, len) = (0, 0);
                }
                None if len == 30 => return Err("no Huffman code"),
                None => {}
            }
        }
    }
    if len > 7 {
        return Err("padding of more than seven bits");
    }
    if code != (1 << len) - 1 {
        return Err("padding that is not of the end of string");
    }
    Ok(out)
}

/// The code, made from the lengths alone: among codes of one length the order of
/// the symbols counts, and each begins where the shorter ones end.
struct Huffman {
    /// Code and length of each symbol.
    codes: Vec<(u32, usize)>,
    /// For each length: its first code, and where its symbols are in `order`.
    first: [(u32, usize, usize); 31],
    /// The symbols by length, then by number.
    order: Vec<usize>,
}

static HUFFMAN: LazyLock<Huffman> = LazyLock::new(|| {
    let mut huffman =
        Huffman { codes: vec![(0, 0); LENGTHS.len()], first: [(0, 0, 0); 31], order: Vec::new() };
    let mut code = 0;
    for len in 1..=30 {
        code <<= 1;
        let symbols = (0..LENGTHS.len()).filter(|s| usize::from(LENGTHS[*s]) == len);
        let (first, at) = (code, huffman.order.len());
        for symbol in symbols {
            huffman.codes[symbol] = (code, len);
            huffman.order.push(symbol);
            code += 1;
        }
        huffman.first[len] = (first, at, huffman.order.len() - at);
    }
    huffman
});

impl Huffman {
    fn symbol(&self, code: u32, len: usize) -> Option<usize> {
        let (first, at, count) = self.first[len];
        let nth = usize::try_from(code.checked_sub(first)?).ok()?;
        (nth < count).then(|| self.order[at + nth])
    }
}

/// The dynamic table of the side that reads.
#[derive(Debug)]
pub(crate) struct Decoder {
    entries: VecDeque<(String, String)>,
    size: usize,
    limit: usize,
    /// What the settings allow: no update may go above it.
    pub(crate) most: usize,
}

impl Decoder {
    /// An empty table of the size that HTTP/2 begins with.
    pub(crate) fn new() -> Decoder {
        Decoder { entries: VecDeque::new(), size: 0, limit: 4096, most: 4096 }
    }

    /// Reads a field block.
    pub(crate) fn decode(&mut self, block: &[u8]) -> Result<Fields, Wrong> {
        let mut rest = block;
        let mut fields = Fields::new();
        while let Some(first) = rest.first().copied() {
            if first & 0x80 != 0 {
                let index = take_integer(&mut rest, 7)?;
                fields.push(self.entry(index)?);
            } else if first & 0xe0 == 0x20 {
                let limit = take_integer(&mut rest, 5)?;
                if !fields.is_empty() {
                    return Err("a new table size behind a field");
                }
                if limit > self.most {
                    return Err("a table size above the setting");
                }
                self.limit = limit;
                self.evict();
            } else {
                let incremental = first & 0x40 != 0;
                let index = take_integer(&mut rest, if incremental { 6 } else { 4 })?;
                let name = if index == 0 { take_string(&mut rest)? } else { self.entry(index)?.0 };
                let field = (name, take_string(&mut rest)?);
                if incremental {
                    self.size += weight(&field);
                    self.entries.push_front(field.clone());
                    self.evict();
                }
                fields.push(field);
            }
        }
        Ok(fields)
    }

    fn entry(&self, index: usize) -> Result<(String, String), Wrong> {
        let nth = index.checked_sub(1).ok_or("index 0")?;
        match STATIC.get(nth) {
            Some((name, value)) => Ok(((*name).to_owned(), (*value).to_owned())),
            None => self.entries.get(nth - STATIC.len()).cloned().ok_or("an index of no entry"),
        }
    }

    fn evict(&mut self) {
        while self.size > self.limit {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= weight(&oldest);
        }
    }
}

fn weight((name, value): &(String, String)) -> usize {
    name.len() + value.len() + 32
}

fn take_integer(rest: &mut &[u8], bits: u8) -> Result<usize, Wrong> {
    let mut next = || {
        let (first, behind) = rest.split_first().ok_or("a number that ends early")?;
        *rest = behind;
        Ok(usize::from(*first))
    };
    let most = (1 << bits) - 1;
    let mut value = next()? & most;
    if value < most {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21, 28] {
        let octet = next()?;
        value += (octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number that is too large")
}

fn take_string(rest: &mut &[u8]) -> Result<String, Wrong> {
    let coded = rest.first().is_some_and(|first| first & 0x80 != 0);
    let len = take_integer(rest, 7)?;
    let (octets, behind) = rest.split_at_checked(len).ok_or("a string that ends early")?;
    *rest = behind;
    let octets = if coded { unhuffman(octets)? } else { octets.to_vec() };
    Ok(octets.into_iter().map(char::from).collect())
}

/// How many bits the code of each symbol has (appendix B); the last is the end of
/// string.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30,
    28, 28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5,
    5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6,
    6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23,
    22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23,
    24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22,
    23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27,
    26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21,
    22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27,
    27, 27, 27, 27, 26, 30,
];

/// The static table (appendix A).
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];
