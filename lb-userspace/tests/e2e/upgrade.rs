//! Another lb takes over: other programs, and maps of another layout or size. No connection fails,
//! no socket loses its way back, and nothing is left of what was before.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use aya::programs::links::{FdLink, PinnedLink};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::harness::sandbox::{self, LB};
use crate::harness::{Listen, Stage, cases, eventually, rounds, service};
use crate::probe::{Kind, Probe, ProbeSocket, Tally};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        upgrades_back_and_forth_fail_no_connection,
        kills_in_the_middle_of_a_takeover_fail_no_connection,
        a_takeover_waits_until_every_source_has_been_read,
        what_changed_with_no_agent_running_holds_after_a_takeover,
        a_takeover_at_another_cgroup_leaves_no_gap,
        sockets_without_a_slot_keep_their_way_back,
        a_socket_that_connects_again_shows_its_later_destination,
        cleanup_removes_former_layouts_and_takeovers_cut_short,
    ]
}

const WEB: &str = "ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [
    {name: tcp, port: 80}, {name: udp, port: 53, protocol: UDP}]";

/// A stage with the Service `web`, served by two pods.
pub(crate) fn stage_with_web() -> Stage {
    let mut stage = Stage::start();
    let listen = [Listen::Tcp(80), Listen::Udp(53)];
    let pods = ["pod-a", "pod-b"].map(|name| stage.pod(name, "web", &listen).manifest());
    stage.apply(&[&pods[0], &pods[1], &service("web", WEB)]);
    stage
}

/// Clients without a pause, from both namespaces.
pub(crate) struct Load {
    probes: Vec<Probe>,
    since: Instant,
}

impl Load {
    pub(crate) fn start(stage: &Stage) -> Self {
        let probes: Vec<_> = (0..6)
            .map(|number| if number % 2 == 0 { stage.probe() } else { stage.probe_among_pods() })
            .collect();
        let (web, dns) = (stage.vips("web"), stage.frontend("web", 53));
        for (number, probe) in probes.iter().enumerate() {
            match number {
                0 | 1 => probe.load_start(Kind::Udp4, dns),
                2 => probe.load_start(Kind::Tcp6, SocketAddr::new(web[1], 80)),
                _ => probe.load_start(Kind::Tcp4, SocketAddr::new(web[0], 80)),
            }
        }
        Self { probes, since: Instant::now() }
    }

    /// Ends the load, none of whose connections may have failed.
    #[track_caller]
    pub(crate) fn stop(self, what: &str) {
        let seconds = self.since.elapsed().as_secs_f64();
        let tallies: Vec<Tally> = self.probes.iter().flat_map(|probe| probe.load_stop()).collect();
        tallies.iter().for_each(|tally| tally.assert_all_answered(what));
        let answered: u64 = tallies.iter().map(Tally::answered).sum();
        #[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^52")]
        let rate = answered as f64 / seconds;
        println!("{what}: {answered} connections, {rate:.0} a second");
        // Undisturbed it is several thousand; other tests may run beside this one.
        assert!(rate > 300.0, "{what}: only {rate:.0} connections a second");
    }
}

/// Sockets of every sort that stay open.
struct Held<'probe> {
    tcp: ProbeSocket<'probe>,
    udp: ProbeSocket<'probe>,
    unconnected: ProbeSocket<'probe>,
    web: SocketAddr,
    dns: SocketAddr,
}

impl<'probe> Held<'probe> {
    #[track_caller]
    fn open(probe: &'probe Probe, [web, dns]: [SocketAddr; 2]) -> Self {
        let held = Self {
            tcp: probe.open(Kind::Tcp4),
            udp: probe.open(Kind::Udp4),
            unconnected: probe.open(Kind::Udp4),
            web,
            dns,
        };
        held.tcp.connect(web).expect("connect");
        held.tcp.greeting().expect("a greeting");
        held.udp.connect(dns).expect("connect");
        held.unconnected.send_to(dns, "?").expect("sendto");
        held.unconnected.receive().expect("an answer");
        held
    }

    #[track_caller]
    fn assert_served(&self, when: &str) {
        let Self { tcp, udp, unconnected, web, dns } = self;
        assert_eq!(tcp.peer(), Ok(*web), "getpeername of TCP, {when}");
        assert_eq!(tcp.echo("there?").as_deref(), Ok("there?"), "the connection, {when}");
        assert_eq!(udp.peer(), Ok(*dns), "getpeername of UDP, {when}");
        udp.send("?").expect("send");
        assert_eq!(udp.receive().map(|visit| visit.peer), Ok(*dns), "connected UDP, {when}");
        unconnected.send_to(*dns, "?").expect("sendto");
        let answer = unconnected.receive().map(|visit| visit.peer);
        assert_eq!(answer, Ok(*dns), "unconnected UDP, {when}");
    }
}

