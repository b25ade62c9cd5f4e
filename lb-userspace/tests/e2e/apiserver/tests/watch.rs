//! Watches: what they send, and from where.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, WatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use super::{is_silent, names, next, refusal, watch, web, with_client};
use crate::apiserver::objects::{endpoint, node, patched, service, slice};
use crate::apiserver::{Expired, Resource, StreamingLists};
use crate::harness::cases;

pub(super) fn tests() -> Vec<Trial> {
    cases![
        a_watch_replays_and_follows,
        bookmarks_come_when_asked_for_and_in_time,
        a_forgotten_version_is_gone_both_ways,
        a_streaming_list_ends_with_its_bookmark,
        servers_without_streaming_lists_refuse_or_ignore_them,
        what_leaves_the_selection_is_deleted_for_its_watch,
    ]
}

fn a_watch_replays_and_follows() {
    with_client(async |server, client| {
        let services: Api<Service> = Api::default_namespaced(client);
        server.set_all(["a", "b"].map(web));
        server.set(slice("a", "x", &[]));
        let mut events = watch(&services, &WatchParams::default(), "1001").await;
        assert_eq!(next(&mut events).await, "ADDED b@1002");
        assert!(is_silent(&mut events).await, "slices are no Services");
        server.set(service("b", &["10.96.0.11"]));
        assert_eq!(next(&mut events).await, "MODIFIED b@1004");
        server.delete(Resource::Services, "default", "b");
        assert_eq!(next(&mut events).await, "DELETED b@1005", "with the deletion's version");
        // From any version: the state first.
        let mut events = watch(&services, &WatchParams::default(), "0").await;
        assert_eq!(next(&mut events).await, "ADDED a@1001");
        let mut ending = watch(&services, &WatchParams::default().timeout(1), "1005").await;
        assert_eq!(next(&mut ending).await, "end", "after the client's timeout");
    });
}

fn bookmarks_come_when_asked_for_and_in_time() {
    with_client(async |server, client| {
        let services: Api<Service> = Api::default_namespaced(client);
        let mut events = watch(&services, &WatchParams::default(), "1000").await;
        let without = WatchParams::default().disable_bookmarks();
        let mut quiet = watch(&services, &without, "1000").await;
        server.set(slice("a", "x", &[]));
        server.bookmark();
        assert_eq!(next(&mut events).await, "BOOKMARK 1001", "of changes elsewhere, too");
        server.behave(|it| it.bookmarks = Some(Duration::from_millis(50)));
        assert_eq!(next(&mut events).await, "BOOKMARK 1001");
        assert_eq!(next(&mut events).await, "BOOKMARK 1001");
        assert!(is_silent(&mut quiet).await, "it wants none");
    });
}

fn a_forgotten_version_is_gone_both_ways() {
    with_client(async |server, client| {
        let services: Api<Service> = Api::default_namespaced(client);
        server.set_all(["a", "b"].map(web));
        server.compact();
        let mut events = watch(&services, &WatchParams::default(), "1001").await;
        assert_eq!(next(&mut events).await, "ERROR 410 Expired");
        assert_eq!(next(&mut events).await, "end");
        server.behave(|it| it.expired = Expired::AtOnce);
        let refused = services.watch(&WatchParams::default(), "1001").await.map(drop);
        assert_eq!(refusal(refused), (410, "Expired".to_owned()));
        // Nothing was missed by who knows the latest.
        let mut events = watch(&services, &WatchParams::default(), "1002").await;
        server.set(web("c"));
        assert_eq!(next(&mut events).await, "ADDED c@1003");
    });
}

fn a_streaming_list_ends_with_its_bookmark() {
    with_client(async |server, client| {
        let services: Api<Service> = Api::default_namespaced(client);
        server.set_all(["a", "b"].map(web));
        let initial = WatchParams::default().initial_events();
        let mut events = watch(&services, &initial, "0").await;
        assert_eq!(next(&mut events).await, "ADDED a@1001");
        assert_eq!(next(&mut events).await, "ADDED b@1002");
        assert_eq!(next(&mut events).await, "BOOKMARK 1002 end");
        server.set(web("c"));
        assert_eq!(next(&mut events).await, "ADDED c@1003");
        let future = services.watch(&initial, "2000").await.map(drop);
        assert_eq!(refusal(future), (504, "Timeout".to_owned()));
    });
}

fn servers_without_streaming_lists_refuse_or_ignore_them() {
    with_client(async |server, client| {
        let services: Api<Service> = Api::default_namespaced(client);
        server.set(web("a"));
        let initial = WatchParams::default().initial_events();
        server.behave(|it| it.streaming_lists = StreamingLists::Refused);
        let refused = services.watch(&initial, "0").await.map(drop);
        let Err(kube::Error::Api(status)) = refused else { panic!("it is refused") };
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
        let words = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is \
            enabled";
        assert!(status.message.ends_with(words), "{}", status.message);
        server.behave(|it| it.streaming_lists = StreamingLists::Ignored);
        let mut events = watch(&services, &initial, "0").await;
        assert_eq!(next(&mut events).await, "ADDED a@1001");
        assert!(is_silent(&mut events).await, "no bookmark says that this was all");
    });
}

fn what_leaves_the_selection_is_deleted_for_its_watch() {
    with_client(async |server, client| {
        let slices: Api<EndpointSlice> = Api::all(client.clone());
        let headless =
            |labels| patched(slice("a", "x", &[]), &json!({"metadata": {"labels": labels}}));
        let wanted = "kubernetes.io/service-name,!service.kubernetes.io/headless,\
            endpointslice.kubernetes.io/managed-by notin (other,another),app in (a, b),app!=c";
        let parameters = WatchParams::default().labels(wanted);
        let mut events = watch(&slices, &parameters, "1000").await;
        server.set(headless(json!({"service.kubernetes.io/headless": ""})));
        assert!(is_silent(&mut events).await, "it is not selected");
        server.set(slice("a", "x", &[endpoint([10, 244, 1, 1], "pod", "node")]));
        assert_eq!(next(&mut events).await, "ADDED a-x@1002");
        server.set(headless(json!({"app": "c"})));
        assert_eq!(next(&mut events).await, "DELETED a-x@1003");
        server.delete(Resource::EndpointSlices, "default", "a-x");
        assert!(is_silent(&mut events).await, "it was gone already");

        server.set_all([node("n1", &["10.0.0.1"]), node("n2", &["10.0.0.2"])]);
        let nodes: Api<Node> = Api::all(client);
        let one = nodes.list(&ListParams::default().fields("metadata.name=n2")).await;
        assert_eq!(names(&one.expect("a list").items), ["n2"]);
        let unknown = nodes.list(&ListParams::default().fields("spec.podCIDR=x")).await;
        assert_eq!(refusal(unknown), (400, "BadRequest".to_owned()));
    });
}
