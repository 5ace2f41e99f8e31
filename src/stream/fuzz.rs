//! What the fuzz targets of this room assert.

use super::events::Events;
use super::grpc::Messages;
use super::websocket::Frames;

/// Follows the same octets in one piece and in two: they must agree, wherever the
/// second begins, and a boundary that is found must be one.
pub fn follow(octets: &[u8]) {
    let Some((&split, octets)) = octets.split_first() else { return };
    let split = usize::from(split).min(octets.len());
    let (mut whole, mut parts) = (Frames::default(), Frames::default());
    whole.pass(octets);
    parts.pass(&octets[..split]);
    // What goes to a successor in between is followed as if it had stayed.
    let mut moved = Frames::resume(&parts.moved());
    parts.pass(&octets[split..]);
    moved.pass(&octets[split..]);
    assert_eq!(format!("{whole:?}"), format!("{parts:?}"));
    assert_eq!(whole.moved(), moved.moved());
    let mut to_boundary = Frames::default();
    if let Some(passed) = to_boundary.pass_to_boundary(octets) {
        let mut again = Frames::default();
        again.pass(&octets[..passed]);
        assert!(again.is_at_boundary() && !again.is_opaque());
    }

    let (mut whole, mut parts) = (Events::default(), Events::default());
    whole.pass(octets);
    parts.pass(&octets[..split]);
    parts.pass(&octets[split..]);
    assert_eq!(whole.is_at_boundary(), parts.is_at_boundary());
    let mut to_boundary = Events::default();
    if let Some(passed) = to_boundary.pass_to_last_boundary(octets) {
        let mut again = Events::default();
        again.pass(&octets[..passed]);
        assert!(again.is_at_boundary());
    }

    let (mut whole, mut parts) = (Messages::default(), Messages::default());
    whole.pass(octets);
    parts.pass(&octets[..split]);
    parts.pass(&octets[split..]);
    assert_eq!(whole.is_at_boundary(), parts.is_at_boundary());
    let mut to_boundary = Messages::default();
    to_boundary.pass(&octets[..split]);
    if let Some(passed) = to_boundary.pass_to_boundary(&octets[split..]) {
        let mut again = Messages::default();
        again.pass(&octets[..split + passed]);
        assert!(again.is_at_boundary());
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_fuzz_body_holds_on_its_seeds() {
        for seed in [
            &b"\x03\x82\x05hello\x89\x00\x88\x02\x03\xe9"[..],
            b"\x05\x81\xfe\x00\x80\x01\x02\x03\x04aaaa",
            b"\x07data: a\r\n\r\n: ping\n\nid: 1\ndata: b\n\n",
            b"\x06\x00\x00\x00\x00\x03abc\x01\x00\x00\x00\x00",
            b"\x02\xef\xbb\xbfdata: a\r\rretry: 5\n\n",
            b"",
        ] {
            super::follow(seed);
        }
    }
}
