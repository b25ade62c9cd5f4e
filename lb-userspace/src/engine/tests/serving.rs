//! From manifests to plans, one step at a time.

use super::*;

#[tokio::test]
async fn a_service_finds_ready_pods_by_selector_and_follows_them() {
    let rig = Rig::new();
    assert_eq!(rig.apply(&service("web", "10.96.0.10", "app: web")).await, ["service/web created"]);
    assert_eq!(rig.dump(), ["web tcp/80 10.96.0.10 -> "], "no endpoints: it refuses");

    rig.apply(&pod("a", "app: web", "10.0.0.1", true)).await;
    rig.apply(&pod("b", "app: web, tier: front", "10.0.0.2", false)).await;
    rig.apply(&pod("c", "app: other", "10.0.0.3", true)).await;
    assert_eq!(rig.dump(), ["web tcp/80 10.96.0.10 -> 10.0.0.1:8080 (10.0.0.2:8080)"]);

    rig.apply(&pod("b", "app: web", "10.0.0.2", true)).await;
    rig.apply(&pod("c", "app: web", "10.0.0.3", true)).await;
    rig.apply(&pod("a", "app: gone", "10.0.0.1", true)).await;
    assert_eq!(rig.dump(), ["web tcp/80 10.96.0.10 -> 10.0.0.2:8080 10.0.0.3:8080"]);

    rig.apply(&pod("b", "app: web", "10.0.0.22", true)).await;
    assert_eq!(rig.delete(Kind::Pod, "c").await, ["pod/c deleted"]);
    assert_eq!(rig.dump(), ["web tcp/80 10.96.0.10 -> 10.0.0.22:8080"]);

    assert_eq!(rig.delete(Kind::Service, "web").await, ["service/web deleted"]);
    assert_eq!(rig.dump(), Vec::<String>::new());
    assert_eq!(rig.delete(Kind::Service, "web").await, ["service/web not found"]);
}

#[tokio::test]
async fn a_change_of_ports_or_selector_leaves_nothing_behind() {
    let rig = Rig::new();
    rig.apply(&pod("a", "app: a", "10.0.0.1", true)).await;
    rig.apply(&pod("b", "app: b", "10.0.0.2", true)).await;
    rig.apply(&service("web", "10.96.0.10", "app: a")).await;
    let other = service("web", "10.96.0.10", "app: b").replace("port: 80,", "port: 81,");
    assert_eq!(rig.apply(&other).await, ["service/web configured"]);
    assert_eq!(rig.dump(), ["web tcp/81 10.96.0.10 -> 10.0.0.2:8080"]);
    let headless = other.replace("clusterIP: 10.96.0.10", "clusterIP: None");
    rig.delete(Kind::Service, "web").await;
    rig.apply(&headless).await;
    assert_eq!(rig.dump(), Vec::<String>::new(), "a headless Service has no frontend");
}

#[tokio::test]
async fn without_selector_slices_count_and_endpoints_only_where_no_slice_is() {
    let rig = Rig::new();
    rig.apply(&service("db", "10.96.0.20", "")).await;
    rig.apply(&endpoints("db", "10.0.0.1")).await;
    assert_eq!(rig.dump(), ["db tcp/80 10.96.0.20 -> 10.0.0.1:8080"]);
    rig.apply(&slice("db-1", "db", "10.0.0.2")).await;
    rig.apply(&slice("db-2", "db", "10.0.0.3")).await;
    assert_eq!(rig.dump(), ["db tcp/80 10.96.0.20 -> 10.0.0.2:8080 10.0.0.3:8080"]);
    rig.apply(&slice("db-1", "elsewhere", "10.0.0.2")).await;
    assert_eq!(rig.dump(), ["db tcp/80 10.96.0.20 -> 10.0.0.3:8080"]);
    rig.delete(Kind::EndpointSlice, "db-2").await;
    assert_eq!(rig.dump(), ["db tcp/80 10.96.0.20 -> 10.0.0.1:8080"]);
}

#[tokio::test]
async fn one_change_reaches_one_service() {
    let rig = Rig::new();
    for i in 1..20 {
        rig.apply(&service(&format!("s{i}"), &format!("10.96.0.1{i:02}"), &format!("app: a{i}")))
            .await;
    }
    let before = rig.held().applied;
    rig.apply(&pod("p", "app: a3, unrelated: label", "10.0.0.1", true)).await;
    assert_eq!(rig.held().applied - before, 1);
    rig.apply(&pod("q", "app: nobody", "10.0.0.2", true)).await;
    rig.apply(&pod("p", "app: a3, unrelated: label", "10.0.0.1", true)).await;
    assert_eq!(rig.held().applied - before, 1, "nothing to do is nothing done");
}

