//! What several keys together must, or had better, say.
//!
//! Owns the rules between keys; a key by itself is checked by its form. Where a
//! key was refused already, no rule is applied to it: its value is unknown.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use super::draft::Draft;
use super::error::{Error, Origin, Problem, Warning};
use super::load::Builder;
use super::model::{Address, Config, INFINITY, Listen, RouteDrain};
use super::show::Span;
use crate::tls::certs::{self, Remark, Side};
use crate::tls::{Roots, is_name};

/// Adds the errors that lie between keys.
pub(super) fn errors(builder: &mut Builder) {
    // A file that could not be read or parsed may have said anything.
    let unknown_file = builder
        .errors
        .iter()
        .any(|error| matches!(error.problem, Problem::Unreadable(_) | Problem::Syntax(_)));
    if !unknown_file {
        missing(builder);
    }
    duplicates(builder);
    pairs(builder);
    certificates(builder);
    authorities(builder);
    totals(builder);
}

/// Someone must be listened to, and someone must answer.
fn missing(builder: &mut Builder) {
    let config = &builder.draft.config;
    let listens = config.listen.len() + config.tls.listen.len() > 0;
    let need = [
        (
            "listen",
            // A refused tls.listen might have been the one.
            !listens && !refused(&builder.errors, "tls.listen"),
            "--listen ADDRESS, --tls-listen ADDRESS, EBBTIDE_LISTEN",
        ),
        (
            "upstream.endpoints",
            config.upstream.endpoints.is_empty(),
            "--upstream ADDRESS, EBBTIDE_UPSTREAM__ENDPOINTS",
        ),
    ];
    for (key, empty, how) in need {
        if empty && !refused(&builder.errors, key) {
            let text =
                format!("none given, at least one is needed; use {how} or `{key}` in a file");
            let origin = builder.origins.get(key).cloned().unwrap_or(Origin::Whole);
            builder.error(origin, key, Problem::Conflict(text));
        }
    }
}

/// The same place cannot be bound twice.
fn duplicates(builder: &mut Builder) {
    let config = &builder.draft.config;
    let listeners = config.listen.iter().map(|listen| ("listen", listen));
    let tls = config.tls.listen.iter().map(|listen| ("tls.listen", listen));
    let admin = config.admin.iter().map(|listen| ("admin", listen));
    let mut seen = HashSet::new();
    let mut twice = Vec::new();
    for (key, listen) in listeners.chain(tls).chain(admin) {
        let place = match listen {
            Listen::Tcp(address) if address.port() == 0 => continue,
            Listen::Tcp(address) => address.to_string(),
            Listen::Unix { path, .. } => place_of(path),
            Listen::Fd(_) => listen.to_string(),
        };
        if !seen.insert(place) {
            twice.push((key, format!("{listen} is listened on twice")));
        }
    }
    if let Some(path) = &config.upgrade.takeover
        && !seen.insert(place_of(path))
    {
        twice.push(("upgrade.takeover", format!("{} is listened on twice", path.display())));
    }
    for (key, text) in twice {
        let origin = builder.origins.get(key).cloned().unwrap_or(Origin::Whole);
        builder.error(origin, key, Problem::Conflict(text));
    }
}

