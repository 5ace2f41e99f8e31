//! A proxy that does what none may do: it uses a connection again whatever lies on it,
//! so that the judge has something to find.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::judge::{Book, Crossed, Outcome, Seen};
use super::origin::Origin;
use super::tag::{Tag, Tags, chunks};
use super::{Scene, h1};
use crate::support::client::{Client, Framing, Response};
use crate::support::wire::{Place, Wire};

/// Accepts, and serves each client on a thread of its own from one pool.
#[derive(Debug)]
struct Mixing {
    place: Place,
    over: Arc<AtomicBool>,
}

impl Mixing {
    fn before(upstream: Place) -> Mixing {
        let place = Place::parse("127.0.0.1:0");
        let listener = place.socket();
        listener.bind(&place.sock_addr()).unwrap();
        listener.listen(128).unwrap();
        let place = listener.local_addr().unwrap().as_socket().map(Place::Tcp).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let (pool, ours) = (Arc::new(Mutex::new(Vec::new())), Arc::clone(&over));
        std::thread::spawn(move || {
            while let Ok((sock, _)) = listener.accept() {
                if ours.load(Ordering::SeqCst) {
                    return;
                }
                let (pool, upstream) = (Arc::clone(&pool), upstream.clone());
                std::thread::spawn(move || serve(Wire::new(sock), &upstream, &pool));
            }
        });
        Mixing { place, over }
    }
}

impl Drop for Mixing {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = self.place.socket().connect(&self.place.sock_addr());
    }
}

/// Passes the requests of one client on, one after the other.
fn serve(mut client: Wire, upstream: &Place, pool: &Mutex<Vec<Client>>) -> Option<()> {
    loop {
        let head = client.head().ok()?;
        let tag = Tag::parse(head.field("x-tag")?)?;
        let len = head.field("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
        let mut request = head.raw;
        client.exactly(len, &mut request).ok()?;
        let pooled = pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut app = pooled.unwrap_or_else(|| Client::connect(upstream));
        app.try_send(&request).ok()?;
        let Response { head, body, framing, .. } = h1::read(&mut app, tag).ok()?;
        let mut answer = head.raw;
        if framing == Framing::Chunked {
            answer.extend(chunks(&body, &mut tag.rng(0)));
            answer.extend(b"0\r\n\r\n");
        } else {
            answer.extend(&body);
        }
        client.send(&answer).ok()?;
        if framing == Framing::Close {
            return None;
        }
        pool.lock().unwrap_or_else(PoisonError::into_inner).push(app);
    }
}

#[test]
fn the_judge_notices_a_proxy_that_uses_connections_with_octets_on_them() {
    let book = Arc::new(Book::default());
    let origin = Origin::new(1, &book);
    let mixing = Mixing::before(origin.place.clone());
    let scene =
        Scene { place: mixing.place.clone(), tags: Tags::new(2_000), book: Arc::clone(&book) };
    scene.play(&[(h1::http10, 4)], 1);
    let crossed = book.account().crossed;
    let by_clients = crossed.iter().filter(|crossed| crossed.forged.is_some()).count();
    assert!(by_clients > 0, "the clients took everything for their own");
    assert!(by_clients < crossed.len(), "the origin saw nothing: {crossed:?}");
}

/// Two requests with a body for an answer.
fn two() -> (Tag, Tag) {
    let tags = Tags::new(1_000);
    let mut fit =
        std::iter::from_fn(|| tags.next()).filter(|tag| tag.has_body() && tag.answer().len() > 200);
    (fit.next().unwrap(), fit.next().unwrap())
}

/// A whole response with these octets, to the request of `tag`.
fn judge(tag: Tag, named: Tag, octets: &[u8], whole: bool) -> Result<Outcome, Crossed> {
    let named = named.to_string();
    let tags = vec![&*named];
    Seen { status: Some(200), tags, is_own: false, octets, whole }.judge(tag)
}

#[test]
fn the_judge_takes_the_right_answer_and_a_cut_one() {
    let (tag, _) = two();
    let due = tag.answer();
    assert_eq!(judge(tag, tag, &due, true).unwrap(), Outcome::Right);
    assert_eq!(judge(tag, tag, &due[..100], false).unwrap(), Outcome::Cut);
    assert_eq!(Seen::default().judge(tag).unwrap(), Outcome::Nothing);
    let text = b"502 Bad Gateway\n";
    let own = Seen { status: Some(502), is_own: true, octets: text, whole: true, tags: Vec::new() };
    assert_eq!(own.judge(tag).unwrap(), Outcome::Refused);
}

#[test]
fn the_judge_takes_nothing_of_another_answer() {
    let (tag, other) = two();
    let due = tag.answer();
    let mixed = [&due[..100], &other.answer()[100..]].concat();
    let behind = [&due[..], b"#"].concat();
    for (named, octets, whole) in [
        (other, &other.answer()[..], true),
        (other, &[], false),
        (tag, &other.answer()[..], true),
        (tag, &mixed, true),
        (tag, &mixed[..150], false),
        (tag, &behind, true),
        (tag, &due[..100], true),
        (tag, &due[1..], false),
    ] {
        let judged = judge(tag, named, octets, whole);
        assert!(judged.is_err(), "{judged:?} of {named}");
    }
    let begun = format!("HTTP/1.1 200 OK\r\nX-Tag: {other}\r\n");
    let begun = Seen { octets: begun.as_bytes(), ..Seen::default() };
    assert!(begun.judge(tag).is_err(), "a part of another's head");
    let nobodys = Seen { status: Some(200), octets: &due, whole: true, ..Seen::default() };
    assert!(nobodys.judge(tag).is_err(), "no tag at all");
    let smuggled = Seen { status: Some(502), is_own: true, ..nobodys };
    assert!(smuggled.judge(tag).is_err(), "an app server's body as the proxy's own");
}
