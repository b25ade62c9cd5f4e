//! What others hear when they ask whether this node works.
//!
//! `healthCheckNodePort`: load balancers elsewhere ask this node whether it has endpoints of a Service,
//! and send their clients to nodes that have (`externalTrafficPolicy: Local`). An answer's road:
//! [`server`] → [`Checks`], which the engine keeps in step with its objects. As in kube-proxy,
//! `pkg/proxy/healthcheck/service_health.go`.
//!
//! The agent as a whole: [`endpoint`] → [`Checks::is_healthy`], by the engine's [`pulse`].

mod endpoint;
mod pulse;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::object::Key;
use crate::plan::{Family, HealthCheck};
pub use endpoint::{PORT, serve};
pub use pulse::Pulse;
pub use server::run;

/// What is asked for, and what is answered; shared between the engine and those who answer. Cheap to
/// clone.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    table: Arc<watch::Sender<Table>>,
    pulse: Pulse,
}

#[derive(Debug, Default)]
struct Table {
    services: BTreeMap<Key, HealthCheck>,
    /// Who has a port: at most one.
    ports: BTreeMap<u16, Key>,
    /// Where is listened.
    addresses: Vec<IpAddr>,
    /// Where it cannot be, and why.
    problems: BTreeMap<SocketAddr, String>,
    /// [`Checks::is_healthy`]
    healthy: bool,
    /// [`Checks::set_leaving`]
    leaving: bool,
}

/// The health checks' part of `lb status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Ports, each of a Service.
    pub ports: usize,
    /// Which cannot be asked at, why, and what helps.
    pub problems: Vec<String>,
}

/// One answer, in kube-proxy's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    service: ServiceName,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ServiceName {
    namespace: Arc<str>,
    name: Arc<str>,
}

/// While this lives, the agent does its work.
#[derive(Debug)]
pub struct Healthy(Checks);

impl Drop for Healthy {
    fn drop(&mut self) {
        self.0.table.send_modify(|table| table.healthy = false);
    }
}

impl Checks {
    /// Sets or removes the checks of Services. The next answer shows it.
    pub fn set(&self, services: Vec<(&Key, Option<HealthCheck>)>) {
        self.table.send_if_modified(|table| {
            let before = table.ports.clone();
            for (key, _) in &services {
                if let Some(gone) = table.services.remove(*key) {
                    table.ports.remove(&gone.port);
                }
            }
            for (key, check) in services {
                if let Some(check) = check {
                    table.ports.insert(check.port, key.clone());
                    table.services.insert(key.clone(), check);
                }
            }
            // Those who listen need not know of numbers.
            before != table.ports
        });
    }

    /// Sets the addresses at which is listened; unspecified ones stand for all of their family.
    pub fn set_addresses(&self, addresses: Vec<IpAddr>) {
        self.table.send_if_modified(|table| {
            let changed = table.addresses != addresses;
            table.addresses = addresses;
            changed
        });
    }

    /// The agent does its work until the guard is dropped.
    pub fn healthy(&self) -> Healthy {
        self.table.send_modify(|table| table.healthy = true);
        Healthy(self.clone())
    }

    /// Whether this node is being deleted, so that nothing should be sent to it any more.
    pub fn set_leaving(&self, leaving: bool) {
        self.table.send_if_modified(|table| {
            table.leaving = leaving;
            false
        });
    }

    /// What `lb status` shows.
    pub fn status(&self) -> Status {
        let table = self.table.borrow();
        let problems = table.problems.iter().map(|(at, why)| table.problem(*at, why)).collect();
        Status { ports: table.ports.len(), problems }
    }

    /// Where the engine tells how far it is.
    pub const fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Whether the agent does its work: the one place that says so.
    fn is_healthy(&self) -> bool {
        self.table.borrow().healthy && self.pulse.keeps_up()
    }

    fn is_leaving(&self) -> bool {
        self.table.borrow().leaving
    }

    /// What is to be answered at a port to who asks by `family`; `None` if no Service has it any more.
    fn answer(&self, port: u16, family: Family) -> Option<Answer> {
        let healthy = self.is_healthy();
        let table = self.table.borrow();
        let key = table.ports.get(&port)?;
        Some(Answer {
            service: ServiceName {
                namespace: Arc::clone(&key.namespace),
                name: Arc::clone(&key.name),
            },
            local_endpoints: table.services.get(key)?.endpoints(family),
            service_proxy_healthy: healthy,
        })
    }