#[tokio::test]
async fn named_target_ports_may_differ_between_pods() {
    let rig = Rig::new();
    let named = service("web", "10.96.0.10", "app: web").replace("8080", "http");
    let with_port = |name: &str, ip: &str, port: &str| {
        let ports = format!("image: i, ports: [{{name: http, containerPort: {port}}}]");
        pod(name, "app: web", ip, true).replace("image: i", &ports)
    };
    rig.apply(&named).await;
    rig.apply(&with_port("a", "10.0.0.1", "8001")).await;
    rig.apply(&with_port("b", "10.0.0.2", "8002")).await;
    rig.apply(&pod("without", "app: web", "10.0.0.3", true)).await;
    assert_eq!(rig.dump(), ["web tcp/80 10.96.0.10 -> 10.0.0.1:8001 10.0.0.2:8002"]);
    let slices = rig.engine.list(Kind::EndpointSlice, None, None).await;
    assert_eq!(slices.len(), 3, "one for each set of ports: {slices:#?}");
}

#[tokio::test]
async fn terminating_pods_serve_only_while_nothing_is_ready() {
    let rig = Rig::new();
    let leaving = pod("a", "app: web", "10.0.0.1", true)
        .replace("{name: a,", "{name: a, deletionTimestamp: \"2026-01-01T00:00:00Z\",");
    rig.apply(&service("web", "10.96.0.10", "app: web")).await;
    rig.apply(&leaving).await;
    assert_eq!(rig.dump(), ["web tcp/80 10.96.0.10 -> 10.0.0.1:8080"]);
    rig.apply(&pod("b", "app: web", "10.0.0.2", true)).await;
    assert_eq!(rig.dump(), ["web tcp/80 10.96.0.10 -> (10.0.0.1:8080) 10.0.0.2:8080"]);
    let done =
        pod("b", "app: web", "10.0.0.2", true).replace("status: {", "status: {phase: Failed, ");
    rig.apply(&done).await;
    assert_eq!(
        rig.dump(),
        ["web tcp/80 10.96.0.10 -> 10.0.0.1:8080"],
        "a finished pod is no endpoint"
    );
}

#[tokio::test]
async fn not_ready_addresses_are_published_on_demand() {
    let rig = Rig::new();
    let web = service("web", "10.96.0.10", "app: web")
        .replace("spec: {", "spec: {publishNotReadyAddresses: true, ");
    rig.apply(&web).await;
    rig.apply(&pod("a", "app: web", "10.0.0.1", false)).await;
    assert_eq!(rig.dump(), ["web tcp/80 10.96.0.10 -> 10.0.0.1:8080"]);
}

#[tokio::test]
async fn the_zone_of_nodes_narrows_traffic_where_the_service_asks_for_it() {
    let rig = Rig::new();
    let node = |name: &str, zone: &str| {
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{topology.kubernetes.io/zone: {zone}}}}}\n"
        )
    };
    let on =
        |node: &str, pod: String| pod.replace("spec: {", &format!("spec: {{nodeName: {node}, "));
    rig.apply(&on("us", pod("a", "app: web", "10.0.0.1", true))).await;
    rig.apply(&on("them", pod("b", "app: web", "10.0.0.2", true))).await;
    let web = service("web", "10.96.0.10", "app: web")
        .replace("spec: {", "spec: {trafficDistribution: PreferSameZone, ");
    rig.apply(&web).await;
    assert_eq!(rig.dump(), ["web tcp/80 10.96.0.10 -> 10.0.0.1:8080 10.0.0.2:8080"]);
    rig.apply(&(node("us", "a") + &node("them", "b"))).await;
    assert_eq!(rig.dump(), ["web tcp/80 10.96.0.10 -> 10.0.0.1:8080 (10.0.0.2:8080)"]);
    rig.apply(&node("them", "a")).await;
    assert_eq!(rig.dump(), ["web tcp/80 10.96.0.10 -> 10.0.0.1:8080 10.0.0.2:8080"]);
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_leaves_no_trace() {
    let rig = Rig::new();
    let yaml = service("web", "10.96.0.10", "app: web");
    let dry = rig.engine.apply(submitted(&yaml, "-"), true).await;
    assert_eq!(verdicts(dry), ["service/web created"]);
    assert_eq!(rig.dump(), Vec::<String>::new());
    let other = service("other", "10.96.0.10", "app: web");
    assert_eq!(rig.apply(&other).await, ["service/other created"], "the address was given back");
    let key = Key::new(Kind::Service, "default", "other");
    let dry = rig.engine.delete(vec![key.clone()], true).await;
    assert_eq!(verdicts(dry), ["service/other deleted"]);
    assert_eq!(rig.dump().len(), 1);
}

