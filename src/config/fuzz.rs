//! The body of the fuzz target, here so that it cannot rot.

use std::path::Path;

use super::file;
use super::load::{Sources, load as load_sources};

/// Any octets as a configuration file, and each of its lines as a `--set`:
/// loaded or refused with errors that can be shown, never a panic.
pub fn load(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    let _contents = file::parse(Path::new("fuzz.toml"), &text);
    let set = text.lines().take(64).map(str::to_owned).collect();
    if let Err(errors) = load_sources(&Sources { set, ..Sources::default() }) {
        assert!(!errors.to_string().is_empty());
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_fuzz_body_holds_on_its_seeds() {
        for seed in ["listen = [", "timeouts.head=1s\nlimits.head_size=1k", "[a.b]\nc=1", "\u{0}"] {
            super::load(seed.as_bytes());
        }
    }
}
