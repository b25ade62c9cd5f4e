//! The engine of an agent that follows the Kubernetes API.

use std::collections::BTreeSet;

use tokio::sync::mpsc;

use super::*;
use crate::engine::{Notice, Observed};
use crate::object::Object;

/// An engine in a cluster, and what it tells of.
struct Cluster {
    rig: Rig,
    notices: mpsc::Receiver<Notice>,
}

impl Cluster {
    fn new() -> Self {
        Self::in_folder(TempDir::new().expect("a folder"))
    }

    fn in_folder(folder: TempDir) -> Self {
        let table = Table::default();
        let (notify, notices) = mpsc::channel(16);
        let config = Config {
            authority: Authority::Cluster,
            service_cidrs: Vec::new(),
            notices: Some(notify),
            ..config(folder.path(), 1)
        };
        let sink = table.clone();
        let engine = Engine::start_on(config, move || Ok(sink)).expect("an engine");
        Self { rig: Rig { engine, table, folder }, notices }
    }

    async fn is(&self, yaml: &str) {
        let observed = objects(yaml).into_iter().map(Observed::Is).collect();
        self.rig.engine.observe(observed).await;
    }

    async fn gone(&self, kind: Kind, name: &str) {
        self.rig.engine.observe(vec![Observed::Gone(Key::new(kind, "default", name))]).await;
    }

    /// A list of a kind that holds `yaml`.
    async fn listed(&self, kind: Kind, yaml: &str) {
        self.is(yaml).await;
        let present: BTreeSet<Key> = objects(yaml).iter().map(Object::key).collect();
        self.rig.engine.listed(kind, present).await;
    }
}

fn objects(yaml: &str) -> Vec<Object> {
    let documents = decode(yaml.as_bytes(), "api").into_iter();
    let object = |document: Result<_, _>| match document {
        Ok(crate::object::Document { object, .. }) => object,
        Err(problem) => panic!("the test's object is well-formed: {problem:?}"),
    };
    documents.map(object).collect()
}

/// A Service as an API server gives it.
fn allocated(name: &str, ip: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{clusterIP: {ip}, clusterIPs: [{ip}], ipFamilies: [IPv4], selector: {{app: {name}}}, \
         ports: [{{port: 80, targetPort: 8080, protocol: TCP}}]}}\n"
    )
}

#[tokio::test]
async fn nothing_is_served_before_every_source_was_heard() {
    let cluster = Cluster::new();
    cluster.is(&allocated("web", "10.96.0.10")).await;
    assert_eq!(cluster.rig.held().applied, 0, "its endpoints are not known yet");
    cluster.is(&slice("web-1", "web", "10.0.0.1")).await;
    assert_eq!(cluster.rig.held().applied, 0);
    cluster.rig.synced().await;
    assert_eq!(cluster.rig.dump(), ["web tcp/80 10.96.0.10 -> 10.0.0.1:8080"]);
    assert_eq!(cluster.rig.held().pruned, 1);
}

#[tokio::test]
async fn every_order_ends_in_what_an_agent_of_its_own_serves() {
    let (web, front) = (allocated("web", "10.96.0.10"), allocated("front", "10.96.0.11"));
    let (one, two) = (slice("web-1", "web", "10.0.0.1"), slice("web-2", "web", "10.0.0.2"));
    let items = [web, one, front, two, slice("lost-1", "nobody", "10.0.0.9")];
    let alone = Rig::new();
    for item in &items {
        // Without selector, its slices are taken as they are.
        alone
            .apply(
                &item.replace("selector: {app: web}, ", "").replace("selector: {app: front}, ", ""),
            )
            .await;
    }
    let expected = alone.dump();
    assert_eq!(expected.len(), 2);
    for seed in 0..24 {
        let mut order = items.to_vec();
        fastrand::Rng::with_seed(seed).shuffle(&mut order);
        for synced_after in [0, 3, items.len()] {
            let cluster = Cluster::new();
            for (index, item) in order.iter().enumerate() {
                if index == synced_after {
                    cluster.rig.synced().await;
                }
                cluster.is(item).await;
            }
            cluster.rig.synced().await;
            assert_eq!(cluster.rig.dump(), expected, "{synced_after}: {order:#?}");
        }
    }
}

