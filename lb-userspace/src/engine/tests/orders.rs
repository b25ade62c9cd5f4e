//! The order of events must not show in the end.

use proptest::prelude::*;

use super::*;

/// Each manifest names another object; one by one, in every order.
fn permutations(items: &[String]) -> Vec<Vec<String>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (i, first) in items.iter().enumerate() {
        let mut rest = items.to_vec();
        rest.remove(i);
        for mut tail in permutations(&rest) {
            tail.insert(0, first.clone());
            all.push(tail);
        }
    }
    all
}

async fn every_order_ends_in(items: &[String], expected: &[&str]) {
    for order in permutations(items) {
        let rig = Rig::new();
        for yaml in &order {
            rig.apply(yaml).await;
        }
        assert_eq!(rig.dump(), expected, "in the order {order:#?}");
    }
}

#[tokio::test]
async fn services_and_pods_in_every_order() {
    let items = [
        service("web", "10.96.0.10", "app: web"),
        service("front", "10.96.0.11", "tier: front"),
        pod("a", "app: web", "10.0.0.1", true),
        pod("b", "app: web, tier: front", "10.0.0.2", true),
    ];
    let expected = [
        "front tcp/80 10.96.0.11 -> 10.0.0.2:8080",
        "web tcp/80 10.96.0.10 -> 10.0.0.1:8080 10.0.0.2:8080",
    ];
    every_order_ends_in(&items, &expected).await;
}

#[tokio::test]
async fn slices_endpoints_and_services_in_every_order() {
    let items = [
        service("db", "10.96.0.20", ""),
        slice("db-1", "db", "10.0.0.2"),
        endpoints("db", "10.0.0.1"),
        service("old", "10.96.0.21", ""),
        endpoints("old", "10.0.0.3"),
    ];
    let expected =
        ["db tcp/80 10.96.0.20 -> 10.0.0.2:8080", "old tcp/80 10.96.0.21 -> 10.0.0.3:8080"];
    every_order_ends_in(&items, &expected).await;
}

/// One step: an object written in one of several versions, or deleted.
#[derive(Clone, Debug)]
enum Step {
    Apply(String),
    Delete(Kind, String),
    /// The agent dies and another takes over.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let labels =
        || prop_oneof![Just("app: a"), Just("app: b"), Just("app: a, tier: x"), Just("tier: x")];
    let selector =
        || prop_oneof![Just("app: a"), Just("app: b"), Just("app: a, tier: x"), Just("")];
    let kind = prop_oneof![
        Just(Kind::Service),
        Just(Kind::Pod),
        Just(Kind::EndpointSlice),
        Just(Kind::Endpoints)
    ];
    prop_oneof![
        4 => (0u8..3, selector()).prop_map(|(n, selector)| {
            Step::Apply(service(&format!("s{n}"), &format!("10.96.0.{}", n + 31), selector))
        }),
        4 => (0u8..4, labels(), 1u8..6, any::<bool>()).prop_map(|(n, labels, ip, ready)| {
            Step::Apply(pod(&format!("s{n}"), labels, &format!("10.0.0.{ip}"), ready))
        }),
        2 => (0u8..3, 0u8..3, 1u8..6).prop_map(|(n, service, ip)| {
            Step::Apply(slice(&format!("s{n}"), &format!("s{service}"), &format!("10.0.1.{ip}")))
        }),
        1 => (0u8..3, 1u8..6)
            .prop_map(|(n, ip)| Step::Apply(endpoints(&format!("s{n}"), &format!("10.0.2.{ip}")))),
        4 => (kind, 0u8..4).prop_map(|(kind, n)| Step::Delete(kind, format!("s{n}"))),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// After any history, the kernel holds what it would hold if only the objects that are left had
    /// ever been seen.
    #[test]
    fn history_does_not_show(steps in proptest::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut rig = Rig::new();
            let mut left: BTreeMap<(Kind, String), String> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Apply(yaml) => {
                        let key = submitted(&yaml, "-")[0].object.clone();
                        let kind = Kind::parse(key["kind"].as_str().expect("a kind")).expect("ours");
                        let name = key["metadata"]["name"].as_str().expect("a name").to_owned();
                        let verdict = rig.apply(&yaml).await.remove(0);
                        prop_assert!(!verdict.starts_with("stdin"), "refused: {}", verdict);
                        left.insert((kind, name), yaml);
                    }
                    Step::Delete(kind, name) => {
                        rig.delete(kind, &name).await;
                        left.remove(&(kind, name));
                    }
                    Step::Crash => rig = rig.after_crash(),
                }
            }
            let fresh = Rig::new();
            fresh.apply(&left.values().cloned().collect::<String>()).await;
            prop_assert_eq!(rig.dump(), fresh.dump());
            prop_assert_eq!(rig.after_crash().dump(), fresh.dump());
            Ok(())
        })?;
    }
}
