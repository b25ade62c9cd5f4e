//! `healthCheckNodePort`: what a load balancer hears of this node.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Listen, Pod, Stage, cases, eventually, service};
use crate::probe::Kind;

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        an_answer_has_the_form_of_kube_proxys,
        the_answer_follows_local_ready_endpoints,
        each_family_counts_its_own_endpoints,
        two_services_answer_for_themselves,
        the_port_follows_its_service,
        a_new_agent_answers_again,
        ranges_narrow_where_is_listened,
        a_port_that_somebody_else_has_is_named_and_taken_when_it_is_free,
        slow_clients_are_left_and_others_are_answered,
    ]
}

const PORT: u16 = 30150;
const NODE: &str = "10.244.0.1";
const NODE6: &str = "fd00:10:244::1";

/// A Service of both families for load balancers, with endpoints of the label `app: NAME`.
fn balanced(name: &str, port: u16) -> String {
    let ports = format!(
        "ports: [{{name: a, port: {port}, targetPort: 80}}, {{name: b, port: {}}}]",
        port + 1
    );
    service(
        name,
        &format!(
            "type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: {port}, \
             ipFamilyPolicy: RequireDualStack, selector: {{app: {name}}}, {ports}"
        ),
    )
}

fn stage() -> Stage {
    stage_with(&[])
}

/// The agent has these options.
fn stage_with(options: &[&str]) -> Stage {
    let mut stage = Stage::without_agent();
    stage.agent.set_options(options);
    stage.agent.start();
    stage
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port)
}

/// The answer to a question from the pods' side, as it comes.
fn ask(stage: &Stage, to: SocketAddr) -> io::Result<String> {
    stage.pods().run(move || ask_here(to))
}

fn ask_here(to: SocketAddr) -> io::Result<String> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {to}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Code and number of endpoints in an answer.
fn heard(answer: &str) -> Option<(u16, u64)> {
    let code = answer.split(' ').nth(1)?.parse().ok()?;
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1)?).ok()?;
    Some((code, body["localEndpoints"].as_u64()?))
}

/// Listening begins in its own time; numbers are there at once.
#[track_caller]
fn assert_answers_soon(stage: &Stage, to: SocketAddr, expected: (u16, u64)) {
    eventually(&format!("{to} answers {expected:?}"), || {
        let answer = ask(stage, to).map_err(|error| error.to_string())?;
        if heard(&answer) == Some(expected) { Ok(()) } else { Err(answer) }
    });
}

#[track_caller]
fn assert_answers(stage: &Stage, to: SocketAddr, expected: (u16, u64)) {
    let answer = ask(stage, to).unwrap_or_else(|error| panic!("{to}: {error}"));
    assert_eq!(heard(&answer), Some(expected), "{to}: {answer}");
}

#[track_caller]
fn assert_closed_soon(stage: &Stage, to: SocketAddr) {
    eventually(&format!("{to} is closed"), || match ask(stage, to) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// The manifest of a pod on another node.
fn elsewhere(pod: &Pod) -> String {
    pod.manifest().replace("spec: {", "spec: {nodeName: elsewhere, ")
}

fn an_answer_has_the_form_of_kube_proxys() {
    let mut stage = stage();
    let pod = stage.pod("pod-a", "web", &[]);
    stage.apply(&[&balanced("web", PORT), &pod.manifest()]);
    let to = at(NODE, PORT);
    assert_answers_soon(&stage, to, (200, 1));
    let answer = ask(&stage, to).expect("it answers").to_lowercase();
    for header in [
        "http/1.1 200 ok\r\n",
        "\r\ncontent-type: application/json\r\n",
        "\r\nx-content-type-options: nosniff\r\n",
        "\r\nx-load-balancing-endpoint-weight: 1\r\n",
    ] {
        assert!(answer.contains(header), "{header:?} in {answer}");
    }
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).expect("a body"))
        .unwrap_or_else(|error| panic!("{error}: {answer}"));
    let service = json!({"namespace": "default", "name": "web"});
    let expected = json!({"service": service, "localendpoints": 1, "serviceproxyhealthy": true});
    assert_eq!(body, expected);
}

