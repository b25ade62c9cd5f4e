//! Objects, lists of them, and what clients may create.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, PostParams, VersionMatch};
use libtest_mimic::Trial;
use serde_json::json;

use super::{names, refusal, web, with_client};
use crate::apiserver::Resource;
use crate::apiserver::objects::{patched, service_cidr};
use crate::harness::cases;

pub(super) fn tests() -> Vec<Trial> {
    cases![
        objects_get_versions_and_keep_what_nobody_knows,
        a_list_in_pages_is_of_one_moment,
        a_token_of_a_forgotten_list_has_expired,
        lists_of_versions_are_exact_or_refused,
        a_server_without_service_cidrs_has_none,
        events_are_the_only_thing_that_can_be_created,
    ]
}

fn objects_get_versions_and_keep_what_nobody_knows() {
    with_client(async |server, client| {
        let services: Api<Service> = Api::default_namespaced(client);
        server.set(patched(web("a"), &json!({"spec": {"unheardOf": [1]}})));
        let first = services.get("a").await.expect("it exists");
        assert_eq!(first.resource_version().as_deref(), Some("1001"));
        assert!(first.uid().is_some() && first.creation_timestamp().is_some(), "{first:?}");
        let raw = server.get(Resource::Services, "default", "a").expect("it exists");
        assert_eq!(raw["spec"]["unheardOf"], json!([1]));

        server.set(patched(web("a"), &json!({"spec": {"unheardOf": [1]}})));
        assert_eq!(server.version(), 1001, "nothing has changed");
        server.set(web("a"));
        let second = services.get("a").await.expect("it exists");
        assert_eq!(second.resource_version().as_deref(), Some("1002"));
        assert_eq!(second.uid(), first.uid(), "it is the same");
        server.delete(Resource::Services, "default", "a");
        assert_eq!(refusal(services.get("a").await), (404, "NotFound".to_owned()));
        server.set(web("a"));
        let third = services.get("a").await.expect("it exists");
        assert_eq!(third.resource_version().as_deref(), Some("1004"));
        assert_ne!(third.uid(), first.uid(), "it is another one of that name");
    });
}

fn a_list_in_pages_is_of_one_moment() {
    with_client(async |server, client| {
        let services: Api<Service> = Api::default_namespaced(client.clone());
        server.set_all(["a", "b", "c", "d", "e"].map(web));
        let page = services.list(&ListParams::default().limit(2)).await.expect("a list");
        assert_eq!(names(&page.items), ["a", "b"]);
        assert_eq!(page.metadata.resource_version.as_deref(), Some("1005"));
        assert_eq!(page.metadata.remaining_item_count, Some(3));
        // What changes between two pages is not in the second.
        server.delete(Resource::Services, "default", "c");
        server.set(web("cc"));
        let token = page.metadata.continue_.expect("there is more");
        let rest = ListParams::default().limit(3).continue_token(&token);
        let rest = services.list(&rest).await.expect("the rest");
        assert_eq!(names(&rest.items), ["c", "d", "e"]);
        assert_eq!(rest.metadata.resource_version.as_deref(), Some("1005"));
        assert_eq!((rest.metadata.continue_, rest.metadata.remaining_item_count), (None, None));

        // The cache, which is asked for any version, knows no limits.
        let everywhere: Api<Service> = Api::all(client);
        let any = ListParams { limit: None, ..ListParams::default().match_any() };
        assert_eq!(everywhere.list(&any).await.expect("a list").items.len(), 5);
    });
}

fn a_token_of_a_forgotten_list_has_expired() {
    with_client(async |server, client| {
        let services: Api<Service> = Api::default_namespaced(client);
        server.set_all(["a", "b", "c"].map(web));
        let page = services.list(&ListParams::default().limit(1)).await.expect("a list");
        let token = page.metadata.continue_.expect("there is more");
        server.set(web("bb"));
        server.compact();
        let rest = services.list(&ListParams::default().continue_token(&token)).await;
        let Err(kube::Error::Api(status)) = rest else { panic!("it has expired") };
        assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    });
}

fn lists_of_versions_are_exact_or_refused() {
    with_client(async |server, client| {
        let services: Api<Service> = Api::default_namespaced(client);
        server.set_all(["a", "b"].map(web));
        let at = |version: &str, how| ListParams::default().at(version).matching(how);
        let exact = services.list(&at("1001", VersionMatch::Exact)).await.expect("it is known");
        assert_eq!(names(&exact.items), ["a"]);
        assert_eq!(exact.metadata.resource_version.as_deref(), Some("1001"));
        let newer = services.list(&at("1001", VersionMatch::NotOlderThan)).await.expect("a list");
        assert_eq!(names(&newer.items), ["a", "b"]);
        let future = services.list(&at("2000", VersionMatch::NotOlderThan)).await;
        assert_eq!(refusal(future), (504, "Timeout".to_owned()));
        server.compact();
        let lost = services.list(&at("1001", VersionMatch::Exact)).await;
        assert_eq!(refusal(lost), (410, "Expired".to_owned()));
    });
}

fn a_server_without_service_cidrs_has_none() {
    with_client(async |server, client| {
        let ranges: Api<ServiceCIDR> = Api::all(client);
        server.set(service_cidr("kubernetes", &["10.96.0.0/12"]));
        let all = ranges.list(&ListParams::default()).await.expect("a list");
        assert_eq!(names(&all.items), ["kubernetes"]);
        server.behave(|it| it.no_service_cidrs = true);
        let refused = ranges.list(&ListParams::default()).await;
        assert_eq!(refusal(refused), (404, "NotFound".to_owned()));
    });
}

fn events_are_the_only_thing_that_can_be_created() {
    with_client(async |server, client| {
        let event = |name: &str| -> Event {
            let event = json!({
                "metadata": {"name": name, "namespace": "default"},
                "eventTime": "2025-01-01T00:00:00.000000Z", "action": "Serve", "reason": "Refused",
                "reportingController": "lb", "reportingInstance": "node-1", "type": "Warning",
                "regarding": {"kind": "Service", "namespace": "default", "name": "web"},
                "note": "why",
            });
            serde_json::from_value(event).expect("an Event")
        };
        let events: Api<Event> = Api::default_namespaced(client.clone());
        let how = PostParams::default();
        events.create(&how, &event("web.1")).await.expect("it is created");
        let again = events.create(&how, &event("web.1")).await;
        assert_eq!(refusal(again), (409, "AlreadyExists".to_owned()));
        let wrong = Event { action: None, ..event("web.2") };
        assert_eq!(refusal(events.create(&how, &wrong).await), (422, "Invalid".to_owned()));
        assert_eq!(server.objects(Resource::Events).len(), 1);

        let services: Api<Service> = Api::default_namespaced(client);
        let web: Service = serde_json::from_value(web("a")).expect("a Service");
        let refused = services.create(&how, &web).await;
        assert_eq!(refusal(refused), (403, "Forbidden".to_owned()));
    });
}
