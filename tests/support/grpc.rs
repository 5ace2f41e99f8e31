//! gRPC's own client and server, made of PyPI's grpcio: children that say what they see
//! in lines of JSON. `tests/run` installs the library.

use std::path::Path;

use serde_json::{Value, json};

use super::pypi::{self, Program};
use super::{PATIENCE, within};

/// The call must be over by then, whatever happens: longer than any drain of a test.
const LONG: f64 = 60.0;

fn start(script: &str, arguments: &[String]) -> Program {
    Program::start(pypi::program(&format!("peers/grpc/{script}")).args(arguments))
}

/// A server.
#[derive(Debug)]
pub(crate) struct Server {
    program: Program,
    port: u64,
}

impl Server {
    /// Starts one and waits until it listens.
    pub(crate) fn start() -> Server {
        let program = start("server.py", &[]);
        let port = within(PATIENCE, "grpcio's server to listen", || {
            program.lines().first().and_then(|line| line["port"].as_u64())
        });
        Server { program, port }
    }

    /// Where it is, as an upstream.
    pub(crate) fn upstream(&self) -> String {
        format!("h2c://127.0.0.1:{}", self.port)
    }

    /// Waits until it has said `what` of the call that carries `mark`.
    pub(crate) fn wait(&self, what: &str, mark: &str) -> Value {
        within(PATIENCE, &format!("the server to say `{what}` of {mark}"), || {
            let lines = self.program.lines();
            lines.into_iter().find(|line| line["mark"] == mark && !line[what].is_null())
        })
    }
}

/// How a call ended, as its client sees it.
#[derive(Clone, Debug)]
pub(crate) struct Finish {
    /// The status code.
    pub(crate) code: u64,
    /// Its details.
    pub(crate) details: String,
    /// How long the messages were that came.
    pub(crate) sizes: Vec<u64>,
    /// The beginning of the only one.
    pub(crate) text: String,
    /// The server's metadata before and behind the messages.
    pub(crate) metadata: [Value; 2],
}

/// A client with one channel.
#[derive(Debug)]
pub(crate) struct Client {
    program: Program,
    answered: usize,
}

impl Client {
    /// One for this port; with a file of certificates, by TLS.
    pub(crate) fn new(port: u16, trusted: Option<&Path>) -> Client {
        let mut arguments = vec![format!("localhost:{port}")];
        arguments.extend(trusted.map(|path| path.display().to_string()));
        Client { program: start("client.py", &arguments), answered: 0 }
    }

    fn tell(&mut self, command: &Value) -> Value {
        self.program.tell(command);
        let answer = within(PATIENCE, &format!("grpcio's client to do {command}"), || {
            self.program.lines().get(self.answered).cloned()
        });
        self.answered += 1;
        answer
    }

    /// Begins a call that the server knows by its `mark`; `more` is metadata.
    pub(crate) fn call(&mut self, mark: &str, method: &str, size: u64, more: &[(&str, u64)]) {
        self.call_within(LONG, mark, method, size, more);
    }

    /// The same with a deadline after so many seconds.
    pub(crate) fn call_within(
        &mut self,
        seconds: f64,
        mark: &str,
        method: &str,
        size: u64,
        more: &[(&str, u64)],
    ) {
        let mut metadata = json!({ "x-mark": mark });
        for (name, value) in more {
            metadata[*name] = json!(value.to_string());
        }
        self.tell(&json!({
            "do": "call", "id": mark, "method": method, "size": size, "timeout": seconds,
            "metadata": metadata,
        }));
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, mark: &str, size: u64) {
        self.tell(&json!({ "do": "send", "id": mark, "size": size }));
    }

    /// Ends the request.
    pub(crate) fn end(&mut self, mark: &str) {
        self.tell(&json!({ "do": "end", "id": mark }));
    }

    /// Receives a message.
    pub(crate) fn receive(&mut self, mark: &str) -> Option<u64> {
        self.tell(&json!({ "do": "receive", "id": mark }))["size"].as_u64()
    }

    /// Gives a call up.
    pub(crate) fn cancel(&mut self, mark: &str) {
        self.tell(&json!({ "do": "cancel", "id": mark }));
    }

    /// Waits until a call is over.
    pub(crate) fn finish(&mut self, mark: &str) -> Finish {
        let said = self.tell(&json!({ "do": "finish", "id": mark }));
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        let sizes = said["sizes"].as_array().cloned().unwrap_or_default();
        Finish {
            code: said["code"].as_u64().unwrap_or_else(|| panic!("no status: {said}")),
            details: text("details"),
            sizes: sizes.iter().filter_map(Value::as_u64).collect(),
            text: text("text"),
            metadata: [said["initial"].clone(), said["trailing"].clone()],
        }
    }
}
