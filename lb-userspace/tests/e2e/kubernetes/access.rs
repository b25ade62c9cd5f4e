//! What the agent asks of the server: with which credentials, for what, and how.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;

use super::{assert_served, frontend};
use crate::apiserver::objects::{service, slice_of};
use crate::apiserver::{Request, Resource, StreamingLists, Verb};
use crate::harness::{Cluster, Listen, NODE, cases, eventually};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        it_asks_for_what_it_needs_and_writes_nothing,
        the_credentials_of_a_pod_are_enough,
        a_rotated_token_is_taken_up,
        a_server_without_streaming_lists_is_asked_for_pages,
        a_server_that_ignores_streaming_lists_is_asked_for_pages,
        what_is_not_served_becomes_an_event,
    ]
}

fn it_asks_for_what_it_needs_and_writes_nothing() {
    let cluster = Cluster::start();
    cluster.api.set_all([service("web", &["10.96.0.10"]), slice_of("web", NODE, &[])]);
    cluster.converges("two objects");
    let one = |resource| -> Request {
        let mut all = cluster.api.requests_to(Verb::Watch, resource);
        assert_eq!(all.len(), 1, "one stream is enough: {all:?}");
        all.remove(0)
    };
    let (services, slices) = (one(Resource::Services), one(Resource::EndpointSlices));
    let (nodes, ranges) = (one(Resource::Nodes), one(Resource::ServiceCidrs));
    assert_eq!(nodes.parameter("fieldSelector"), format!("metadata.name={NODE}"));
    let selector = slices.parameter("labelSelector");
    assert!(selector.contains("!service.kubernetes.io/headless"), "{selector}");
    for watch in [services, slices, nodes, ranges] {
        assert!(watch.user_agent.starts_with("lb/"), "{watch:?}");
        assert_eq!(watch.parameter("allowWatchBookmarks"), "true", "{watch:?}");
        assert_eq!(watch.parameter("sendInitialEvents"), "true", "{watch:?}");
        let seconds: u64 = watch.parameter("timeoutSeconds").parse().expect("a time");
        assert!((60..600).contains(&seconds), "{watch:?}");
    }
    let reads = |it: &Request| matches!(it.verb, Verb::Get | Verb::List | Verb::Watch);
    let writes: Vec<_> = cluster.api.requests().into_iter().filter(|it| !reads(it)).collect();
    assert!(writes.is_empty(), "nothing is to be written: {writes:?}");
    assert!(cluster.api.requests_to(Verb::Watch, Resource::Pods).is_empty(), "not asked to");
}

fn the_credentials_of_a_pod_are_enough() {
    let mut cluster = Cluster::without_agent();
    cluster.as_pod();
    cluster.stage.agent.start();
    let pod = cluster.stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    cluster.api.set_all([service("web", &["10.96.0.10"]), slice_of("web", NODE, &[&pod])]);
    assert_served(&cluster.stage.probe(), frontend(10), &["pod-a"]);
}

/// The server refuses the old token at once; the new one is in the file.
fn a_rotated_token_is_taken_up() {
    let cluster = Cluster::start();
    cluster.api.set(service("web", &["10.96.0.10"]));
    cluster.converges("with the first token");
    cluster.api.rotate_token();
    cluster.api.leave();
    cluster.api.set(service("more", &["10.96.0.11"]));
    cluster.api.come_back();
    cluster.converges_within(Duration::from_secs(60), "with the second token");
}

fn a_server_without_streaming_lists_is_asked_for_pages() {
    let mut cluster = Cluster::without_agent();
    cluster.api.behave(|it| it.streaming_lists = StreamingLists::Refused);
    let name = |n: usize| format!("web-{n:04}");
    cluster.api.set_all(
        (0..1_200).map(|n| service(&name(n), &[&format!("10.96.{}.{}", 1 + n / 250, 1 + n % 250)])),
    );
    cluster.stage.agent.start();
    cluster.converges("1,200 Services");
    let lists = cluster.api.requests_to(Verb::List, Resource::Services);
    let shown =
        |it: &Request| (it.parameter("limit").to_owned(), it.query.contains_key("continue"));
    let pages: Vec<_> = lists.iter().map(shown).collect();
    let page = |is_next| ("500".to_owned(), is_next);
    assert_eq!(pages, [page(false), page(true), page(true)], "pages as client-go asks for");
    let follows = |it: &Request| {
        !it.query.contains_key("sendInitialEvents") && !it.parameter("resourceVersion").is_empty()
    };
    eventually("a watch follows the list", || {
        let watches = cluster.api.requests_to(Verb::Watch, Resource::Services);
        if watches.iter().any(follows) { Ok(()) } else { Err(format!("{watches:?}")) }
    });
}

fn a_server_that_ignores_streaming_lists_is_asked_for_pages() {
    let mut cluster = Cluster::without_agent();
    cluster.api.behave(|it| it.streaming_lists = StreamingLists::Ignored);
    cluster.api.set(service("web", &["10.96.0.10"]));
    cluster.stage.agent.start();
    // A silence must be waited for, as nothing else tells.
    cluster.converges_within(Duration::from_secs(60), "a list by other means");
}

fn what_is_not_served_becomes_an_event() {
    let cluster = Cluster::start();
    let mut sctp = service("signals", &["10.96.0.10"]);
    sctp["spec"]["ports"][0]["protocol"] = "SCTP".into();
    cluster.api.set(sctp);
    let event: Value = eventually("an Event about the Service", || {
        let events = cluster.api.objects(Resource::Events);
        events.first().cloned().ok_or_else(|| "there is none".to_owned())
    });
    assert_eq!(event["regarding"]["name"], "signals", "{event}");
    assert_eq!(event["regarding"]["kind"], "Service", "{event}");
    assert_eq!(event["type"], "Warning", "{event}");
    let note = event["note"].as_str().unwrap_or_default();
    assert!(note.contains("SCTP"), "{event}");
}