#[tokio::test]
async fn a_bad_object_is_refused_alone() {
    let rig = Rig::new();
    let yaml = service("good", "10.96.0.10", "")
        + &service("taken", "10.96.0.10", "")
        + &service("outside", "192.0.2.1", "")
        + &service("fine", "10.96.0.11", "");
    let verdicts = rig.apply(&yaml).await;
    assert_eq!(verdicts[0], "service/good created");
    assert!(verdicts[1].contains("provided IP is already allocated"), "{}", verdicts[1]);
    assert!(verdicts[1].starts_with("stdin:"), "with its place: {}", verdicts[1]);
    assert!(verdicts[2].contains("spec.clusterIP"), "{}", verdicts[2]);
    assert_eq!(verdicts[3], "service/fine created");
    assert_eq!(rig.dump().len(), 2);
}

#[tokio::test]
async fn what_does_not_fit_is_named_and_served_as_soon_as_it_fits() {
    let rig = Rig::new();
    // A port and an address.
    rig.held().capacity = Some(2);
    rig.apply(&service("one", "10.96.0.31", "")).await;
    let outcomes = rig.engine.apply(submitted(&service("two", "10.96.0.32", ""), "-"), false).await;
    assert_eq!(outcomes[0].result, Verdict::Created, "it is stored");
    assert_eq!(outcomes[0].warnings, ["SERVICES is full; --max-services"]);
    let refused = rig.engine.status().await.refused;
    assert_eq!((refused.len(), refused[0].object.as_str()), (1, "service/two"));
    rig.delete(Kind::Service, "one").await;
    assert_eq!(rig.dump(), ["two tcp/80 10.96.0.32 -> "]);
    assert_eq!(rig.engine.status().await.refused, []);
}

#[tokio::test]
async fn watchers_see_every_change_from_their_list_on() {
    let rig = Rig::new();
    rig.apply(&service("old", "", "")).await;
    let (list, mut services) = rig.engine.watch(Kind::Service).await;
    let (slices, mut derived) = rig.engine.watch(Kind::EndpointSlice).await;
    assert_eq!((list.len(), slices.len()), (1, 0));
    rig.apply(&service("web", "10.96.0.10", "app: web")).await;
    rig.apply(&service("web", "10.96.0.10", "app: web")).await;
    rig.apply(&service("web", "10.96.0.10", "app: other")).await;
    rig.delete(Kind::Service, "web").await;
    let mut seen = Vec::new();
    while let Ok(event) = services.try_recv() {
        seen.push(format!("{:?} {}", event.change, event.object["metadata"]["resourceVersion"]));
    }
    assert_eq!(seen, ["Added \"2\"", "Modified \"3\"", "Deleted \"3\""]);

    rig.apply(&service("web", "10.96.0.10", "app: web")).await;
    rig.apply(&pod("a", "app: web", "10.0.0.1", true)).await;
    rig.apply(&pod("b", "app: web", "10.0.0.2", true)).await;
    rig.delete(Kind::Pod, "b").await;
    rig.delete(Kind::Pod, "a").await;
    let mut seen = Vec::new();
    while let Ok(event) = derived.try_recv() {
        let endpoints = event.object["endpoints"].as_array().map_or(0, Vec::len);
        seen.push(format!("{:?} {endpoints}", event.change));
    }
    assert_eq!(seen, ["Added 1", "Modified 2", "Modified 1", "Deleted 1"]);
}

#[tokio::test]
async fn lists_are_sorted_and_filtered() {
    let rig = Rig::new();
    let elsewhere = service("b", "", "").replace("{name: b}", "{name: b, namespace: other}");
    rig.apply(&(elsewhere + &service("b", "", "") + &service("a", "", ""))).await;
    let names = |list: Vec<Arc<Value>>| -> Vec<String> {
        list.iter()
            .map(|o| {
                format!("{}/{}", o["metadata"]["namespace"], o["metadata"]["name"]).replace('"', "")
            })
            .collect()
    };
    let engine = &rig.engine;
    assert_eq!(
        names(engine.list(Kind::Service, None, None).await),
        ["default/a", "default/b", "other/b"]
    );
    assert_eq!(names(engine.list(Kind::Service, Some("other"), None).await), ["other/b"]);
    assert_eq!(names(engine.list(Kind::Service, Some("default"), Some("b")).await), ["default/b"]);
    assert_eq!(engine.status().await.objects.services, 3);
}

#[tokio::test]
async fn after_stop_everything_is_refused_and_nothing_hangs() {
    let rig = Rig::new();
    rig.engine.stop().await;
    let refused = rig.apply(&service("web", "", "")).await;
    assert_eq!(refused, ["the agent is stopping; nothing was changed"]);
    assert!(rig.engine.list(Kind::Service, None, None).await.is_empty());
    rig.engine.stop().await;
}
