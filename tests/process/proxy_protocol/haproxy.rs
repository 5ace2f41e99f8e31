//! HAProxy as the proxy before us.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{client_from, is_from, launch};
use crate::support::origin::Origin;
use crate::support::tls::{Manner, TlsEnd};
use crate::support::wire::Place;

/// A running HAProxy. Ended on drop.
struct HaProxy {
    place: Place,
    child: Child,
}

impl HaProxy {
    /// With this setting of how it announces its clients.
    fn start(dir: &Path, before: &Place, send: &str) -> HaProxy {
        let program = "/usr/sbin/haproxy";
        assert!(Path::new(program).exists(), "{program} is missing; tests/run installs it");
        let config = dir.join("haproxy.cfg");
        let text = format!(
            "defaults\n mode tcp\n timeout connect 20s\n timeout client 60s\n timeout server 60s\n\
             listen front\n bind fd@0\n server app {before} {send} source 127.0.0.3\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut place = Place::parse("127.0.0.1:0");
        let listener = place.socket();
        listener.bind(&place.sock_addr()).unwrap();
        // Whoever connects now waits until it has started.
        listener.listen(16).unwrap();
        place = Place::Tcp(listener.local_addr().unwrap().as_socket().unwrap());
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(config);
        let child = command.stdin(Stdio::from(OwnedFd::from(listener))).spawn().unwrap();
        HaProxy { place, child }
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn haproxy_says_whose_its_connections_are() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::new();
    let proxy = launch(&origin)
        .tls()
        .set("trusted_proxies", "127.0.0.3")
        .set("forwarding.proxy_protocol", "require")
        .start();
    for send in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"] {
        let haproxy = HaProxy::start(dir.path(), &proxy.place(), send);
        let mut client = client_from("127.0.0.9", &haproxy.place);
        for _ in 0..2 {
            client.get("/through");
            assert_eq!(client.response().status, 200, "{send}");
            is_from(&origin.requests().pop().unwrap(), "127.0.0.9", haproxy.place.port());
        }
        let haproxy = HaProxy::start(dir.path(), &proxy.tls_place(), send);
        let mut client = Manner::new().connect(&haproxy.place).shaken();
        assert_eq!(client.get("/encrypted").response().status, 200, "{send}");
        is_from(&origin.requests().pop().unwrap(), "127.0.0.1", haproxy.place.port());
        client.half_close();
        assert_eq!(client.end(), TlsEnd::Clean);
    }
}