/// Ends the agent as upgrades do, or not in order at all.
fn end(stage: &mut Stage, in_order: bool) {
    if in_order {
        assert_eq!(stage.agent.stop(Signal::TERM), 0, "exit code after SIGTERM");
    } else {
        stage.agent.kill_nine();
    }
}

/// Starts the agent, which is to take over from another layout.
#[track_caller]
pub(crate) fn take_over(stage: &mut Stage, when: &str) {
    stage.agent.start();
    eventually(&format!("the takeover is complete, {when}"), || {
        match stage.agent.status().taking_over() {
            None => Ok(()),
            Some(layout) => Err(format!("{layout} still decides")),
        }
    });
}

/// The folders of maps.
fn layouts(stage: &Stage) -> Vec<PathBuf> {
    let entries = fs::read_dir(&stage.agent.paths.bpffs).expect("the folder of pins");
    let paths = entries.flatten().map(|entry| entry.path());
    paths
        .filter(|path| path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"maps-")))
        .collect()
}

#[track_caller]
pub(crate) fn assert_only_one_layout_is_left(stage: &Stage) {
    eventually("the former layouts go with their sockets", || {
        let former = stage.agent.status().former_layouts();
        match layouts(stage).len() {
            1 if former.is_empty() => Ok(()),
            count => Err(format!("{count} folders of maps; kept for sockets: {former:?}")),
        }
    });
}

fn upgrades_back_and_forth_fail_no_connection() {
    let mut stage = stage_with_web();
    let before = stage.agent.get("svc", "web");
    let frontends = [80, 53].map(|port| stage.frontend("web", port));
    let binaries = [sandbox::next_lb(), PathBuf::from(LB)];
    let load = Load::start(&stage);
    let probe = stage.probe();
    let mut held = Vec::new();
    for (round, binary) in (0..rounds(8, 20)).zip(binaries.iter().cycle()) {
        let when = format!("upgrade {round}");
        if round % 4 == 0 {
            held.push(Held::open(&probe, frontends));
        }
        end(&mut stage, round % 3 != 0);
        stage.agent.binary.clone_from(binary);
        take_over(&mut stage, &when);
        assert_eq!(stage.agent.get("svc", "web"), before, "the Service after {when}");
        for (number, held) in held.iter().enumerate() {
            held.assert_served(&format!("opened at upgrade {}, after {when}", 4 * number));
        }
    }
    assert_eq!(layouts(&stage).len(), 2, "sockets are open that know the other layout");
    load.stop("connections over upgrades back and forth");
    drop(held);
    assert_only_one_layout_is_left(&stage);
}

/// The hooks in the order in which an agent takes their place.
const HOOKS: [&str; 11] = [
    "sock_release",
    "getpeername4",
    "getpeername6",
    "recvmsg4",
    "recvmsg6",
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "post_bind4",
    "post_bind6",
];

fn links_folder(stage: &Stage) -> PathBuf {
    let entries = fs::read_dir(&stage.agent.paths.bpffs).expect("the folder of pins");
    let mut paths = entries.flatten().map(|entry| entry.path());
    let is_links = |path: &PathBuf| {
        path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"links-"))
    };
    paths.find(is_links).expect("a folder of links")
}

/// Starts the agent and kills it as soon as it has replaced the program at the hook of this number.
/// Returns how many it has replaced.
fn kill_at(stage: &mut Stage, hook: usize) -> usize {
    let folder = links_folder(stage);
    let links = HOOKS.map(|hook| {
        FdLink::from(PinnedLink::from_pin(folder.join(hook)).expect("every hook has a link"))
    });
    let program = |link: &FdLink| link.info().expect("a link").program_id();
    let before = links.each_ref().map(program);
    stage.agent.spawn();
    let deadline = Instant::now() + Duration::from_secs(60);
    before_everybody_else(|| {
        while program(&links[hook]) == before[hook] && Instant::now() < deadline {
            sleep(Duration::from_micros(20));
        }
        stage.agent.kill_nine();
    });
    links.iter().zip(before).filter(|(link, before)| program(link) != *before).count()
}

/// Does something that must not wait for a processor, however busy the machine is.
fn before_everybody_else(act: impl FnOnce()) {
    let schedule = |policy, sched_priority| {
        let parameters = libc::sched_param { sched_priority };
        // SAFETY: the kernel reads the parameters. 0 is the calling thread.
        let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
        assert_eq!(result, 0, "root can choose how its threads are scheduled");
    };
    schedule(libc::SCHED_FIFO, 1);
    act();
    schedule(libc::SCHED_OTHER, 0);
}

