//! Slots of sockets whose end no program saw are given back, and those of living ones are not.

use std::fs;
use std::path::PathBuf;

use aya::programs::loaded_programs;
use libtest_mimic::Trial;

use crate::harness::{Listen, Stage, cases, eventually, service};
use crate::probe::Kind;

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        slots_of_sockets_closed_while_nothing_was_attached_are_freed,
        slots_of_living_sockets_stay,
    ]
}

fn stage_with_web() -> Stage {
    let mut stage = Stage::without_agent();
    stage.agent.set_options(&["--reclaim-after", "1"]);
    stage.agent.start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80), Listen::Udp(80)]);
    let spec = "ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [
        {name: tcp, port: 80}, {name: udp, port: 80, protocol: UDP}]";
    stage.apply(&[&pod.manifest(), &service("web", spec)]);
    stage
}

/// Kills the agent and takes the program away that frees slots, as if nothing were attached.
fn detach_release(stage: &mut Stage) {
    let ids = stage.agent.status().program_ids();
    stage.agent.kill_nine();
    let entries = fs::read_dir(&stage.agent.paths.bpffs).expect("the folder of pins").flatten();
    let links = entries.map(|entry| entry.path().join("sock_release"));
    let links: Vec<PathBuf> = links.filter(|link| link.exists()).collect();
    let [link] = &links[..] else { panic!("one pinned link of sock_release: {links:?}") };
    fs::remove_file(link).expect("the pin can be removed");
    // The kernel detaches it in its own time.
    eventually("the program is gone", || {
        let loaded =
            loaded_programs().flatten().filter(|program| ids.contains(&program.id().into()));
        let loaded = loaded.count();
        if loaded < ids.len() { Ok(()) } else { Err(format!("{loaded} are loaded")) }
    });
}

fn slots_of_sockets_closed_while_nothing_was_attached_are_freed() {
    let mut stage = stage_with_web();
    let web = stage.frontend("web", 80);
    let (probe, among_pods) = (stage.probe(), stage.probe_among_pods());
    let open = |kind| {
        let socket = probe.open(kind);
        socket.connect(web).expect("connect");
        socket
    };
    let closed: Vec<_> = (0..50).flat_map(|_| [open(Kind::Tcp4), open(Kind::Udp4)]).collect();
    let living = [open(Kind::Tcp4), open(Kind::Udp4), among_pods.open(Kind::Tcp4)];
    living[2].connect(web).expect("connect");
    // Cookies of two processors may meet in a slot; the second of such sockets is remembered elsewhere.
    let taken = stage.agent.status().used("ORIGIN");
    assert!((100..=103).contains(&taken), "{taken} slots for 103 sockets");

    detach_release(&mut stage);
    drop(closed);
    stage.agent.start();
    eventually("the slots of closed sockets are freed", || {
        let status = stage.agent.status();
        match (status.used("ORIGIN"), status.sockets("reclaimed")) {
            (used, reclaimed) if used <= 3 && used + reclaimed == taken => Ok(()),
            counts => Err(format!("(in use, reclaimed) is {counts:?}")),
        }
    });
    for socket in &living {
        assert_eq!(socket.peer(), Ok(web), "getpeername of a socket that lives");
    }
    drop(living);
    eventually("the last slots are given back", || match stage.agent.status().used("ORIGIN") {
        0 => Ok(()),
        used => Err(format!("{used} in use")),
    });
}

fn slots_of_living_sockets_stay() {
    let mut stage = stage_with_web();
    let vips = stage.vips("web");
    let (probe, among_pods) = (stage.probe(), stage.probe_among_pods());
    let mut sockets = Vec::new();
    for probe in [&probe, &among_pods] {
        for (kind, vip) in [
            (Kind::Tcp4, vips[0]),
            (Kind::Udp4, vips[0]),
            (Kind::Tcp6, vips[1]),
            (Kind::Udp6, vips[1]),
        ] {
            let socket = probe.open(kind);
            socket.connect((vip, 80).into()).expect("connect");
            sockets.push((socket, vip));
        }
    }
    let unconnected = probe.open(Kind::Udp4);
    unconnected.send_to((vips[0], 80).into(), "?").expect("sendto");
    // A socket that is closed after the agent has looked for the first time shows that it looks again.
    let last = probe.open(Kind::Tcp4);
    last.connect((vips[0], 80).into()).expect("connect");
    detach_release(&mut stage);
    drop(last);
    stage.agent.start();
    eventually("the slot of the closed socket is freed", || {
        match stage.agent.status().sockets("reclaimed") {
            1 => Ok(()),
            reclaimed => Err(format!("{reclaimed} freed")),
        }
    });
    assert_eq!(stage.agent.status().used("ORIGIN"), 9, "a slot for each living socket");
    for (socket, vip) in &sockets {
        assert_eq!(socket.peer(), Ok((*vip, 80).into()), "getpeername");
    }
}
