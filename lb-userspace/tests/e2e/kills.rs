//! The agent is killed again and again under load.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use aya::maps::{Array, Map, MapData};
use libtest_mimic::Trial;

use crate::harness::{Listen, Stage, cases, rounds, service};
use crate::probe::{Kind, Probe};

pub(crate) fn tests() -> Vec<Trial> {
    cases![kills_at_random_moments_fail_no_connection_and_change_no_id]
}

const SERVICES: usize = 6;

/// Of the entries of `BACKENDS` whose endpoints exist, the ids with all they hold.
fn backends(stage: &Stage) -> Vec<(u32, [u8; 32])> {
    let folder = std::fs::read_dir(&stage.agent.paths.bpffs).expect("the folder of pins");
    let maps = folder.flatten().find(|e| e.file_name().to_string_lossy().starts_with("maps-"));
    let pin = maps.expect("a folder of maps").path().join("BACKENDS");
    let data = MapData::from_pin(pin).expect("a pinned map");
    let array: Array<_, [u8; 32]> = Map::Array(data).try_into().expect("an array");
    let entries = (0..100).map(|id| (id, array.get(&id, 0).expect("below its size")));
    // The bit of `Life` that says so.
    entries.filter(|(_, entry)| entry[24] & 4 != 0).collect()
}

fn kills_at_random_moments_fail_no_connection_and_change_no_id() {
    let mut stage = Stage::start();
    let listen = [Listen::Tcp(80), Listen::Udp(53)];
    let mut objects: Vec<String> =
        (0..6).map(|n| stage.pod(&format!("pod-{n}"), "web", &listen).manifest()).collect();
    let names: Vec<String> = (0..SERVICES).map(|n| format!("web-{n}")).collect();
    let spec = "ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [
        {name: tcp, port: 80}, {name: udp, port: 53, protocol: UDP}]";
    objects.extend(names.iter().map(|name| service(name, spec)));
    stage.apply(&objects.iter().map(String::as_str).collect::<Vec<_>>());
    let vips: Vec<_> = names.iter().map(|name| stage.vips(name)).collect();
    let ids = backends(&stage);

    let target = |&vip: &std::net::IpAddr| {
        let (tcp, udp) = (SocketAddr::new(vip, 80), SocketAddr::new(vip, 53));
        [(Kind::tcp(tcp), tcp), (Kind::udp(udp), udp)]
    };
    let targets: Vec<_> = vips.iter().flatten().flat_map(target).collect();
    let probes: Vec<Probe> =
        (0..4).map(|n| if n % 2 == 0 { stage.probe() } else { stage.probe_among_pods() }).collect();
    probes.iter().for_each(|probe| probe.record_start(&targets));
    let (kills, started) = (rounds(8, 100), Instant::now());
    let mut random = fastrand::Rng::with_seed(11);
    stage.agent.kill_nine();
    for round in 0..kills {
        // Also in the middle of a start, which takes about a second.
        stage.agent.spawn();
        sleep(Duration::from_millis(random.u64(..1_500)));
        stage.agent.kill_nine();
        if round % 10 == 9 {
            stage.agent.start();
            assert_eq!(backends(&stage), ids, "backend ids after {round} kills");
            stage.agent.kill_nine();
        }
    }
    stage.agent.start();
    let lasted = started.elapsed();
    let records: Vec<_> = probes.iter().flat_map(Probe::record_stop).collect();
    let failed: Vec<_> = records.iter().filter(|record| record.outcome.is_err()).collect();
    let rate = records.len() as f64 / lasted.as_secs_f64();
    println!("{kills} kills in {lasted:?}, {} connections, {rate:.0} a second", records.len());
    assert!(records.len() > 100 * kills, "a load worth the name: {}", records.len());
    assert!(failed.is_empty(), "{} failed, among them {:#?}", failed.len(), failed.first());
    assert_eq!(backends(&stage), ids, "backend ids after {kills} kills");
    for (name, before) in names.iter().zip(&vips) {
        assert_eq!(stage.vips(name), *before, "ClusterIPs of {name}");
    }
}
