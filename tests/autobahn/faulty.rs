//! Relays that do one thing wrong.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use crate::support::wire::Place;

/// What is done to octets on their way to the client.
pub(crate) type Fault = fn(&mut Vec<u8>);

/// A relay before a server; where it listens. It ends with the test.
pub(crate) fn relay(server: &Place, fault: Fault) -> Place {
    let Place::Tcp(server) = *server else { panic!("{server} is no TCP address") };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let place = Place::Tcp(listener.local_addr().expect("its address"));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let upstream = TcpStream::connect(server).expect("the server accepts");
            let (towards, back) = (both(&client), both(&upstream));
            std::thread::spawn(move || pass(towards.0, back.0, |_| {}));
            std::thread::spawn(move || pass(back.1, towards.1, fault));
        }
    });
    place
}

fn both(stream: &TcpStream) -> (TcpStream, TcpStream) {
    (stream.try_clone().expect("a clone"), stream.try_clone().expect("a clone"))
}

/// Passes octets on until one side ends.
fn pass(mut from: TcpStream, mut to: TcpStream, fault: Fault) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let mut octets = buffer[..n].to_vec();
        if !octets.starts_with(b"HTTP/") {
            fault(&mut octets);
        }
        if to.write_all(&octets).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
