//! A gateway that does nothing of what one has to do: it copies octets, both ways.
//! Who judges gateways must find it wanting.

use std::net::{Shutdown, TcpListener, TcpStream};

use crate::subject::{Subject, Way};
use crate::support::wire::Place;

/// A copier in front of this origin.
pub(crate) fn copier(origin: &Place) -> Subject {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::Tcp(listener.local_addr().unwrap());
    let Place::Tcp(behind) = *origin else { panic!("an origin on TCP") };
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(origin) = TcpStream::connect(behind) else { return };
            for (from, to) in [(&client, &origin), (&origin, &client)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    Subject::at(place.clone(), Way::Clear(place))
}