fn the_answer_follows_local_ready_endpoints() {
    let mut stage = stage();
    let [mut a, b, far] =
        ["pod-a", "pod-b", "pod-far"].map(|name| stage.pod(name, "web", &[Listen::Tcp(80)]));
    stage.apply(&[&balanced("web", PORT)]);
    let to = at(NODE, PORT);
    assert_answers_soon(&stage, to, (503, 0));
    stage.apply(&[&elsewhere(&far)]);
    assert_answers(&stage, to, (503, 0));
    stage.apply(&[&a.manifest()]);
    assert_answers(&stage, to, (200, 1));
    stage.apply(&[&b.manifest()]);
    assert_answers(&stage, to, (200, 2));
    a.ready = false;
    stage.apply(&[&a.manifest()]);
    assert_answers(&stage, to, (200, 1));
    stage.agent.delete("pod", "pod-b");
    assert_answers(&stage, to, (503, 0));
    a.ready = true;
    let leaving = a.manifest().replace(
        "metadata: {",
        "metadata: {deletionTimestamp: \"2030-01-01T00:00:00Z\", deletionGracePeriodSeconds: 30, ",
    );
    stage.apply(&[&leaving]);
    assert_answers(&stage, to, (503, 0));
}

fn each_family_counts_its_own_endpoints() {
    let mut stage = stage();
    let pod = stage.pod("pod-a", "web", &[]);
    let v6 = format!(", {{ip: \"{}\"}}", pod.v6);
    stage.apply(&[&balanced("web", PORT), &pod.manifest().replace(&v6, "")]);
    for (address, expected) in [(NODE, (200, 1)), (NODE6, (503, 0))] {
        assert_answers_soon(&stage, at(address, PORT), expected);
    }
    stage.apply(&[&pod.manifest()]);
    for address in [NODE, NODE6] {
        assert_answers(&stage, at(address, PORT), (200, 1));
    }
    // Of a family that the Service lacks, the other is told.
    let single = balanced("single", PORT + 10)
        .replace("ipFamilyPolicy: RequireDualStack", "ipFamilies: [IPv6]")
        .replace("app: single", "app: web");
    stage.apply(&[&single]);
    for address in [NODE, NODE6] {
        assert_answers_soon(&stage, at(address, PORT + 10), (200, 1));
    }
}

fn two_services_answer_for_themselves() {
    let mut stage = stage();
    let pod = stage.pod("pod-a", "first", &[]);
    let plain = service("plain", "type: LoadBalancer, selector: {app: first}, ports: [{port: 80}]");
    stage.apply(&[
        &balanced("first", PORT),
        &balanced("second", PORT + 10),
        &pod.manifest(),
        &plain,
    ]);
    assert_answers_soon(&stage, at(NODE, PORT), (200, 1));
    assert_answers_soon(&stage, at(NODE, PORT + 10), (503, 0));
    stage.agent.lb(&["status"]).ok().mentions(&["Health checks:  at 2 ports"]);
    let other = "labels: {service.kubernetes.io/service-proxy-name: other}, ";
    let foreign = balanced("first", PORT).replace("metadata: {", &format!("metadata: {{{other}"));
    stage.apply(&[&foreign]);
    assert_closed_soon(&stage, at(NODE, PORT));
    assert_answers(&stage, at(NODE, PORT + 10), (503, 0));
}

fn the_port_follows_its_service() {
    let mut stage = stage();
    let pod = stage.pod("pod-a", "web", &[]);
    stage.apply(&[&balanced("web", PORT), &pod.manifest()]);
    for address in [NODE, NODE6] {
        assert_answers_soon(&stage, at(address, PORT), (200, 1));
    }
    stage.agent.delete("svc", "web");
    for address in [NODE, NODE6] {
        assert_closed_soon(&stage, at(address, PORT));
    }
    let heir = balanced("heir", PORT).replace("app: heir", "app: web");
    for _ in 0..5 {
        stage.apply(&[&heir]);
        assert_answers_soon(&stage, at(NODE, PORT), (200, 1));
        stage.agent.delete("svc", "heir");
    }
    assert_closed_soon(&stage, at(NODE, PORT));
    // A port that becomes a NodePort is one, and nothing else.
    let node_port = format!("type: NodePort, ports: [{{port: 80, nodePort: {PORT}}}]");
    stage.apply(&[&service("port", &node_port)]);
    assert!(stage.probe().open(Kind::Tcp4).bind(at("0.0.0.0", PORT)).is_err());
    let moved = balanced("web", PORT);
    stage.agent.delete("svc", "port");
    stage.apply(&[&moved]);
    assert_answers_soon(&stage, at(NODE, PORT), (200, 1));
}

