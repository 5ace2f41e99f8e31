//! An app server on HTTP/2 of other make: nghttp2's nghttpd.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::h2::H2;
use crate::support::identity::Identity;
use crate::support::process::{Launch, Proxy};
use crate::support::wire::Place;
use crate::support::{PATIENCE, pattern, within};

/// A program that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// nghttpd on a port that was free a moment ago, serving the files of `dir`.
fn nghttpd(dir: &Path, tls: Option<&Identity>) -> (Running, u16) {
    let path = "/usr/sbin/nghttpd";
    assert!(Path::new(path).exists(), "nghttpd is not installed: see tests/run");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(path);
    command.args(["--address=127.0.0.1", "-d"]).arg(dir);
    // It echoes what is posted, and puts a trailer behind each file.
    command.args(["--echo-upload", "--trailer=x-served: yes"]);
    match tls {
        None => command.arg("--no-tls").arg(port.to_string()),
        Some(identity) => {
            command.arg(port.to_string()).arg(&identity.files.key).arg(&identity.files.cert)
        }
    };
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let running = Running(child);
    let place = Place::parse(&format!("127.0.0.1:{port}"));
    within(PATIENCE, "nghttpd", || std::net::TcpStream::connect(place.to_string()).ok());
    (running, port)
}

fn serves_everything(proxy: &Proxy, file: &[u8]) {
    let mut client = proxy.client();
    let mut h2 = H2::connect(&proxy.place());
    client.get("/file");
    assert!(client.response().body == file);
    let above: Vec<u32> = (0..50).map(|_| h2.get("/file")).collect();
    for stream in above {
        let response = h2.response(stream);
        assert!(response.status == 200 && response.body == file, "{}", response.status);
    }
    client.post("/echo", file);
    assert!(client.response().body == file);
    let stream = h2.post("/echo", file);
    let response = h2.response(stream);
    assert!(response.body == file && response.whole);
    client.get("/none");
    assert_eq!(client.response().status, 404);
}

#[test]
fn nghttpd_is_an_app_server_in_clear_text_and_with_tls() {
    let dir = tempfile::tempdir().unwrap();
    let file = pattern(200_000);
    std::fs::write(dir.path().join("file"), &file).unwrap();
    let (_clear, port) = nghttpd(dir.path(), None);
    let proxy =
        Launch::before_addr(&format!("h2c://127.0.0.1:{port}")).arg("--workers").arg("1").start();
    serves_everything(&proxy, &file);
    let identity = Identity::new();
    let (_secure, port) = nghttpd(dir.path(), Some(&identity));
    let proxy = Launch::before_addr(&format!("h2://localhost:{port}"))
        .arg("--workers")
        .arg("1")
        .set("upstream.tls_ca", &identity.authority.display().to_string())
        .start();
    serves_everything(&proxy, &file);
}
