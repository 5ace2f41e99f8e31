//! The raw client reads field blocks right: the examples of RFC 7541, appendix C, and
//! what it has to refuse.

use crate::support::h2::hpack::{self, Decoder, Indexing};

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

fn lines(decoder: &mut Decoder, hex: &str) -> Vec<String> {
    let fields = decoder.decode(&octets(hex)).unwrap();
    fields.iter().map(|(name, value)| format!("{name}: {value}")).collect()
}

const FIRST: [&str; 4] =
    [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];

#[test]
fn c3_requests_without_huffman() {
    let mut decoder = Decoder::new();
    let got = lines(&mut decoder, "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d");
    assert_eq!(got, FIRST);
    let got = lines(&mut decoder, "8286 84be 5808 6e6f 2d63 6163 6865");
    assert_eq!(got, [&FIRST[..], &["cache-control: no-cache"]].concat());
    let got = lines(
        &mut decoder,
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    );
    assert_eq!(got[1..3], [":scheme: https", ":path: /index.html"]);
    assert_eq!(got[4], "custom-key: custom-value");
}

#[test]
fn c4_requests_with_huffman() {
    let mut decoder = Decoder::new();
    let got = lines(&mut decoder, "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff");
    assert_eq!(got, FIRST);
    let got = lines(&mut decoder, "8286 84be 5886 a8eb 1064 9cbf");
    assert_eq!(got, [&FIRST[..], &["cache-control: no-cache"]].concat());
    let got = lines(&mut decoder, "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf");
    assert_eq!(got[4], "custom-key: custom-value");
}

#[test]
fn c6_responses_with_huffman_and_eviction() {
    let mut decoder = Decoder::new();
    decoder.most = 256;
    decoder.decode(&hpack::size_update(256)).unwrap();
    let got = lines(
        &mut decoder,
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 \
         2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
    );
    assert_eq!(got[0], ":status: 302");
    assert_eq!(got[2], "date: Mon, 21 Oct 2013 20:13:21 GMT");
    let got = lines(&mut decoder, "4883 640e ffc1 c0bf");
    assert_eq!(got[0], ":status: 307");
    assert_eq!(got[3], "location: https://www.example.com");
    let got = lines(
        &mut decoder,
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab \
         77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f \
         9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    );
    assert_eq!(
        got,
        [
            ":status: 200",
            "cache-control: private",
            "date: Mon, 21 Oct 2013 20:13:22 GMT",
            "location: https://www.example.com",
            "content-encoding: gzip",
            "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
        ]
    );
    assert!(decoder.decode(&hpack::indexed(65)).is_err(), "three entries are left");
}

#[test]
fn every_octet_comes_back_out_of_its_huffman_code() {
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(hpack::unhuffman(&hpack::huffman(&all)).unwrap(), all);
    assert_eq!(hpack::huffman(b"www.example.com"), octets("f1e3 c2e5 f23a 6ba0 ab90 f4ff"));
}

#[test]
fn every_form_is_read_as_it_was_written() {
    let mut decoder = Decoder::new();
    let block = [
        hpack::size_update(100),
        hpack::literal(Indexing::Incremental, "x-a", "1"),
        hpack::literal_huffman(Indexing::Never, "x-b", "2"),
        hpack::literal_named(Indexing::Without, 62, "3"),
        hpack::literal_named_huffman(Indexing::Incremental, 58, "agent"),
        hpack::indexed(62),
        hpack::indexed(63),
    ];
    let got = decoder.decode(&block.concat()).unwrap();
    let got: Vec<String> = got.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(got[..4], ["x-a=1", "x-b=2", "x-a=3", "user-agent=agent"]);
    assert_eq!(got[4..], ["user-agent=agent", "x-a=1"]);
}

#[test]
fn what_is_wrong_is_refused() {
    let wrong = [
        vec![0x80],
        hpack::indexed(62),
        hpack::size_update(4097),
        [hpack::indexed(2), hpack::size_update(1)].concat(),
        vec![0x40],
        vec![0x00, 0x05, b'x'],
        octets("00 85f2b24a84ff 8449509fff"),
        octets("00 85f2b24a84ff 83495090"),
        octets("00 85f2b24a84ff 874951fffffffa7f"),
        octets("7f ffffffffff 00"),
    ];
    for block in wrong {
        assert!(Decoder::new().decode(&block).is_err(), "{block:x?}");
    }
}