#[tokio::test]
async fn a_new_list_changes_only_what_is_different() {
    let cluster = Cluster::new();
    let services = allocated("web", "10.96.0.10") + &allocated("front", "10.96.0.11");
    cluster.is(&services).await;
    cluster.is(&(slice("web-1", "web", "10.0.0.1") + &slice("front-1", "front", "10.0.0.3"))).await;
    cluster.rig.synced().await;
    let before = cluster.rig.held().applied;
    cluster.listed(Kind::Service, &services).await;
    assert_eq!(cluster.rig.held().applied, before, "the same as before");
    let changed = slice("web-1", "web", "10.0.0.2");
    cluster.listed(Kind::EndpointSlice, &(changed + &slice("front-1", "front", "10.0.0.3"))).await;
    let names: BTreeSet<_> =
        cluster.rig.held().changed.iter().map(|id| id.service.name.to_string()).collect();
    assert_eq!(names, BTreeSet::from(["web".to_owned()]));
    cluster.listed(Kind::Service, &allocated("front", "10.96.0.11")).await;
    assert_eq!(cluster.rig.dump(), ["front tcp/80 10.96.0.11 -> 10.0.0.3:8080"]);
    cluster.gone(Kind::EndpointSlice, "front-1").await;
    cluster.gone(Kind::EndpointSlice, "front-1").await;
    assert_eq!(cluster.rig.dump(), ["front tcp/80 10.96.0.11 -> "]);
}

#[tokio::test]
async fn pods_make_no_endpoints_and_what_is_on_no_node_is_not_here() {
    let cluster = Cluster::new();
    let local =
        allocated("web", "10.96.0.10").replace("spec: {", "spec: {internalTrafficPolicy: Local, ");
    cluster.is(&local).await;
    cluster.is(&pod("a", "app: web", "10.0.0.1", true)).await;
    cluster.is(&slice("web-1", "web", "10.0.0.2")).await;
    cluster.rig.synced().await;
    assert_eq!(cluster.rig.dump(), ["web tcp/80 10.96.0.10 -> 10.0.0.2:8080"]);
    let here = |cluster: &Cluster| {
        let held = cluster.rig.held();
        let backends = held.table.values().flat_map(|wanted| &wanted.backends);
        backends.map(|backend| (backend.here, backend.local)).collect::<Vec<_>>()
    };
    assert_eq!(here(&cluster), [(false, false)]);
    let named = slice("web-1", "web", "10.0.0.2").replace("[10.0.0.2]", "[10.0.0.2], nodeName: us");
    cluster.is(&named).await;
    assert_eq!(here(&cluster), [(true, true)]);
}

#[tokio::test]
async fn objects_are_the_clusters_to_change() {
    let cluster = Cluster::new();
    cluster.is(&allocated("web", "10.96.0.10")).await;
    cluster.rig.synced().await;
    let said = cluster.rig.apply(&allocated("own", "10.96.0.77")).await.join("");
    assert!(said.contains("use kubectl"), "{said}");
    let said = cluster.rig.delete(Kind::Service, "web").await.join("");
    assert!(said.contains("use kubectl"), "{said}");
    assert_eq!(cluster.rig.dump(), ["web tcp/80 10.96.0.10 -> "]);
}

#[tokio::test]
async fn what_is_not_served_is_told_once_and_shown_while_it_is_so() {
    let mut cluster = Cluster::new();
    let sctp = "{port: 81, name: s, protocol: SCTP}";
    let service = allocated("web", "10.96.0.10");
    let mixed = service.replace("protocol: TCP}]", &format!("protocol: TCP, name: t}}, {sctp}]"));
    cluster.is(&mixed).await;
    cluster.is(&mixed).await;
    cluster.rig.synced().await;
    let notice = cluster.notices.try_recv().expect("a notice");
    assert!(notice.message.contains("lb does not serve SCTP") && !notice.here, "{notice:?}");
    assert!(cluster.notices.try_recv().is_err(), "told once");
    let refused = cluster.rig.engine.status().await.refused;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(
        (refused[0].object.as_str(), refused[0].source.as_str()),
        ("service/web", "the Kubernetes API")
    );
    cluster.is(&service).await;
    assert!(cluster.rig.engine.status().await.refused.is_empty());
}

#[tokio::test]
async fn objects_are_there_to_be_looked_at_before_the_api_answers_again() {
    let cluster = Cluster::new();
    cluster.is(&(allocated("web", "10.96.0.10") + &slice("web-1", "web", "10.0.0.1"))).await;
    cluster.rig.synced().await;
    let Rig { engine, folder, .. } = cluster.rig;
    engine.stop().await;
    let again = Cluster::in_folder(folder);
    assert!(again.rig.get(Kind::Service, "web").await.is_some());
    assert_eq!(again.rig.dump(), [""; 0], "it may have changed since");
    again.listed(Kind::Service, "").await;
    again.rig.synced().await;
    assert_eq!(again.rig.dump(), [""; 0]);
    assert!(again.rig.get(Kind::Service, "web").await.is_none());
}

#[tokio::test]
async fn a_damaged_copy_is_begun_anew() {
    let folder = TempDir::new().expect("a folder");
    std::fs::write(folder.path().join("kubernetes.redb"), "not a store").expect("written");
    let cluster = Cluster::in_folder(folder);
    cluster.is(&allocated("web", "10.96.0.10")).await;
    cluster.rig.synced().await;
    assert_eq!(cluster.rig.dump(), ["web tcp/80 10.96.0.10 -> "]);
}
