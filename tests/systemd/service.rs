//! A service by the shipped unit, with a command line of the test's.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::manager::{BINARY, Manager, own_address, shipped};
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::wire::Place;
use crate::support::{PATIENCE, within};

/// The name of the unit.
pub(crate) const UNIT: &str = "ebbtide.service";

/// A service that is not started yet.
pub(crate) struct Plan {
    args: Vec<String>,
    settings: Vec<String>,
    units: Vec<(&'static str, String)>,
    place: Place,
}

impl Plan {
    /// Before `origin`, on an address of its own.
    pub(crate) fn before(origin: &Origin) -> Plan {
        let place = own_address();
        let plan = Plan { args: Vec::new(), settings: Vec::new(), units: Vec::new(), place };
        plan.arg("--upstream").arg(&origin.place().to_string()).set("workers", "2")
    }

    /// One more argument.
    pub(crate) fn arg(mut self, arg: &str) -> Plan {
        self.args.push(arg.to_owned());
        self
    }

    /// One more key.
    pub(crate) fn set(self, key: &str, value: &str) -> Plan {
        self.arg("--set").arg(&format!("{key}={value}"))
    }

    /// A setting of the unit, in place of the shipped one.
    pub(crate) fn unit(mut self, setting: &str) -> Plan {
        self.settings.push(setting.to_owned());
        self
    }

    /// One more unit.
    pub(crate) fn beside(mut self, name: &'static str, text: String) -> Plan {
        self.units.push((name, text));
        self
    }

    /// Where clients connect.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Listens on the address.
    pub(crate) fn listening(self) -> Plan {
        let place = self.place.to_string();
        self.arg("--listen").arg(&place)
    }

    /// Starts the manager, and nothing by it.
    pub(crate) fn load(self) -> Service {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        let admin = dir.path().join("admin");
        let unit = self.text(&log, &admin);
        let mut units = vec![(UNIT, unit)];
        units.extend(self.units);
        let manager = Manager::start(&units);
        Service { manager, place: self.place, log, admin: Place::Unix(admin), _dir: dir }
    }

    /// Starts the service.
    pub(crate) fn start(self) -> Service {
        let service = self.listening().load();
        service.manager.must(&["start", UNIT]);
        service
    }

    /// The shipped unit, but for what the test has to say: the paths, what only a
    /// system manager can do, and who is root.
    fn text(&self, log: &std::path::Path, admin: &std::path::Path) -> String {
        let mut text = shipped(UNIT);
        let admin = format!("unix:{}", admin.display());
        let start = format!("{BINARY} run --admin {admin} {}", self.args.join(" "));
        let own = [
            format!("ExecStart={start}"),
            format!("ExecReload={BINARY} upgrade --admin {admin}"),
            format!("StandardError=append:{}", log.display()),
            "StandardOutput=null".to_owned(),
            "DynamicUser=no".to_owned(),
            // The test's own files are there.
            "PrivateTmp=no".to_owned(),
            "ProtectSystem=no".to_owned(),
            // What they hide is not there in every container that tests run in.
            "ProtectHome=no".to_owned(),
            "ProtectKernelLogs=no".to_owned(),
            "ProtectKernelTunables=no".to_owned(),
        ];
        for setting in own.iter().chain(&self.settings) {
            let (name, _) = setting.split_once('=').expect("a setting");
            let kept = text
                .lines()
                .filter(|line| name == "Environment" || !line.starts_with(&format!("{name}=")));
            text = kept.fold(String::new(), |all, line| all + line + "\n");
            text = text.replace("[Service]\n", &format!("[Service]\n{setting}\n"));
        }
        text
    }
}

/// A service.
pub(crate) struct Service {
    pub(crate) manager: Manager,
    pub(crate) place: Place,
    log: PathBuf,
    /// The admin listener.
    pub(crate) admin: Place,
    _dir: tempfile::TempDir,
}

impl Service {
    /// What it says of itself.
    pub(crate) fn show(&self, property: &str) -> String {
        self.manager.show(UNIT, property)
    }

    /// Waits for what it says of itself.
    #[track_caller]
    pub(crate) fn wait(&self, property: &str, wanted: &str) {
        self.manager.wait(UNIT, property, wanted);
    }

    /// Its main process.
    pub(crate) fn main_pid(&self) -> u32 {
        self.show("MainPID").parse().expect("a pid")
    }

    /// The lines of its log so far.
    pub(crate) fn events(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|event| event["event"] == name).collect()
    }

    /// Waits until there are `n` lines of this name; the last of them.
    pub(crate) fn wait_events(&self, name: &str, n: usize) -> Value {
        within(PATIENCE, &format!("{n} events {name} in {:?}", self.log), || {
            let mut events = self.events(name);
            (events.len() >= n).then(|| events.pop()).flatten()
        })
    }

    /// A client that has asked.
    pub(crate) fn asked(&self, target: &str) -> Client {
        let mut client = Client::connect(&self.place);
        client.get(target);
        client
    }

    /// Asks, and has to be answered.
    #[track_caller]
    pub(crate) fn answers(&self) {
        assert_eq!(self.asked("/ok").response().text(), "GET /ok 0");
    }

    /// Starts a job of the manager's, without waiting for its end.
    pub(crate) fn begin(&self, job: &str) {
        self.manager.must(&["--no-block", job, UNIT]);
    }

    /// Waits until it has stopped; what came of it.
    pub(crate) fn stopped(&self) -> String {
        let what = "the service to be stopped";
        let is_over = |state: &str| state == "inactive" || state == "failed";
        self.manager.wait_where(UNIT, "ActiveState", what, is_over);
        self.show("Result")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            let show = self.manager.systemctl(&["show", UNIT]);
            eprintln!("the service said:\n{said}\n{}", String::from_utf8_lossy(&show.stdout));
        }
    }
}
