//! Manifest files: who owns what, and what happens as files come, change and go.

use super::*;

#[tokio::test]
async fn a_file_brings_changes_and_takes_away() {
    let rig = Rig::new();
    let both = service("a", "10.96.0.31", "") + &service("b", "10.96.0.32", "");
    assert_eq!(rig.file("/m/x", &both).await, ["service/a created", "service/b created"]);
    assert_eq!(rig.file("/m/x", &both).await, ["service/a unchanged", "service/b unchanged"]);
    rig.file("/m/x", &service("b", "10.96.0.32", "")).await;
    assert_eq!(rig.dump(), ["b tcp/80 10.96.0.32 -> "]);
    rig.file("/m/x", "").await;
    assert_eq!(rig.dump(), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_deleted_while_a_document_is_unreadable() {
    let rig = Rig::new();
    let both = service("a", "10.96.0.31", "") + &service("b", "10.96.0.32", "");
    rig.file("/m/x", &both).await;
    let objects = submitted(&service("a", "10.96.0.31", ""), "/m/x");
    rig.engine.replace_file("/m/x".into(), objects.clone(), vec!["/m/x:5:1: bad".into()]).await;
    assert_eq!(rig.dump().len(), 2, "the bad document may be b");
    assert_eq!(rig.engine.status().await.refused[0].message, "/m/x:5:1: bad");
    rig.engine.replace_file("/m/x".into(), objects, Vec::new()).await;
    assert_eq!(rig.dump().len(), 1);
    assert_eq!(rig.engine.status().await.refused, []);
}

#[tokio::test]
async fn a_refused_change_leaves_the_old_version_running() {
    let rig = Rig::new();
    rig.file("/m/x", &service("a", "10.96.0.31", "")).await;
    let refused = rig.file("/m/x", &service("a", "10.96.0.32", "")).await;
    assert!(refused[0].contains("is invalid: spec.clusterIP"), "{refused:?}");
    assert_eq!(rig.dump(), ["a tcp/80 10.96.0.31 -> "]);
}

#[tokio::test]
async fn the_first_owner_stays_and_the_refusal_names_both_places() {
    let rig = Rig::new();
    rig.file("/m/x", &service("a", "", "")).await;
    let ip = rig.cluster_ip("a").await;
    let refused = rig.file("/m/y", &service("a", "", "")).await;
    assert_eq!(
        refused,
        [
            "/m/y:2: Service \"a\" in namespace \"default\": already defined by /m/x; remove it there first"
        ]
    );
    let refused = rig.apply(&service("a", "", "")).await;
    assert!(refused[0].ends_with("already defined by /m/x; remove it there first"), "{refused:?}");
    let refused = rig.delete(Kind::Service, "a").await;
    assert_eq!(refused, ["service/a is defined by /m/x; remove it there, or it would come back"]);
    rig.apply(&service("b", "", "")).await;
    let refused = rig.file("/m/z", &service("b", "", "")).await;
    assert!(refused[0].contains("already defined by lb apply"), "{refused:?}");
    assert_eq!(rig.cluster_ip("a").await, ip);
    assert_eq!(rig.engine.status().await.refused.len(), 2);
}

#[tokio::test]
async fn twice_in_one_file_the_first_counts() {
    let rig = Rig::new();
    let twice = service("a", "10.96.0.31", "app: a") + &service("a", "10.96.0.31", "app: b");
    let verdicts = rig.file("/m/x", &twice).await;
    assert_eq!(verdicts[0], "service/a created");
    assert!(verdicts[1].contains("defined twice in /m/x"), "{verdicts:?}");
    rig.file("/m/y", &service("other", "", "")).await;
    rig.file("/m/y", "").await;
    let selector = &rig.get(Kind::Service, "a").await.expect("it is there")["spec"]["selector"];
    assert_eq!(selector["app"], "a", "nothing that happens elsewhere makes the second one count");
}

#[tokio::test]
async fn a_renamed_file_keeps_its_cluster_ips_in_either_order() {
    let yaml = service("a", "", "") + &service("b", "", "");
    for new_first in [true, false] {
        let rig = Rig::new();
        rig.file("/m/old", &yaml).await;
        let before = (rig.cluster_ip("a").await, rig.cluster_ip("b").await);
        let (_, mut watched) = rig.engine.watch(Kind::Service).await;
        if new_first {
            let refused = rig.file("/m/new", &yaml).await;
            assert!(refused[0].contains("already defined by /m/old"), "{refused:?}");
            rig.file("/m/old", "").await;
        } else {
            rig.file("/m/old", "").await;
            rig.file("/m/new", &yaml).await;
        }
        let after = (rig.cluster_ip("a").await, rig.cluster_ip("b").await);
        assert_eq!(before, after, "new file first: {new_first}");
        assert_eq!(rig.engine.status().await.refused, []);
        assert_eq!(rig.dump().len(), 2);
        let deleted = std::iter::from_fn(|| watched.try_recv().ok())
            .any(|event| event.change == crate::api::types::WatchChange::Deleted);
        assert_eq!(deleted, !new_first, "seen first, the new file takes over without a gap");
        rig.file("/m/new", "").await;
        assert_eq!(rig.dump().len(), 0, "the new file owns them");
    }
}

#[tokio::test]
async fn an_address_that_was_taken_meanwhile_is_not_given_back() {
    let rig = Rig::new();
    rig.file("/m/x", &service("a", "", "")).await;
    let ip = rig.cluster_ip("a").await;
    rig.file("/m/x", "").await;
    assert_eq!(rig.apply(&service("thief", &ip, "")).await, ["service/thief created"]);
    assert_eq!(rig.file("/m/x", &service("a", "", "")).await, ["service/a created"]);
    assert_ne!(rig.cluster_ip("a").await, ip);
}

#[tokio::test]
async fn who_waits_for_an_object_gets_it_when_it_is_deleted() {
    let rig = Rig::new();
    rig.apply(&service("a", "10.96.0.31", "app: applied")).await;
    rig.file("/m/x", &service("a", "10.96.0.31", "app: file")).await;
    assert_eq!(rig.delete(Kind::Service, "a").await, ["service/a deleted"]);
    let selector = &rig.get(Kind::Service, "a").await.expect("the file's")["spec"]["selector"];
    assert_eq!(selector["app"], "file");
    assert_eq!(rig.engine.status().await.refused, []);
}

#[tokio::test]
async fn who_waits_for_an_address_gets_it_when_it_is_free() {
    let rig = Rig::new();
    rig.file("/m/x", &service("a", "10.96.0.31", "")).await;
    let refused = rig.file("/m/y", &service("b", "10.96.0.31", "")).await;
    assert!(refused[0].contains("already allocated"), "{refused:?}");
    rig.file("/m/x", "").await;
    assert_eq!(rig.dump(), ["b tcp/80 10.96.0.31 -> "]);
    assert_eq!(rig.engine.status().await.refused, []);
}

#[tokio::test]
async fn an_address_moves_between_services_of_one_file_in_one_change() {
    let rig = Rig::new();
    rig.file("/m/x", &service("a", "10.96.0.31", "")).await;
    assert_eq!(rig.file("/m/x", &service("b", "10.96.0.31", "")).await, ["service/b created"]);
    assert_eq!(rig.dump(), ["b tcp/80 10.96.0.31 -> "]);
}

#[tokio::test]
async fn nothing_is_pruned_before_every_source_has_synced() {
    let rig = Rig::with_sources(2);
    rig.file("/m/gone", &service("gone", "10.96.0.31", "")).await;
    rig.file("/m/kept", &service("kept", "10.96.0.32", "")).await;
    rig.apply(&service("applied", "10.96.0.33", "")).await;
    rig.engine.stop().await;

    let table = Table::default();
    let engine = start(rig.folder.path(), 2, &table).expect("stop() left the folder free");
    assert_eq!(dump(&table).len(), 3, "all of them run at once");
    let file = submitted(&service("kept", "10.96.0.32", ""), "/m/kept");
    engine.replace_file("/m/kept".into(), file, Vec::new()).await;
    engine.source(manifests(true)).await;
    engine.source(manifests(true)).await;
    let pruned = || table.0.lock().expect("no test panics with it").pruned;
    assert_eq!((pruned(), dump(&table).len()), (0, 3), "one source is still to come");
    engine.source(SourceStatus { path: Some("/n".into()), ..manifests(true) }).await;
    assert_eq!(pruned(), 1);
    assert_eq!(dump(&table), ["applied tcp/80 10.96.0.33 -> ", "kept tcp/80 10.96.0.32 -> "]);
}

#[tokio::test]
async fn a_file_renamed_while_the_agent_was_down_keeps_its_cluster_ips() {
    let rig = Rig::new();
    rig.file("/m/old", &service("a", "", "")).await;
    let ip = rig.cluster_ip("a").await;
    rig.engine.stop().await;
    let table = Table::default();
    let engine = start(rig.folder.path(), 1, &table).expect("stop() left the folder free");
    let rig = Rig { engine, table, folder: rig.folder };
    rig.file("/m/new", &service("a", "", "")).await;
    rig.synced().await;
    assert_eq!(rig.cluster_ip("a").await, ip);
    assert_eq!(rig.engine.status().await.refused, []);
}

#[tokio::test]
async fn without_sources_everything_is_pruned_at_once() {
    assert_eq!(Rig::new().held().pruned, 1);
}