fn kills_in_the_middle_of_a_takeover_fail_no_connection() {
    let mut stage = stage_with_web();
    let frontends = [80, 53].map(|port| stage.frontend("web", port));
    let (mut serving, mut other) = (PathBuf::from(LB), sandbox::next_lb());
    let load = Load::start(&stage);
    let probe = stage.probe();
    let mut held = vec![Held::open(&probe, frontends)];
    let mut midway = Vec::new();
    for round in 0..rounds(9, 18) {
        stage.agent.kill_nine();
        // Mostly one that takes over; every third time one that goes on with the same maps.
        stage.agent.binary.clone_from(if round % 3 == 1 { &serving } else { &other });
        // It has replaced some more by the time that it is dead: any number of them.
        let hook = round % 5;
        midway.push(kill_at(&mut stage, hook));
        let when = format!("round {round}, killed at {}", HOOKS[hook]);
        held.iter().for_each(|held| held.assert_served(&when));
        held.push(Held::open(&probe, frontends));
        // One that goes on, or the former one again.
        if round % 2 == 0 {
            std::mem::swap(&mut serving, &mut other);
        }
        stage.agent.binary.clone_from(&serving);
        take_over(&mut stage, &when);
        held.iter().for_each(|held| held.assert_served(&format!("{when}, then taken over")));
        assert_eq!(stage.frontend("web", 80), frontends[0], "the ClusterIP, {when}");
    }
    println!("programs replaced when the agent was killed, of {}: {midway:?}", HOOKS.len());
    assert!(
        midway.iter().any(|&count| count > 0 && count < HOOKS.len()),
        "no kill hit a takeover: {midway:?}"
    );
    load.stop("connections over takeovers cut short");
    drop(held);
    assert_only_one_layout_is_left(&stage);
}

fn a_takeover_waits_until_every_source_has_been_read() {
    let mut stage = stage_with_web();
    let [web, dns] = [80, 53].map(|port| stage.frontend("web", port));
    let (probe, load) = (stage.probe(), Load::start(&stage));
    let held = Held::open(&probe, [web, dns]);
    let folder = stage.agent.paths.manifests.clone();
    let away = folder.with_extension("away");
    fs::rename(&folder, &away).expect("the manifests directory is the test's own");
    stage.agent.kill_nine();
    stage.agent.binary = sandbox::next_lb();
    stage.agent.start();
    let status = stage.agent.status();
    let decides = status.taking_over().expect("the manifests have not been read").to_owned();
    stage.agent.lb(&["status"]).ok().mentions(&["taking over from another layout", &decides]);
    assert_eq!(probe.tcp(web).map(|visit| visit.peer), Ok(web), "while the takeover waits");
    held.assert_served("while the takeover waits");

    fs::rename(&away, &folder).expect("the manifests directory is the test's own");
    eventually("the takeover is complete", || match stage.agent.status().taking_over() {
        None => Ok(()),
        Some(layout) => Err(format!("{layout} still decides")),
    });
    held.assert_served("after the takeover");
    let former = stage.agent.status().former_layouts();
    let [(layout, sockets)] = &former[..] else { panic!("one former layout: {former:?}") };
    assert_eq!(*layout, decides, "the former layout");
    assert!(*sockets >= 3, "it is kept for three sockets: {former:?}");
    load.stop("connections while a takeover waits");
    drop(held);
    assert_only_one_layout_is_left(&stage);
}

fn what_changed_with_no_agent_running_holds_after_a_takeover() {
    let mut stage = Stage::without_agent();
    let pods = ["pod-a", "pod-b"].map(|name| stage.pod(name, "web", &[Listen::Tcp(80)]));
    let web = service("web", "clusterIP: 10.96.0.77, selector: {app: web}, ports: [{port: 80}]");
    stage.write_manifest("web.yaml", &web);
    for pod in &pods {
        stage.write_manifest(&format!("{}.yaml", pod.name), &pod.manifest());
    }
    stage.agent.start();
    let to = "10.96.0.77:80".parse().expect("an address");
    let probe = stage.probe();
    eventually("both pods answer", || {
        let tally = probe.burst(Kind::Tcp4, to, 50);
        if tally.answers.len() == 2 { Ok(()) } else { Err(format!("{tally:?}")) }
    });
    // Back to tables that were right before.
    for binary in [sandbox::next_lb(), PathBuf::from(LB)] {
        stage.agent.binary = binary;
        stage.agent.kill_nine();
        let gone = stage.agent.paths.manifests.join("pod-b.yaml");
        if gone.exists() {
            fs::remove_file(gone).expect("the manifests directory is the test's own");
        } else {
            stage.write_manifest("pod-b.yaml", &pods[1].manifest());
        }
        take_over(&mut stage, "after a change");
        let tally = probe.burst(Kind::Tcp4, to, 100);
        tally.assert_all_answered("after a change and a takeover");
        let present = u64::from(stage.agent.paths.manifests.join("pod-b.yaml").exists());
        assert_eq!(tally.by("pod-b") > 0, present > 0, "pod-b comes and goes: {tally:?}");
    }
}

