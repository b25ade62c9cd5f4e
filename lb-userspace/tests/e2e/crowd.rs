//! Far more sockets than `ORIGIN` has slots: most are remembered in their own storage.

use libtest_mimic::Trial;

use crate::harness::{Listen, Stage, cases, eventually, rounds, service};
use crate::probe::{Held, Kind, Probe};

pub(crate) fn tests() -> Vec<Trial> {
    cases![sockets_beyond_the_slots_are_remembered_and_forgotten_all_the_same]
}

const SLOTS: u64 = 1_024;
/// Below the usual limit of open files of one process.
const EACH: u32 = 2_500;

fn sockets_beyond_the_slots_are_remembered_and_forgotten_all_the_same() {
    let mut stage = Stage::without_agent();
    stage.agent.set_options(&["--map-size", &format!("ORIGIN={SLOTS}")]);
    stage.agent.start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80), Listen::Udp(53)]);
    let spec = "selector: {app: web}, ports: [
        {name: tcp, port: 80}, {name: udp, port: 53, protocol: UDP}]";
    stage.apply(&[&pod.manifest(), &service("web", spec)]);
    let (tcp, udp) = (stage.frontend("web", 80), stage.frontend("web", 53));
    let before = stage.agent.status();
    let memory = stage.agent.anonymous_memory();

    let probe = stage.probe();
    let bursts = u32::try_from(rounds(6, 24)).expect("few");
    for _ in 0..bursts {
        probe.burst(Kind::Tcp4, tcp, 500).assert_all_answered("sockets opened and closed");
        probe.burst(Kind::Udp4, udp, 500).assert_all_answered("sockets opened and closed");
    }
    assert_empty(&stage, "after sockets were opened and closed");

    let holders: Vec<Probe> = (0..rounds(2, 4)).map(|_| stage.probe()).collect();
    for (n, holder) in holders.iter().enumerate() {
        // TCP connections cost the echo server a thread each.
        holder.hold(Kind::Udp4, udp, EACH - 100);
        holder.hold(Kind::Tcp4, tcp, 100);
        let expected = Held { right: EACH as usize, wrong: 0 };
        assert_eq!(holder.hold_look(), expected, "getpeername of holder {n}");
    }
    let used = stage.agent.status().used("ORIGIN");
    assert!(used > SLOTS * 9 / 10, "nearly every slot is taken, {used} of {SLOTS}");
    for holder in &holders {
        assert_eq!(holder.hold_look().wrong, 0, "getpeername, all open at once");
        holder.hold_end();
    }
    assert_empty(&stage, "after all were closed");
    let full = stage.agent.status().counters("originFull") - before.counters("originFull");
    assert_eq!(full, 0, "none was refused for want of memory");
    let grown = stage.agent.anonymous_memory().saturating_sub(memory);
    assert!(grown < 4 * 1024, "the agent's memory grew by {grown} KiB");
}

#[track_caller]
fn assert_empty(stage: &Stage, when: &str) {
    eventually(&format!("ORIGIN is empty {when}"), || match stage.agent.status().used("ORIGIN") {
        0 => Ok(()),
        used => Err(format!("{used} slots are in use")),
    });
}