/// A path, however it is spelled: without `.` and double slashes, and from the root.
fn place_of(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// TLS needs certificates, and each of them its key.
fn pairs(builder: &mut Builder) {
    let tls = &builder.draft.config.tls;
    let (certs, keys) = (tls.cert.len(), tls.key.len());
    let mut wrong = Vec::new();
    if certs == 0 && keys == 0 && !tls.listen.is_empty() {
        let text = "none given, but tls.listen needs at least one and its key; use --cert FILE \
                    --key FILE or `tls.cert` and `tls.key` in a file";
        wrong.push(("tls.cert", text.to_owned()));
    } else if certs != keys {
        wrong.push((
            "tls.key",
            format!(
                "found {keys} for {certs} in tls.cert; allowed: as many, each in the place of its \
             certificate"
            ),
        ));
    }
    for (key, text) in wrong {
        if !["tls.cert", "tls.key"].iter().any(|key| refused(&builder.errors, key)) {
            let origin = builder.origins.get(key).cloned().unwrap_or(Origin::Whole);
            builder.error(origin, key, Problem::Conflict(text));
        }
    }
}

/// What the files say, which is read here so that it is told with everything else.
fn certificates(builder: &mut Builder) {
    let key = |remark: &Remark| match remark.side {
        Side::Cert => "tls.cert",
        Side::Key => "tls.key",
    };
    match certs::load(&builder.draft.config.tls.pairs(), SystemTime::now()) {
        Ok(loaded) => {
            let warnings = loaded.warnings.iter();
            builder.warnings.extend(
                warnings.map(|remark| Warning { key: key(remark), text: remark.to_string() }),
            );
        }
        Err(remarks) => {
            for remark in remarks {
                let origin = builder.origins.get(key(&remark)).cloned().unwrap_or(Origin::Whole);
                builder.error(origin, key(&remark), Problem::Conflict(remark.to_string()));
            }
        }
    }
}

/// An app server with TLS needs a name, and somebody who vouches for it.
fn authorities(builder: &mut Builder) {
    const CA: &str = "upstream.tls_ca";
    const NAME: &str = "upstream.tls_name";
    let upstream = &builder.draft.config.upstream;
    let mut wrong = Vec::new();
    if (upstream.has_tls() || upstream.tls_ca.is_some()) && !refused(&builder.errors, CA) {
        let loaded = Roots::load(upstream.tls_ca.as_deref());
        wrong.extend(loaded.err().unwrap_or_default().into_iter().map(|text| (CA, text)));
    }
    let unfit = |name: &str| format!("found {name:?}, for which there can be no certificate");
    match &upstream.tls_name {
        Some(name) if !is_name(name) => wrong.push((NAME, unfit(name))),
        Some(_) => {}
        None if refused(&builder.errors, NAME) => {}
        None => {
            for endpoint in upstream.endpoints.iter().filter(|endpoint| endpoint.speaks.is_tls()) {
                if let Address::Tcp { host, .. } = &endpoint.address
                    && !is_name(host)
                {
                    let text = format!("{}; set upstream.tls_name", unfit(host));
                    wrong.push(("upstream.endpoints", text));
                }
            }
        }
    }
    for (key, text) in wrong {
        let origin = builder.origins.get(key).cloned().unwrap_or(Origin::Whole);
        builder.error(origin, key, Problem::Conflict(text));
    }
}

/// A total below the sum of its phases would cut a phase short unsaid.
fn totals(builder: &mut Builder) {
    let Draft { config, stop_total, upgrade_total, .. } = &builder.draft;
    let leave = &config.upgrade.plan;
    let sums = [
        (
            "drain.stop",
            *stop_total,
            config.stop.sum(),
            "lame_duck + 1s closing + ",
            &["lame_duck", "drain_timeout", "cut_timeout", "finish_timeout"][..],
        ),
        (
            "drain.upgrade",
            *upgrade_total,
            leave.rest(),
            "",
            &["drain_timeout", "cut_timeout", "finish_timeout"][..],
        ),
    ];
    for (section, total, sum, before, parts) in sums {
        let unknown = |part: &&str| refused(&builder.errors, &format!("{section}.{part}"));
        let Some(total) = total.filter(|total| *total < sum && !parts.iter().any(unknown)) else {
            continue;
        };
        let text = format!(
            "{} is less than the phases take together, {} ({before}drain_timeout + \
             cut_timeout + finish_timeout); raise it or leave it out",
            Span(total),
            Span(sum),
        );
        let key = format!("{section}.total_timeout");
        let origin = builder.origins.get(&*key).cloned().unwrap_or(Origin::Whole);
        builder.error(origin, &key, Problem::Conflict(text));
    }
}

fn refused(errors: &[Error], key: &str) -> bool {
    errors.iter().any(|error| error.key.as_deref() == Some(key))
}

/// What is legal but may surprise.
pub(super) fn warnings(config: &Config) -> Vec<Warning> {
    let mut warnings = short_drains(config);
    let mut warn = |key, text| warnings.push(Warning { key, text });
    let limits = &config.limits;
    if let (Some(address), Some(all)) = (limits.connections_per_address, limits.connections)
        && address > all
    {
        let text = format!("{address} is more than limits.connections: it has no effect");
        warn("limits.connections_per_address", text);
    }
    for route in config.routes.iter() {
        if let Some(RouteDrain::CloseAfter(time)) = route.on_drain
            && time > config.stop.drain_timeout
        {
            let text = format!("{route}: it is longer than drain.stop.drain_timeout");
            warn("route.on_drain", format!("{text}, which ends it"));
        } else if !route.endless && route.on_drain.is_none() {
            warn("route.path", format!("{route}: nothing is said of it, so it has no effect"));
        }
    }
    if !config.admin_names.is_empty()
        && !matches!(config.admin, Some(Listen::Tcp(_) | Listen::Fd(_)))
    {
        warn("admin_names", "there is no TCP admin listener: it has no effect".to_owned());
    }
    if config.tls.listen.is_empty() && !config.tls.cert.is_empty() {
        warn("tls.cert", "there is no tls.listen: it has no effect".to_owned());
    }
    if !config.upstream.has_tls() {
        for (key, set) in [
            ("upstream.tls_ca", config.upstream.tls_ca.is_some()),
            ("upstream.tls_name", config.upstream.tls_name.is_some()),
        ] {
            if set {
                warn(key, "no app server is spoken to with TLS: it has no effect".to_owned());
            }
        }
    }
    for endpoint in &config.upstream.endpoints {
        if config.listen.iter().any(|listen| leads_to(&endpoint.address, listen)) {
            let text = format!("{endpoint} is our own listener: requests would go in circles");
            warn("upstream.endpoints", text);
        }
    }
    warnings
}

/// Drains that end before what they have to wait for.
fn short_drains(config: &Config) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |key, text| warnings.push(Warning { key, text });
    let stop = &config.stop;
    let leave = &config.upgrade.plan;
    let (ends, goes) = ("drain.stop.drain_timeout", "drain.upgrade.drain_timeout");
    let first_byte = config.upstream.first_byte_timeout;
    for (key, plan, drain) in [(ends, stop, "a stop"), (goes, leave, "an upgrade")] {
        if plan.drain_timeout < first_byte {
            let waits = match first_byte {
                INFINITY => "for ever".to_owned(),
                time => Span(time).to_string(),
            };
            let end = Span(plan.drain_timeout);
            let text = format!(
                "{end} is less than upstream.first_byte_timeout: a request that may wait {waits} \
                 for its response is cut after {end} of {drain}"
            );
            warn(key, text);
        }
    }
    let graces = [
        ("drain.stop.first_request_grace", stop.first_request_grace, ends, stop),
        ("drain.stop.idle_grace", stop.idle_grace, ends, stop),
        ("drain.stop.goaway_grace", stop.goaway_grace, ends, stop),
        ("drain.upgrade.first_request_grace", leave.first_request_grace, goes, leave),
        ("drain.upgrade.idle_grace", leave.idle_grace, goes, leave),
        ("drain.upgrade.goaway_grace", leave.goaway_grace, goes, leave),
    ];
    for (key, grace, end, plan) in graces {
        if grace > plan.drain_timeout {
            warn(key, format!("{} is longer than {end}, which ends it", Span(grace)));
        }
    }
    warnings
}

/// Whether a connect to `address` certainly ends at `listen`.
fn leads_to(address: &Address, listen: &Listen) -> bool {
    match (address, listen) {
        (Address::Unix(theirs), Listen::Unix { path: ours, .. }) => theirs == ours,
        (Address::Tcp { host, port }, Listen::Tcp(ours)) => {
            let host = if host == "localhost" { "127.0.0.1" } else { host };
            host.parse().is_ok_and(|ip| SocketAddr::new(ip, *port) == *ours)
                || (ours.ip().is_unspecified() && host == "127.0.0.1" && *port == ours.port())
        }
        _ => false,
    }
}
