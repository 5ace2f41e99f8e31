//! The body of the fuzz target, here so that it cannot rot.

use super::wire::{decode, encode};

/// Any octets as a packet, the first as the number of its descriptors: never a panic,
/// and what is understood means the same when it is said again.
pub fn message(octets: &[u8]) {
    let Some((&fds, packet)) = octets.split_first() else { return };
    let fds = usize::from(fds);
    let Ok((message, at)) = decode(packet, fds) else { return };
    let octets = &packet[at..];
    // Ours may be the longer form of the same.
    let Ok(mut again) = encode(&message, fds, octets.len()) else { return };
    again.extend_from_slice(octets);
    assert_eq!(decode(&again, fds), Ok((message, again.len() - octets.len())));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_fuzz_body_holds_on_its_seeds() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/handoff_message");
        for seed in std::fs::read_dir(seeds).unwrap() {
            let path = seed.unwrap().path();
            let octets = std::fs::read(&path).unwrap();
            super::message(&octets);
            for place in 0..octets.len() {
                let mut touched = octets.clone();
                for bit in 0..8 {
                    touched[place] ^= 1 << bit;
                    super::message(&touched);
                }
                super::message(&octets[..place]);
            }
            let (fds, packet) = octets.split_first().unwrap();
            let understood = super::decode(packet, usize::from(*fds));
            let wrong = ["field", "lies", "part", "version"].map(|name| path.ends_with(name));
            assert_eq!(understood.is_err(), wrong.contains(&true), "{path:?}: {understood:?}");
        }
        super::message(b"");
    }
}
