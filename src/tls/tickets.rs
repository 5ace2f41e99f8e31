//! Session tickets: a client that comes again brings its session along, and no
//! server keeps anything.
//!
//! Owns the keys. They are plain data, so that a successor can go on with them
//! and nobody's session is lost when the binary is replaced; and they are one
//! set for all workers, so that it does not matter who accepts.

use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;

use crate::limits::TICKET_KEY_AGE;

const NAME: usize = 16;
const SECRET: usize = 32;

/// The keys of session tickets.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKeys {
    /// Tickets are made with this one.
    pub current: TicketKey,
    /// Tickets made with these are still taken; the latest first.
    pub previous: Vec<TicketKey>,
}

/// One key. Whoever has it can read what it protects.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKey {
    /// What a ticket names it by.
    pub name: [u8; NAME],
    /// The key itself.
    pub secret: [u8; SECRET],
    /// Since when tickets have been made with it, in seconds of Unix time.
    pub since: u64,
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.previous.len() + 1;
        f.debug_struct("TicketKeys").field("keys", &keys).finish_non_exhaustive()
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey").field("since", &self.since).finish_non_exhaustive()
    }
}

/// No key can be made, or one that was handed over is none.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the keys of session tickets cannot be made")]
pub struct NoKey;

/// Makes and takes tickets, for all workers.
pub struct Tickets {
    live: RwLock<Vec<Live>>,
}

/// A key that is ready for use; the current one is the first.
struct Live {
    plain: TicketKey,
    aead: LessSafeKey,
}

impl Tickets {
    /// With a key that nobody else has.
    ///
    /// # Errors
    ///
    /// If the system gives no random numbers.
    pub fn new() -> Result<Self, NoKey> {
        let first = Live::new(TicketKey::random(now())?)?;
        Ok(Tickets { live: RwLock::new(vec![first]) })
    }

    /// With the keys of a predecessor.
    ///
    /// # Errors
    ///
    /// If one of them is none.
    pub fn with(keys: TicketKeys) -> Result<Self, NoKey> {
        let all = std::iter::once(keys.current).chain(keys.previous);
        let live = all.map(Live::new).collect::<Result<_, _>>()?;
        Ok(Tickets { live: RwLock::new(live) })
    }

    /// The keys, for a successor.
    pub fn keys(&self) -> Option<TicketKeys> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let mut keys = live.iter().map(|live| live.plain.clone());
        Some(TicketKeys { current: keys.next()?, previous: keys.collect() })
    }

    /// A new current key when the old one has been used long enough; keys whose
    /// tickets nobody should bring any more are forgotten.
    fn rotate(&self, now: u64) -> Result<(), NoKey> {
        let age = TICKET_KEY_AGE.as_secs();
        let due = |live: &[Live]| {
            live.first().is_none_or(|key| now.saturating_sub(key.plain.since) >= age)
        };
        if !due(&self.live.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        let next = Live::new(TicketKey::random(now)?)?;
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if due(&live) {
            live.insert(0, next);
            live.retain(|key| now.saturating_sub(key.plain.since) < 2 * age);
        }
        Ok(())
    }

    fn seal(&self, plain: &[u8], now: u64) -> Option<Vec<u8>> {
        // With an old key tickets are still better than without.
        let _still = self.rotate(now);
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let key = live.first()?;
        let mut sealed = plain.to_vec();
        let tag = key.aead.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(key.plain.name),
            &mut sealed,
        );
        Some([&key.plain.name, &nonce[..], &sealed, tag.ok()?.as_ref()].concat())
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let usable = |key: &&Live| {
            key.plain.name == name
                && now.saturating_sub(key.plain.since) < 2 * TICKET_KEY_AGE.as_secs()
        };
        let key = live.iter().find(usable)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = sealed.to_vec();
        let length =
            key.aead.open_in_place(nonce, Aad::from(key.plain.name), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        // A ticket of the last moment of its key is taken for as long again.
        u32::try_from(TICKET_KEY_AGE.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, now())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, now())
    }
}

impl TicketKey {
    fn random(since: u64) -> Result<Self, NoKey> {
        let mut key = TicketKey { name: [0; NAME], secret: [0; SECRET], since };
        let random = SystemRandom::new();
        random.fill(&mut key.name).map_err(|_| NoKey)?;
        random.fill(&mut key.secret).map_err(|_| NoKey)?;
        Ok(key)
    }
}

impl Live {
    fn new(plain: TicketKey) -> Result<Self, NoKey> {
        let key = UnboundKey::new(&AES_256_GCM, &plain.secret).map_err(|_| NoKey)?;
        Ok(Live { aead: LessSafeKey::new(key), plain })
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: u64 = TICKET_KEY_AGE.as_secs();

    fn names(tickets: &Tickets) -> Vec<[u8; NAME]> {
        let keys = tickets.keys().unwrap();
        std::iter::once(keys.current).chain(keys.previous).map(|key| key.name).collect()
    }

    #[test]
    fn a_ticket_is_opened_by_a_successor_and_by_nobody_else() {
        let ours = Tickets::new().unwrap();
        let ticket = ours.encrypt(b"session").unwrap();
        assert!(!ticket.windows(7).any(|window| window == b"session"));
        let successor = Tickets::with(ours.keys().unwrap()).unwrap();
        assert_eq!(successor.decrypt(&ticket).unwrap(), b"session");
        assert_eq!(successor.keys(), ours.keys());
        assert_eq!(Tickets::new().unwrap().decrypt(&ticket), None);
    }

    #[test]
    fn a_ticket_that_was_touched_is_none() {
        let tickets = Tickets::new().unwrap();
        let ticket = tickets.encrypt(b"session").unwrap();
        assert_ne!(ticket, tickets.encrypt(b"session").unwrap());
        for place in 0..ticket.len() {
            let mut touched = ticket.clone();
            touched[place] ^= 1;
            assert_eq!(tickets.decrypt(&touched), None, "octet {place}");
            assert_eq!(tickets.decrypt(&ticket[..place]), None, "{place} octets");
        }
    }

    #[test]
    fn a_key_is_replaced_and_its_tickets_are_taken_for_as_long_again() {
        let tickets = Tickets::new().unwrap();
        let begin = now();
        let first = names(&tickets);
        let old = tickets.seal(b"old", begin + AGE - 10).unwrap();
        assert_eq!(names(&tickets), first, "not before its time");
        tickets.seal(b"new", begin + AGE + 10).unwrap();
        let both = names(&tickets);
        assert_eq!((both.len(), both[1]), (2, first[0]));
        assert!(tickets.open(&old, begin + 2 * AGE - 10).is_some());
        assert_eq!(tickets.open(&old, begin + 2 * AGE + 10), None);
        tickets.seal(b"newer", begin + 2 * AGE + 20).unwrap();
        assert!(!names(&tickets).contains(&first[0]), "its time is over");
        assert_eq!(names(&tickets).len(), 2);
    }

    #[test]
    fn keys_are_not_shown() {
        let tickets = Tickets::new().unwrap();
        let keys = tickets.keys().unwrap();
        let shown = format!("{tickets:?} {keys:?} {:?}", keys.current);
        assert!(!shown.contains(&format!("{:?}", keys.current.secret)), "{shown}");
    }
}
