//! What is wrong with the server when it is told so, and what it notes.

use std::pin::pin;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, WatchParams};
use libtest_mimic::Trial;

use super::{client, is_silent, names, next, refusal, watch, web, with_client};
use crate::apiserver::objects::service;
use crate::apiserver::{Answer, Mishap, Resource, Streams, Verb};
use crate::harness::cases;

pub(super) fn tests() -> Vec<Trial> {
    cases![
        watches_end_break_stall_and_trickle,
        mishaps_happen_to_open_watches,
        a_server_that_was_away_has_the_same_state,
        a_rotated_token_is_refused,
        wrong_answers_are_given_as_often_as_told,
        every_request_is_noted,
    ]
}

fn watches_end_break_stall_and_trickle() {
    with_client(async |server, client| {
        let services: Api<Service> = Api::default_namespaced(client);
        let after = Duration::from_millis(50);
        for clean in [true, false] {
            server.behave(|it| it.streams = Streams::Cut { after, clean });
            let mut events = watch(&services, &WatchParams::default(), "1000").await;
            assert_eq!(next(&mut events).await, "end");
            services.list(&ListParams::default()).await.expect("a list");
            let requests = server.requests();
            let [.., watch, list] = &requests[..] else { panic!("two requests") };
            assert_eq!(watch.connection == list.connection, clean, "broken unless clean");
        }
        server.behave(|it| it.streams = Streams::Stalled);
        let mut events = watch(&services, &WatchParams::default().timeout(1), "1000").await;
        server.set(web("a"));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(is_silent(&mut events).await, "nothing comes, not even the end");
        let pause = Duration::from_millis(1);
        server.behave(|it| it.streams = Streams::Trickling { bytes: 7, pause });
        let mut events = watch(&services, &WatchParams::default(), "1000").await;
        assert_eq!(next(&mut events).await, "ADDED a@1001", "in more than a hundred parts");
    });
}

fn mishaps_happen_to_open_watches() {
    with_client(async |server, client| {
        let services: Api<Service> = Api::default_namespaced(client.clone());
        let slices: Api<EndpointSlice> = Api::all(client);
        let mut others = watch(&slices, &WatchParams::default(), "1000").await;
        let cases = [
            (Mishap::End, "end"),
            (Mishap::Break, "end"),
            (Mishap::HalfLine, "end"),
            (Mishap::Garbage, "error: "),
            (Mishap::Expired, "ERROR 410 Expired"),
        ];
        for (number, (mishap, seen)) in (0..).zip(cases) {
            let version = server.version().to_string();
            let mut events = watch(&services, &WatchParams::default(), &version).await;
            server.mishap(Resource::Services, mishap);
            server.set(service("a", &[&format!("10.96.0.{number}")]));
            let next = next(&mut events).await;
            assert!(next.starts_with(seen), "{mishap:?}: {next}");
        }
        assert!(is_silent(&mut others).await, "those of other resources go on");
    });
}

fn a_server_that_was_away_has_the_same_state() {
    with_client(async |server, client| {
        let services: Api<Service> = Api::default_namespaced(client);
        server.set(web("a"));
        let mut events = watch(&services, &WatchParams::default(), "1001").await;
        server.leave();
        assert_eq!(next(&mut events).await, "end");
        let refused = services.get("a").await;
        assert!(!matches!(refused, Ok(_) | Err(kube::Error::Api(_))), "{refused:?}");
        server.set(web("b"));
        server.come_back();
        let mut events = watch(&services, &WatchParams::default(), "1001").await;
        assert_eq!(next(&mut events).await, "ADDED b@1002");
    });
}

fn a_rotated_token_is_refused() {
    with_client(async |server, old| {
        let services = |client| Api::<Service>::default_namespaced(client);
        let mut events = watch(&services(old.clone()), &WatchParams::default(), "1000").await;
        server.rotate_token();
        let refused = services(old).list(&ListParams::default()).await;
        assert_eq!(refusal(refused), (401, "Unauthorized".to_owned()));
        server.set(web("a"));
        assert_eq!(next(&mut events).await, "ADDED a@1001", "what has begun goes on");
        let new = client(&server).await;
        let list = services(new).list(&ListParams::default()).await.expect("a good token");
        assert_eq!(names(&list.items), ["a"]);
    });
}

fn wrong_answers_are_given_as_often_as_told() {
    with_client(async |server, client| {
        let services: Api<Service> = Api::default_namespaced(client.clone());
        let slices: Api<EndpointSlice> = Api::all(client);
        let all = ListParams::default();
        let cases = [
            (Answer::Forbidden, (403, "Forbidden")),
            (Answer::TooMany(3), (429, "TooManyRequests")),
            (Answer::Internal, (500, "InternalError")),
            (Answer::Unavailable, (503, "ServiceUnavailable")),
        ];
        for (answer, (code, reason)) in cases {
            server.behave(|it| it.once(Resource::Services, answer));
            slices.list(&all).await.expect("another resource");
            assert_eq!(refusal(services.list(&all).await), (code, reason.to_owned()));
            services.list(&all).await.expect("once only");
        }
        server.behave(|it| it.always(None, Answer::Nothing));
        let answer = pin!(slices.list(&all));
        let patience = Duration::from_millis(300);
        assert!(tokio::time::timeout(patience, answer).await.is_err(), "no answer");
    });
}

fn every_request_is_noted() {
    with_client(async |server, client| {
        let slices: Api<EndpointSlice> = Api::all(client);
        let some = ListParams::default().labels("a in (b,c)").limit(7);
        slices.list(&some).await.expect("a list");
        drop(watch(&slices, &WatchParams::default(), "1000").await);
        let lists = server.requests_to(Verb::List, Resource::EndpointSlices);
        let [list] = &lists[..] else { panic!("one list: {lists:?}") };
        assert_eq!(list.path, "/apis/discovery.k8s.io/v1/endpointslices");
        assert_eq!((list.method.as_str(), list.status), ("GET", 200));
        assert_eq!((list.parameter("labelSelector"), list.parameter("limit")), ("a in (b,c)", "7"));
        assert_eq!(list.user_agent, "test/1");
        let watches = server.requests_to(Verb::Watch, Resource::EndpointSlices);
        assert_eq!(watches[0].parameter("resourceVersion"), "1000");
        assert_eq!(server.requests().len(), 2, "nothing else");
    });
}