fn a_new_agent_answers_again() {
    let mut stage = stage();
    let pod = stage.pod("pod-a", "web", &[]);
    stage.apply(&[&balanced("web", PORT), &pod.manifest()]);
    let mut lingering = Vec::new();
    for signal in [Signal::TERM, Signal::KILL] {
        assert_answers_soon(&stage, at(NODE, PORT), (200, 1));
        // The node's ends linger, which must not keep the next agent from listening.
        lingering.push(stage.pods().run(|| TcpStream::connect(at(NODE, PORT))));
        if signal == Signal::TERM {
            assert_eq!(stage.agent.stop(signal), 0);
        } else {
            stage.agent.kill_nine();
        }
        assert_closed_soon(&stage, at(NODE, PORT));
        stage.agent.start();
    }
    for address in [NODE, NODE6] {
        assert_answers_soon(&stage, at(address, PORT), (200, 1));
    }
}

fn ranges_narrow_where_is_listened() {
    let mut stage = stage_with(&["--nodeport-addresses", "10.244.0.0/24"]);
    let pod = stage.pod("pod-a", "web", &[]);
    stage.apply(&[&balanced("web", PORT), &pod.manifest()]);
    assert_answers_soon(&stage, at(NODE, PORT), (200, 1));
    assert_answers_soon(&stage, at(NODE6, PORT), (200, 1));
    let loopback = at("127.0.0.1", PORT);
    let refused = stage.node.run(move || ask_here(loopback)).expect_err("not selected");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    // An address is followed as it comes and goes.
    stage.node.ip("addr add 10.244.0.77/32 dev eth0");
    assert_answers_soon(&stage, at("10.244.0.77", PORT), (200, 1));
    stage.node.ip("addr del 10.244.0.77/32 dev eth0\naddr add 10.244.0.78/32 dev eth0");
    assert_answers_soon(&stage, at("10.244.0.78", PORT), (200, 1));
    let problems = stage.agent.status().health_problems();
    assert_eq!(problems, Vec::<String>::new());
}

fn a_port_that_somebody_else_has_is_named_and_taken_when_it_is_free() {
    let mut stage = stage();
    let pod = stage.pod("pod-a", "web", &[]);
    let squatter = stage.node.run(|| TcpListener::bind(at(NODE, PORT))).expect("a free port");
    stage.apply(&[&balanced("web", PORT), &pod.manifest()]);
    // The other family is not in its way.
    assert_answers_soon(&stage, at(NODE6, PORT), (200, 1));
    eventually("the status names it", || {
        let problems = stage.agent.status().health_problems();
        let texts = ["service/web in namespace default", "0.0.0.0:30150", "in use", "ss -ltnp"];
        match problems.as_slice() {
            [one] if texts.iter().all(|text| one.contains(text)) => Ok(()),
            _ => Err(format!("{problems:?}")),
        }
    });
    assert!(stage.agent.log().contains("service/web in namespace default"), "the log, too");
    drop(squatter);
    assert_answers_soon(&stage, at(NODE, PORT), (200, 1));
    assert_eq!(stage.agent.status().health_problems(), Vec::<String>::new());
}

fn slow_clients_are_left_and_others_are_answered() {
    /// More than one client may have.
    const MANY: usize = 200;
    let mut stage = stage();
    let pod = stage.pod("pod-a", "web", &[]);
    stage.apply(&[&balanced("web", PORT), &pod.manifest()]);
    assert_answers_soon(&stage, at(NODE, PORT), (200, 1));
    let begin = Instant::now();
    let silent: Vec<_> = stage
        .pods()
        .run(|| (0..MANY).map_while(|_| TcpStream::connect(at(NODE, PORT)).ok()).collect());
    assert_eq!(silent.len(), MANY, "the kernel accepts them all");
    // Another client than the many.
    let other = stage.node.run(|| ask_here(at(NODE, PORT))).expect("it is answered");
    assert_eq!(heard(&other), Some((200, 1)), "{other}");
    for mut stream in silent {
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a connected socket");
        // The end of the connection, in order or not.
        let _closed = stream.read(&mut [0; 64]);
    }
    assert!(begin.elapsed() < Duration::from_secs(15), "they are left: {:?}", begin.elapsed());
    assert_answers(&stage, at(NODE, PORT), (200, 1));
}
