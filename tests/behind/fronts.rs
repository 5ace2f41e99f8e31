//! nginx and HAProxy before two ebbtides, with the very files that are recommended for
//! them.

use std::path::Path;

use rustix::process::Signal;

use crate::foreign::Foreign;
use crate::ground::{Ground, Role};
use crate::support::{PATIENCE, within};

/// A front at work.
#[derive(Debug)]
pub(crate) struct Front {
    server: Foreign,
}

/// What starts a front on a ground.
pub(crate) type Kind = fn(&Ground) -> Front;

/// A file of `config/`.
pub(crate) fn recommended(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(file);
    std::fs::read_to_string(path).expect("a recommended configuration")
}

/// nginx as it is recommended.
pub(crate) fn nginx(ground: &Ground) -> Front {
    nginx_with(ground, 2, &recommended("behind-nginx.conf"))
}

/// nginx with nothing but what makes it a proxy. It has one worker by default.
pub(crate) fn bare_nginx(ground: &Ground) -> Front {
    nginx_with(
        ground,
        1,
        "upstream ebbtide { server 10.0.0.11:8080; server 10.0.0.12:8080; }
         server { listen 80; location / { proxy_pass http://ebbtide; } }",
    )
}

/// HAProxy as it is recommended.
pub(crate) fn haproxy(ground: &Ground) -> Front {
    let directory = tempfile::tempdir().expect("a directory");
    let global = "global\n log stdout format raw local0\n maxconn 512\n";
    let recommended = ground.written_into(&recommended("behind-haproxy.cfg"));
    let mut command = Foreign::command("/usr/sbin/haproxy");
    command.arg("-db");
    for (name, text) in [("global.cfg", global), ("behind-haproxy.cfg", &recommended)] {
        let file = directory.path().join(name);
        std::fs::write(&file, text).expect("a config file");
        command.arg("-f").arg(file);
    }
    let place = ground.place(Role::Front);
    Front { server: Foreign::start("HAProxy", command, Signal::TERM, directory, &place) }
}

fn nginx_with(ground: &Ground, workers: u8, site: &str) -> Front {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    std::fs::write(at.join("site.conf"), ground.written_into(site)).expect("a config file");
    let main = NGINX_MAIN.replace("DIRECTORY", &at.display().to_string());
    let main = main.replace("WORKERS", &workers.to_string());
    std::fs::write(at.join("nginx.conf"), main).expect("a config file");
    let mut command = Foreign::command("/usr/sbin/nginx");
    // Without -e it writes to the log of the system before it reads the rest.
    command.arg("-e").arg(at.join("log")).arg("-p").arg(at).arg("-c").arg(at.join("nginx.conf"));
    let place = ground.place(Role::Front);
    Front { server: Foreign::start("nginx", command, Signal::TERM, directory, &place) }
}

impl Front {
    /// How often it has said this.
    pub(crate) fn said(&self, what: &str) -> usize {
        self.server.said().matches(what).count()
    }

    /// Waits until it has said this more often.
    pub(crate) fn wait_said(&self, what: &str, before: usize) {
        within(PATIENCE, &format!("the front to say {what}"), || {
            (self.said(what) > before).then_some(())
        });
    }
}

/// What stands around a site. Its workers keep the user of the test, who owns the
/// directory.
const NGINX_MAIN: &str = "
daemon off;
user root;
worker_processes WORKERS;
pid DIRECTORY/pid;
error_log DIRECTORY/log error;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path DIRECTORY/body;
    proxy_temp_path DIRECTORY/proxy;
    fastcgi_temp_path DIRECTORY/fastcgi;
    uwsgi_temp_path DIRECTORY/uwsgi;
    scgi_temp_path DIRECTORY/scgi;
    include DIRECTORY/site.conf;
}
";
