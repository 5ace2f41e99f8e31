//! Connections that travel together: in one packet, acknowledged as one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::message::Message;
use super::moved::{Moved, Parcel};
use super::wire::{HEAD, Malformed};
use crate::limits::{HANDOFF_FDS_MAX, HANDOFF_MESSAGE_MAX};

/// What a message of connections has besides them, its number included.
const FRAME: usize = HEAD + 128;

/// Parcels that fit into one packet. They are the sender's until the packet is
/// acknowledged.
#[derive(Debug, Default)]
pub struct Batch {
    moved: Vec<Moved>,
    fds: Vec<OwnedFd>,
    octets: Vec<u8>,
    json: usize,
}

impl Batch {
    /// Adds one; gives it back if there is no more room. One that does not fit into an
    /// empty batch cannot travel.
    ///
    /// # Errors
    ///
    /// The parcel itself.
    pub fn push(&mut self, mut parcel: Parcel) -> Result<(), Parcel> {
        let Ok(octets) = u32::try_from(parcel.octets.len()) else { return Err(parcel) };
        parcel.moved.octets = octets;
        let json = serde_json::to_vec(&parcel.moved).map_or(HANDOFF_MESSAGE_MAX, |json| json.len());
        let length = FRAME + self.json + json + 1 + self.octets.len() + parcel.octets.len();
        let fds = self.fds.len() + parcel.fds.len();
        if length > HANDOFF_MESSAGE_MAX || fds > HANDOFF_FDS_MAX {
            return Err(parcel);
        }
        self.json += json + 1;
        self.fds.append(&mut parcel.fds);
        self.octets.append(&mut parcel.octets);
        self.moved.push(parcel.moved);
        Ok(())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.moved.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.moved.is_empty()
    }

    /// What is to be sent: the message, its descriptors, its octets.
    #[must_use]
    pub fn message(&self, batch: u64) -> (Message, Vec<BorrowedFd<'_>>, &[u8]) {
        let connections = self.moved.clone();
        let fds = self.fds.iter().map(AsFd::as_fd).collect();
        (Message::Connections { batch, connections }, fds, &self.octets)
    }

    /// The parcels again, of a batch that nobody acknowledged.
    #[must_use]
    pub fn into_parcels(self) -> Vec<Parcel> {
        parcels(self.moved, self.fds, &self.octets).unwrap_or_default()
    }
}

/// The parcels of a packet that has come.
///
/// # Errors
///
/// If there are not as many descriptors or octets as the connections say, which a packet
/// that was decoded never is.
pub fn parcels(
    connections: Vec<Moved>,
    fds: Vec<OwnedFd>,
    mut octets: &[u8],
) -> Result<Vec<Parcel>, Malformed> {
    let mut fds = fds.into_iter();
    let mut parcels = Vec::with_capacity(connections.len());
    for moved in connections {
        let length = usize::try_from(moved.octets).unwrap_or(usize::MAX);
        let own: Vec<OwnedFd> = fds.by_ref().take(moved.descriptors()).collect();
        let cut = octets.split_at_checked(length);
        let Some((mine, rest)) = cut.filter(|_| own.len() == moved.descriptors()) else {
            return Err(Malformed("connections came without what belongs to them".to_owned()));
        };
        octets = rest;
        parcels.push(Parcel { moved, fds: own, octets: mine.to_vec() });
    }
    Ok(parcels)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::super::moved::tests::{connection, tunnel};
    use super::super::wire::encode;
    use super::*;

    fn parcel(moved: Moved, octets: &[u8]) -> Parcel {
        let (one, other) = UnixStream::pair().unwrap();
        let mut fds = vec![one.into(), other.into()];
        fds.truncate(moved.descriptors());
        Parcel { moved, fds, octets: octets.to_vec() }
    }

    #[test]
    fn parcels_come_out_as_they_went_in() {
        let mut batch = Batch::default();
        assert!(batch.is_empty());
        batch.push(parcel(connection(0), b"GET")).unwrap();
        batch.push(parcel(tunnel(1, 2), b"abc")).unwrap();
        batch.push(parcel(connection(0), b"")).unwrap();
        let (message, fds, octets) = batch.message(u64::MAX);
        assert_eq!((fds.len(), octets), (4, &b"GETabc"[..]));
        encode(&message, 4, 6).unwrap();
        let back = batch.into_parcels();
        let back: Vec<_> = back.iter().map(|p| (p.fds.len(), p.octets.as_slice())).collect();
        assert_eq!(back, [(1, &b"GET"[..]), (2, b"abc"), (1, b"")]);
    }

    #[test]
    fn a_full_batch_gives_back_what_does_not_fit_and_still_travels() {
        let mut batch = Batch::default();
        let piece = [b'x'; 1000];
        let back = loop {
            if let Err(back) = batch.push(parcel(connection(0), &piece)) {
                break back;
            }
        };
        assert_eq!((back.octets.len(), back.fds.len()), (1000, 1));
        assert!((90..=130).contains(&batch.len()), "{}", batch.len());
        let (message, fds, octets) = batch.message(u64::MAX);
        encode(&message, fds.len(), octets.len()).unwrap();

        let mut batch = Batch::default();
        while batch.push(parcel(connection(0), b"")).is_ok() {}
        assert_eq!(batch.len(), HANDOFF_FDS_MAX);
        let far = vec![0; HANDOFF_MESSAGE_MAX];
        assert!(Batch::default().push(parcel(connection(0), &far)).is_err());
    }

    #[test]
    fn what_is_missing_is_refused() {
        assert!(parcels(vec![connection(0)], Vec::new(), b"").is_err());
        assert!(parcels(vec![connection(2)], parcel(connection(0), b"").fds, b"x").is_err());
    }
}