fn a_takeover_at_another_cgroup_leaves_no_gap() {
    let mut stage = Stage::without_agent();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80), Listen::Udp(53)]);
    let inner = stage.cgroup.child("inner");
    stage.agent.paths.cgroup.clone_from(&inner.path);
    stage.agent.start();
    stage.apply(&[&pod.manifest(), &service("web", WEB)]);
    let [web, dns] = [80, 53].map(|port| stage.frontend("web", port));
    let probe = stage.probe_in(&inner.path);
    let load = stage.probe_in(&inner.path);
    load.load_start(Kind::Tcp4, web);
    let held = Held::open(&probe, [web, dns]);
    stage.agent.kill_nine();
    stage.agent.binary = sandbox::next_lb();
    stage.agent.paths.cgroup.clone_from(&stage.cgroup.path);
    take_over(&mut stage, "at the cgroup above");
    held.assert_served("served from the cgroup above");
    load.load_stop()[0].assert_all_answered("connections over a takeover at the cgroup above");
    assert_eq!(stage.probe().tcp(web).map(|visit| visit.peer), Ok(web), "outside the first one");
    drop(held);
    assert_only_one_layout_is_left(&stage);
}

/// Sixteen slots for eighty sockets: most of them remember in storage of their own.
fn sockets_without_a_slot_keep_their_way_back() {
    let mut stage = stage_with_web();
    stage.agent.kill_nine();
    stage.agent.set_options(&["--map-size", "ORIGIN=16"]);
    take_over(&mut stage, "with few slots");
    let frontends = [80, 53].map(|port| stage.frontend("web", port));
    let probe = stage.probe();
    let mut early: Vec<_> = (0..30).map(|_| Held::open(&probe, frontends)).collect();
    let late: Vec<_> = (0..3).map(|_| Held::open(&probe, frontends)).collect();
    assert_eq!(stage.agent.status().used("ORIGIN"), 16, "every slot is taken");
    stage.agent.kill_nine();
    stage.agent.binary = sandbox::next_lb();
    take_over(&mut stage, "of another layout");
    for held in early.iter().chain(&late) {
        held.assert_served("after the takeover");
    }
    early.clear();
    eventually("only storage is left", || match &stage.agent.status().former_layouts()[..] {
        [(_, sockets)] if *sockets <= 9 => Ok(()),
        former => Err(format!("kept for sockets: {former:?}")),
    });
    late.iter().for_each(|held| held.assert_served("when every slot is free"));
    drop(late);
    assert_only_one_layout_is_left(&stage);
}

/// Both layouts know the socket, and both know its backend.
fn a_socket_that_connects_again_shows_its_later_destination() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Udp(53)]);
    let spec = "selector: {app: web}, ports: [{port: 53, protocol: UDP}]";
    stage.apply(&[&pod.manifest(), &service("first", spec), &service("second", spec)]);
    let [first, second] = ["first", "second"].map(|name| stage.frontend(name, 53));
    let probe = stage.probe();
    let socket = probe.open(Kind::Udp4);
    socket.connect(first).expect("connect");
    stage.agent.kill_nine();
    stage.agent.binary = sandbox::next_lb();
    take_over(&mut stage, "of another layout");
    assert_eq!(socket.peer(), Ok(first), "before it connects again");
    socket.connect(second).expect("connect");
    assert_eq!(socket.peer(), Ok(second), "getpeername");
    socket.send("?").expect("send");
    assert_eq!(socket.receive().map(|visit| visit.peer), Ok(second), "recvfrom");
}

fn cleanup_removes_former_layouts_and_takeovers_cut_short() {
    let mut stage = stage_with_web();
    let frontends = [80, 53].map(|port| stage.frontend("web", port));
    let probe = stage.probe();
    let held = Held::open(&probe, frontends);
    stage.agent.kill_nine();
    stage.agent.binary = sandbox::next_lb();
    take_over(&mut stage, "of another layout");
    stage.agent.kill_nine();
    stage.agent.binary = PathBuf::from(LB);
    kill_at(&mut stage, 2);
    stage.agent.cleanup(&[]).ok();
    let left: Vec<_> =
        fs::read_dir(&stage.agent.paths.bpffs).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "pins are left: {left:?}");
    assert_eq!(held.tcp.echo("there?").as_deref(), Ok("there?"), "the connection lives on");
    let shown = held.tcp.peer().map(|peer| peer.ip());
    assert_ne!(shown, Ok(frontends[0].ip()), "no program translates any more");
}