    /// Where is to be listened.
    fn places(&self) -> BTreeSet<SocketAddr> {
        let table = self.table.borrow();
        let at = |port: &u16| {
            let port = *port;
            table.addresses.iter().map(move |address| SocketAddr::new(*address, port))
        };
        table.ports.keys().flat_map(at).collect()
    }

    /// Where it cannot be, and why. Those that are new are logged.
    fn set_problems(&self, problems: BTreeMap<SocketAddr, String>) {
        self.table.send_if_modified(|table| {
            for (at, why) in &problems {
                if table.problems.get(at) != Some(why) {
                    tracing::warn!("{}", table.problem(*at, why));
                }
            }
            table.problems = problems;
            false
        });
    }
}

impl Table {
    fn problem(&self, at: SocketAddr, why: &str) -> String {
        let port = at.port();
        let of =
            self.ports.get(&port).map(|key| format!(" of {key} in namespace {}", key.namespace));
        format!(
            "health checks{} are not answered at {at}: {why}; end what has the port (`ss -ltnp 'sport = \
             :{port}'` names it), or make the Service anew with another healthCheckNodePort. It is \
             tried again every few seconds",
            of.unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind;

    fn key(name: &str) -> Key {
        Key::new(Kind::Service, "default", name)
    }

    fn check(port: u16, endpoints: usize) -> Option<HealthCheck> {
        Some(HealthCheck::of_v4(port, endpoints))
    }

    fn told(checks: &Checks, port: u16) -> Option<(String, usize, bool)> {
        let answer = checks.answer(port, Family::V4)?;
        let name = answer.service.name.to_string();
        Some((name, answer.local_endpoints, answer.service_proxy_healthy))
    }

    #[test]
    fn a_port_goes_from_one_service_to_another_in_one_step() {
        let checks = Checks::default();
        let (a, b) = (key("a"), key("b"));
        checks.set(vec![(&a, check(30_150, 1))]);
        assert_eq!(told(&checks, 30_150), Some(("a".to_owned(), 1, false)), "nobody is at work");
        let healthy = checks.healthy();
        checks.set(vec![(&b, check(30_150, 2)), (&a, None)]);
        assert_eq!(told(&checks, 30_150), Some(("b".to_owned(), 2, true)));
        checks.set(vec![(&b, check(30_151, 0)), (&a, check(30_150, 3))]);
        assert_eq!(told(&checks, 30_150), Some(("a".to_owned(), 3, true)));
        assert_eq!(told(&checks, 30_151), Some(("b".to_owned(), 0, true)));
        drop(healthy);
        assert_eq!(told(&checks, 30_150), Some(("a".to_owned(), 3, false)));
        checks.set(vec![(&a, None), (&b, None)]);
        assert_eq!((told(&checks, 30_150), checks.status().ports), (None, 0));
    }

    #[test]
    fn those_who_listen_are_woken_for_ports_and_addresses_alone() {
        let checks = Checks::default();
        let a = key("a");
        let mut changes = checks.table.subscribe();
        let mut woken = move || {
            let changed = changes.has_changed().expect("the sender lives");
            changes.mark_unchanged();
            changed
        };
        checks.set(vec![(&a, check(30_150, 1))]);
        assert!(woken(), "a port");
        checks.set(vec![(&a, check(30_150, 2)), (&key("b"), None)]);
        assert!(!woken(), "a number");
        checks.set_addresses(vec!["10.0.0.1".parse().expect("an address")]);
        assert!(woken(), "an address");
        assert_eq!(checks.places(), ["10.0.0.1:30150".parse().expect("a place")].into());
        checks.set_problems(BTreeMap::from([(
            "10.0.0.1:30150".parse().expect("a place"),
            "taken".to_owned(),
        )]));
        assert!(!woken(), "what they said themselves");
        let said = checks.status().problems.join("");
        assert!(said.starts_with("health checks of service/a in namespace default"), "{said}");
    }
}
