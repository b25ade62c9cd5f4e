//! Whatever happens between server and agent: traffic goes on, and in the end the maps follow.

use std::time::Duration;

use libtest_mimic::Trial;

use super::{assert_served, frontend};
use crate::apiserver::objects::{service, slice_of};
use crate::apiserver::{Answer, Expired, Mishap, Resource, StreamingLists, Streams, Verb};
use crate::harness::{Cluster, Listen, NODE, Pod, cases, eventually};
use crate::probe::Kind;

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        streams_that_are_cut_all_the_time_lose_nothing,
        a_server_that_was_away_is_followed_on_without_a_list,
        a_forgotten_history_is_made_up_for_by_a_list,
        a_list_that_expires_between_its_pages_begins_again,
        every_mishap_of_a_stream_is_overcome,
        a_stream_that_trickles_is_read,
        every_wrong_answer_is_asked_again,
        a_server_that_is_away_at_the_start_is_waited_for,
        an_agent_without_its_server_serves_on_after_a_restart,
    ]
}

/// The Service `web` at 10.96.0.10 with two pods.
fn cluster_with_web() -> (Cluster, [Pod; 2]) {
    let mut cluster = Cluster::start();
    let pods = ["pod-a", "pod-b"].map(|name| cluster.stage.pod(name, "web", &[Listen::Tcp(80)]));
    cluster.api.set_all([service("web", &["10.96.0.10"]), slice_of("web", NODE, &[&pods[0]])]);
    cluster.converges("the first pod");
    (cluster, pods)
}

/// How often the objects were listed, by whichever way.
fn lists(cluster: &Cluster, resource: Resource) -> usize {
    let lists = cluster.api.requests_to(Verb::List, resource);
    let firsts = lists.iter().filter(|it| !it.query.contains_key("continue")).count();
    let streams = cluster.api.requests_to(Verb::Watch, resource);
    firsts + streams.iter().filter(|it| it.query.contains_key("sendInitialEvents")).count()
}

fn streams_that_are_cut_all_the_time_lose_nothing() {
    let (cluster, [a, b]) = cluster_with_web();
    let before = lists(&cluster, Resource::EndpointSlices);
    let probe = cluster.stage.probe();
    probe.load_start(Kind::Tcp4, frontend(10));
    for clean in [true, false] {
        let after = Duration::from_millis(100);
        cluster.api.behave(|it| it.streams = Streams::Cut { after, clean });
        cluster.api.mishap(Resource::Services, Mishap::End);
        cluster.api.mishap(Resource::EndpointSlices, Mishap::End);
        for round in 0..30_u8 {
            let pods: &[&Pod] = match round % 3 {
                0 => &[&a, &b],
                1 => &[&b],
                _ => &[&a],
            };
            cluster.api.set(slice_of("web", NODE, pods));
            let name = format!("more-{round}");
            cluster.api.set(service(&name, &[&format!("10.96.1.{round}")]));
            std::thread::sleep(Duration::from_millis(50));
        }
        cluster.converges(&format!("clean: {clean}"));
    }
    for tally in probe.load_stop() {
        tally.assert_all_answered("while streams are cut");
    }
    let watches = cluster.api.requests_to(Verb::Watch, Resource::EndpointSlices);
    // An agent whose watches end at once pauses between them.
    assert!(watches.len() >= 6, "the streams were cut: {}", watches.len());
    assert_eq!(lists(&cluster, Resource::EndpointSlices), before, "nothing was listed again");
}

fn a_server_that_was_away_is_followed_on_without_a_list() {
    let (cluster, [a, b]) = cluster_with_web();
    let probe = cluster.stage.probe();
    let before = [Resource::Services, Resource::EndpointSlices].map(|it| lists(&cluster, it));
    cluster.api.leave();
    cluster.api.set_all([slice_of("web", NODE, &[&b]), service("more", &["10.96.0.11"])]);
    cluster.api.delete(Resource::Services, "default", "more");
    cluster.api.set_all([service("last", &["10.96.0.12"])]);
    eventually("`lb status` says that the server is away", || {
        let shown = cluster.stage.agent.lb(&["status"]).ok().stdout;
        if shown.to_lowercase().contains("refused") { Ok(()) } else { Err(shown) }
    });
    assert_served(&probe, frontend(10), &["pod-a"]);
    cluster.api.come_back();
    cluster.converges("what was missed");
    assert_served(&probe, frontend(10), &["pod-b"]);
    let after = [Resource::Services, Resource::EndpointSlices].map(|it| lists(&cluster, it));
    assert_eq!(after, before, "the history was enough");
    drop(a);
}

