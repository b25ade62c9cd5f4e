//! What survives.

use super::*;

#[tokio::test]
async fn what_was_applied_survives_a_crash_with_its_cluster_ip() {
    let rig = Rig::new();
    rig.apply(&(service("web", "", "app: web") + &pod("a", "app: web", "10.0.0.1", true))).await;
    let (ip, dump) = (rig.cluster_ip("web").await, rig.dump());
    let whole = rig.get(Kind::Service, "web").await;
    let next = rig.after_crash();
    assert_eq!((next.cluster_ip("web").await, next.dump()), (ip.clone(), dump.clone()));
    assert_eq!(next.get(Kind::Service, "web").await, whole, "uid, age and version too");
    assert_eq!(next.held().applied, 1, "handed over in one step");
    let again = service("web", "", "app: web");
    assert_eq!(next.apply(&again).await, ["service/web unchanged"]);
    let refused = next.apply(&service("other", &ip, "")).await;
    assert!(refused[0].contains("already allocated"), "the address is still taken: {refused:?}");
    next.delete(Kind::Service, "web").await;
    assert_eq!(next.after_crash().dump(), Vec::<String>::new());
}

#[tokio::test]
async fn an_allocation_of_a_file_survives_a_crash_and_the_rest_comes_back_with_the_file() {
    let rig = Rig::with_sources(1);
    rig.file("/m/web", &service("web", "", "app: web")).await;
    rig.file("/m/pod", &pod("a", "app: web", "10.0.0.1", true)).await;
    let ip = rig.cluster_ip("web").await;
    let next = rig.after_crash();
    assert_eq!(next.dump(), Vec::<String>::new(), "no source holds the files any more");

    let table = Table::default();
    let folder = TempDir::new().expect("a folder");
    std::fs::copy(rig.folder.path().join("lb.redb"), folder.path().join("lb.redb"))
        .expect("a copy");
    let engine = start(folder.path(), 1, &table).expect("an engine");
    let next = Rig { engine, table, folder };
    next.file("/m/web", &service("web", "", "app: web")).await;
    next.file("/m/pod", &pod("a", "app: web", "10.0.0.1", true)).await;
    next.synced().await;
    assert_eq!(next.cluster_ip("web").await, ip);
    assert_eq!(next.dump(), rig.dump());
}

#[tokio::test]
async fn stop_makes_everything_durable() {
    let rig = Rig::with_sources(1);
    rig.apply(&service("web", "10.96.0.10", "app: web")).await;
    rig.file("/m/pod", &pod("a", "app: web", "10.0.0.1", true)).await;
    rig.engine.stop().await;
    let table = Table::default();
    let _engine = start(rig.folder.path(), 1, &table).expect("stop() left the folder free");
    assert_eq!(dump(&table), rig.dump());
}

#[tokio::test]
async fn a_second_agent_is_told_that_the_folder_is_in_use() {
    let rig = Rig::new();
    let error = start(rig.folder.path(), 0, &Table::default()).expect_err("it is in use");
    let message = format!("{error:#}");
    assert!(
        message.contains("lb.redb") && message.contains("another agent uses this --state-dir"),
        "{message}"
    );
    rig.apply(&service("web", "", "")).await;
    assert_eq!(rig.dump().len(), 1, "the first one is not harmed");
}

#[tokio::test]
async fn resource_versions_grow_over_restarts() {
    let rig = Rig::new();
    rig.apply(&service("a", "", "")).await;
    rig.apply(&service("b", "", "")).await;
    rig.delete(Kind::Service, "b").await;
    let next = rig.after_crash();
    next.apply(&service("c", "", "")).await;
    let version = |object: Option<Arc<Value>>| -> u64 {
        let object = object.expect("it is there");
        object["metadata"]["resourceVersion"]
            .as_str()
            .expect("a version")
            .parse()
            .expect("a number")
    };
    assert_eq!(version(next.get(Kind::Service, "a").await), 1);
    assert!(version(next.get(Kind::Service, "c").await) > 2);
}
