//! Every record of the specification, asked for with dig; names as programs look them up.

use std::io::{Read, Write};
use std::net::TcpStream;

use libtest_mimic::Trial;

use crate::harness::names::Named;
use crate::harness::{Listen, Stage, cases, service};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        each_record_is_found_by_a_real_resolver,
        a_pod_finds_services_by_their_short_names,
        a_change_is_seen_in_the_next_answer,
        another_domain_can_be_chosen,
        without_names_there_is_no_server,
        the_service_of_the_server_is_the_agents_own,
        what_was_asked_is_counted,
    ]
}

/// A pod with a name of its own in the headless Service `db`.
const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: db-0, labels: {app: db}}
spec: {hostname: first, subdomain: db, containers: [{name: main, image: db}]}
status:
  phase: Running
  podIPs: [{ip: 10.244.1.77}, {ip: \"fd00:10:244:1::77\"}]
  conditions: [{type: Ready, status: \"True\"}]
";

fn each_record_is_found_by_a_real_resolver() {
    let stage = Stage::with_names(&[]);
    let ports = "ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]";
    let both = "ipFamilyPolicy: RequireDualStack";
    stage.apply(&[
        &service(
            "web",
            &format!(
                "{both}, clusterIPs: [10.96.7.7, \"fd00:10:96::7\"], clusterIP: 10.96.7.7, {ports}"
            ),
        ),
        &service("old", "clusterIP: 10.96.7.8, ports: [{port: 80}]"),
        &service("db", &format!("{both}, clusterIP: None, selector: {{app: db}}, {ports}")),
        &service("idle", "clusterIP: None, selector: {app: nobody}, ports: [{port: 80}]"),
        &service("out", "type: ExternalName, externalName: old.default.svc.cluster.local"),
        POD,
    ]);
    let zone = "default.svc.cluster.local";
    for (question, answer) in [
        ("dns-version.cluster.local TXT".to_owned(), vec!["\"1.1.0\""]),
        (format!("web.{zone} A"), vec!["10.96.7.7"]),
        (format!("web.{zone} AAAA"), vec!["fd00:10:96::7"]),
        (format!("wEB.{zone} A +tcp"), vec!["10.96.7.7"]),
        (format!("web.{zone} A @fd00:10:96::a"), vec!["10.96.7.7"]),
        (format!("web.{zone} A +tcp @fd00:10:96::a"), vec!["10.96.7.7"]),
        (format!("web.{zone} A +noedns"), vec!["10.96.7.7"]),
        (format!("old.{zone} AAAA"), vec![]),
        (format!("_http._tcp.web.{zone} SRV"), vec!["0 100 80 web.default.svc.cluster.local."]),
        (format!("_dns._udp.web.{zone} SRV"), vec!["0 100 53 web.default.svc.cluster.local."]),
        ("-x 10.96.7.7".to_owned(), vec!["web.default.svc.cluster.local."]),
        ("-x fd00:10:96::7".to_owned(), vec!["web.default.svc.cluster.local."]),
        (format!("db.{zone} A"), vec!["10.244.1.77"]),
        (format!("db.{zone} AAAA"), vec!["fd00:10:244:1::77"]),
        (format!("first.db.{zone} A"), vec!["10.244.1.77"]),
        (format!("_http._tcp.db.{zone} SRV"), vec!["0 100 80 first.db.default.svc.cluster.local."]),
        ("-x 10.244.1.77".to_owned(), vec!["first.db.default.svc.cluster.local."]),
        (format!("out.{zone} A"), vec!["10.96.7.8", "old.default.svc.cluster.local."]),
        (format!("out.{zone} CNAME"), vec!["old.default.svc.cluster.local."]),
        ("cluster.local NS".to_owned(), vec!["ns.dns.cluster.local."]),
        ("ns.dns.cluster.local A".to_owned(), vec!["10.96.0.10"]),
        ("-x 10.96.0.10".to_owned(), vec!["kube-dns.kube-system.svc.cluster.local."]),
    ] {
        assert_eq!(stage.dig(&question), answer, "dig {question}");
    }
    for (question, status) in [
        (format!("old.{zone} AAAA"), "NOERROR"),
        (zone.to_owned(), "NOERROR"),
        (format!("idle.{zone}"), "NXDOMAIN"),
        (format!("nobody.{zone}"), "NXDOMAIN"),
        ("web.elsewhere.svc.cluster.local".to_owned(), "NXDOMAIN"),
        ("-x 10.96.7.9".to_owned(), "NXDOMAIN"),
    ] {
        assert_eq!(stage.dig_status(&stage.node, &question), status, "dig {question}");
    }
}

/// The search list, and the files that `ip netns exec` puts in place.
fn a_pod_finds_services_by_their_short_names() {
    let mut stage = Stage::with_names(&[]);
    let mysql = service("mysql", "clusterIP: 10.96.7.7, selector: {app: db}, ports: [{port: 80}]");
    let other = mysql.replace("{name: mysql}", "{name: mysql, namespace: prod}");
    let pod = stage.pod("pod-a", "db", &[Listen::Tcp(80)]);
    stage.apply(&[&mysql, &other.replace("10.96.7.7", "10.96.7.8"), &pod.manifest()]);
    let named = Named::new(&stage.node);
    let found = |namespace: &str, name: &str| {
        stage.agent.lb(&["resolv-conf", "--netns", &named.name, "-n", namespace]).ok();
        let lookup = ["ip", "netns", "exec", &named.name, "getent", "hosts", name];
        let output = stage.run_in(&stage.node, &lookup);
        let address = output.stdout.split_whitespace().next().map(str::to_owned);
        (address, output.code)
    };
    for (namespace, name, address) in [
        ("default", "mysql", "10.96.7.7"),
        ("prod", "mysql", "10.96.7.8"),
        ("default", "mysql.prod", "10.96.7.8"),
        ("default", "mysql.prod.svc", "10.96.7.8"),
        ("prod", "mysql.default.svc.cluster.local", "10.96.7.7"),
        ("prod", "MYSQL.default.svc.cluster.local.", "10.96.7.7"),
    ] {
        assert_eq!(found(namespace, name), (Some(address.to_owned()), Some(0)), "{name}");
    }
    let nobody = found("default", "nobody");
    assert_eq!(nobody, (None, Some(2)), "getent says 2 for a name that does not exist");
    stage.agent.lb(&["resolv-conf", "--netns", &named.name, "--remove"]).ok();
    assert!(!std::path::Path::new("/etc/netns").join(&named.name).exists());
    assert_eq!(
        stage.probe().tcp("10.96.7.7:80".parse().expect("an address")).map(|v| v.pod),
        Ok("pod-a".to_owned())
    );
}

fn a_change_is_seen_in_the_next_answer() {
    let stage = Stage::with_names(&[]);
    let socket =
        crate::harness::names::datagrams(&stage.node, std::net::Ipv4Addr::new(10, 244, 0, 1));
    let server = stage.names_listener();
    let mut buffer = [0; 512];
    let mut ask = |id: u16, name: &str| {
        use hickory_server::proto::rr::RecordType;
        let question = crate::harness::names::question(id, name, RecordType::A);
        socket.send_to(&question, server).expect("it is sent");
        let (length, _) = socket.recv_from(&mut buffer).expect("an answer");
        hickory_server::proto::op::Message::from_vec(&buffer[..length]).expect("it can be read")
    };
    for round in 0..20_u16 {
        let name = format!("web-{round}.default.svc.cluster.local.");
        assert!(ask(round, &name).answers.is_empty(), "{name} is not there yet");
        let address = format!("10.96.8.{}", round + 1);
        stage.apply(&[&service(
            &format!("web-{round}"),
            &format!("clusterIP: {address}, ports: [{{port: 80}}]"),
        )]);
        let answer = ask(round, &name);
        assert_eq!(answer.answers.first().map(|it| it.data.to_string()), Some(address), "{answer}");
        stage.agent.delete("svc", &format!("web-{round}"));
        assert!(ask(round, &name).answers.is_empty(), "{name} is gone");
    }
}

fn another_domain_can_be_chosen() {
    let stage = Stage::with_names(&["--cluster-domain", "Shop.Example", "--dns-ttl", "30"]);
    stage.apply(&[&service("web", "clusterIP: 10.96.7.7, ports: [{port: 80}]")]);
    assert_eq!(stage.dig("web.default.svc.shop.example A"), ["10.96.7.7"]);
    let output = stage.run_in(
        &stage.node,
        &["dig", "@10.96.0.10", "+noall", "+answer", "web.default.svc.shop.example"],
    );
    assert!(output.stdout.contains(" 30 IN"), "{output}");
    let conf = stage.agent.lb(&["resolv-conf", "-n", "prod"]).ok();
    conf.mentions(&[
        "search prod.svc.shop.example svc.shop.example shop.example",
        "nameserver 10.96.0.10",
    ]);
}

fn without_names_there_is_no_server() {
    let mut stage = Stage::with_names(&[]);
    let all = |stage: &Stage| stage.agent.lb(&["get", "svc", "-A", "-o", "name"]).ok().stdout;
    assert_eq!(all(&stage).trim(), "service/kube-dns");
    stage.agent.stop(rustix::process::Signal::TERM);
    stage.agent.names = false;
    stage.agent.start();
    assert_eq!(all(&stage).trim(), "", "the Service of an earlier agent goes");
    let output = stage.run_in(&stage.node, &["dig", "+time=1", "+tries=1", "@10.96.0.10", "x"]);
    assert_ne!(output.code, Some(0), "{output}");
    stage.agent.lb(&["resolv-conf"]).refused().complains(&["--no-dns"]);
}

fn the_service_of_the_server_is_the_agents_own() {
    let mut stage = Stage::with_names(&[]);
    let delete = stage.agent.lb(&["delete", "svc", "kube-dns", "-n", "kube-system"]);
    delete.refused().complains(&["the agent itself", "--no-dns"]);
    let own = "apiVersion: v1\nkind: Service\nmetadata: {name: kube-dns, namespace: kube-system}\n\
               spec: {ports: [{name: dns, port: 53, protocol: UDP}]}\n";
    stage.agent.try_apply(&[own]).refused().complains(&["the agent itself", "--no-dns"]);
    // Somebody else's stays, and the agent says what that means.
    stage.agent.stop(rustix::process::Signal::TERM);
    stage.agent.names = false;
    stage.agent.start();
    stage.apply(&[own]);
    stage.agent.stop(rustix::process::Signal::TERM);
    stage.agent.names = true;
    stage.agent.start();
    let log = stage.agent.log();
    assert!(log.contains("names are served, but not by a ClusterIP"), "{log}");
    let listener = stage.names_listener();
    let direct = format!(
        "@{} -p {} kube-dns.kube-system.svc.cluster.local +noall +comments",
        listener.ip(),
        listener.port()
    );
    assert_eq!(stage.dig_status(&stage.node, &direct), "NOERROR");
}

fn what_was_asked_is_counted() {
    let stage = Stage::with_names(&[
        "--metrics-listen",
        "127.0.0.1:10249",
        "--dns-upstream",
        "127.0.0.1:1",
    ]);
    stage.apply(&[&service("web", "clusterIP: 10.96.7.7, ports: [{port: 80}]")]);
    for question in [
        "web.default.svc.cluster.local",
        "web.default.svc.cluster.local AAAA",
        "-x 10.96.7.7",
        "x.default.svc.cluster.local",
        "+notcp +retry=0 example.com",
    ] {
        stage.dig(question);
    }
    let metrics = stage.node.run(|| -> std::io::Result<String> {
        let mut stream = TcpStream::connect("127.0.0.1:10249")?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    });
    let metrics = metrics.expect("metrics are served");
    for line in [
        "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8",
        "lb_dns_queries_total{zone=\"cluster\",type=\"A\",code=\"NOERROR\"} 1",
        "lb_dns_queries_total{zone=\"cluster\",type=\"AAAA\",code=\"NOERROR\"} 1",
        "lb_dns_queries_total{zone=\"cluster\",type=\"A\",code=\"NXDOMAIN\"} 1",
        "lb_dns_queries_total{zone=\"reverse\",type=\"PTR\",code=\"NOERROR\"} 1",
        "lb_dns_queries_total{zone=\"forward\",type=\"A\",code=\"SERVFAIL\"} 1",
        "lb_dns_query_duration_seconds_count{zone=\"cluster\"} 3",
        "# EOF",
    ] {
        assert!(metrics.lines().any(|it| it.trim_end() == line), "{line}:\n{metrics}");
    }
}