fn a_forgotten_history_is_made_up_for_by_a_list() {
    for expired in [Expired::InStream, Expired::AtOnce] {
        let (cluster, [_, b]) = cluster_with_web();
        cluster.api.behave(|it| it.expired = expired);
        cluster.api.set(service("old", &["10.96.0.11"]));
        cluster.converges("before");
        let before = lists(&cluster, Resource::Services);
        cluster.api.leave();
        cluster.api.delete(Resource::Services, "default", "old");
        cluster.api.set_all([slice_of("web", NODE, &[&b]), service("new", &["10.96.0.12"])]);
        cluster.api.compact();
        cluster.api.come_back();
        cluster.converges(&format!("410: {expired:?}"));
        assert_eq!(lists(&cluster, Resource::Services), before + 1, "one list: {expired:?}");
    }
}

fn a_list_that_expires_between_its_pages_begins_again() {
    let mut cluster = Cluster::without_agent();
    cluster.api.behave(|it| {
        it.streaming_lists = StreamingLists::Refused;
        it.delay = Duration::from_millis(300);
    });
    let name = |n: usize| format!("web-{n:04}");
    let address = |n: usize| format!("10.96.{}.{}", 1 + n / 250, 1 + n % 250);
    cluster.api.set_all((0..2_000).map(|n| service(&name(n), &[&address(n)])));
    cluster.stage.agent.spawn();
    let pages = || cluster.api.requests_to(Verb::List, Resource::Services);
    eventually("the second page is asked for", || match pages().len() {
        2.. => Ok(()),
        pages => Err(format!("{pages} pages")),
    });
    cluster.api.delete(Resource::Services, "default", &name(0));
    cluster.api.compact();
    cluster.api.behave(|it| it.delay = Duration::ZERO);
    cluster.converges_within(Duration::from_secs(60), "all but the first");
    assert!(pages().iter().any(|page| page.status == 410), "{:?}", pages());
}

fn every_mishap_of_a_stream_is_overcome() {
    let (cluster, pods) = cluster_with_web();
    let mishaps = [Mishap::End, Mishap::Break, Mishap::HalfLine, Mishap::Garbage, Mishap::Expired];
    for (round, mishap) in mishaps.into_iter().cycle().take(15).enumerate() {
        for resource in [Resource::Services, Resource::EndpointSlices, Resource::Nodes] {
            cluster.api.mishap(resource, mishap);
        }
        cluster.api.set(slice_of("web", NODE, &[&pods[round % 2]]));
        let number = u8::try_from(round).expect("few");
        cluster.api.set(service("more", &[&format!("10.96.1.{number}")]));
        cluster.converges_within(Duration::from_secs(60), &format!("round {round}: {mishap:?}"));
    }
}

fn a_stream_that_trickles_is_read() {
    let (cluster, [_, b]) = cluster_with_web();
    let pause = Duration::from_millis(5);
    cluster.api.behave(|it| it.streams = Streams::Trickling { bytes: 100, pause });
    cluster.api.set(slice_of("web", NODE, &[&b]));
    cluster.converges("in parts");
}

fn every_wrong_answer_is_asked_again() {
    let mut cluster = Cluster::without_agent();
    let wrong = [Answer::Internal, Answer::Unavailable, Answer::TooMany(1), Answer::Forbidden];
    for answer in wrong {
        for resource in [Resource::Services, Resource::EndpointSlices] {
            cluster.api.behave(|it| it.once(resource, answer));
        }
    }
    let pod = cluster.stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    cluster.api.set_all([service("web", &["10.96.0.10"]), slice_of("web", NODE, &[&pod])]);
    cluster.stage.agent.spawn();
    let probe = cluster.stage.probe();
    eventually("the agent answers", || {
        let output = cluster.stage.agent.lb(&["status"]);
        if output.code == Some(0) { Ok(()) } else { Err(output.to_string()) }
    });
    cluster.converges_within(Duration::from_secs(90), "after eight refusals");
    assert_served(&probe, frontend(10), &["pod-a"]);
    // At run time, too, what is known is served on.
    cluster.api.behave(|it| it.always(None, Answer::Internal));
    cluster.api.mishap(Resource::Services, Mishap::End);
    cluster.api.set(service("more", &["10.96.0.11"]));
    assert_served(&probe, frontend(10), &["pod-a"]);
    cluster.api.behave(|it| it.instead.clear());
    cluster.converges_within(Duration::from_secs(60), "well again");
}

fn a_server_that_is_away_at_the_start_is_waited_for() {
    let mut cluster = Cluster::without_agent();
    cluster.api.leave();
    cluster.stage.agent.start();
    cluster.api.set(service("web", &["10.96.0.10"]));
    cluster.api.come_back();
    cluster.converges_within(Duration::from_secs(60), "it has come");
}

/// Nothing is pruned before the server was heard.
fn an_agent_without_its_server_serves_on_after_a_restart() {
    let (mut cluster, [_, b]) = cluster_with_web();
    cluster.stage.agent.kill_nine();
    cluster.api.leave();
    cluster.stage.agent.start();
    let probe = cluster.stage.probe();
    assert_served(&probe, frontend(10), &["pod-a"]);
    cluster.api.set(slice_of("web", NODE, &[&b]));
    cluster.api.come_back();
    cluster.converges_within(Duration::from_secs(60), "it is back");
    assert_served(&probe, frontend(10), &["pod-b"]);
}
