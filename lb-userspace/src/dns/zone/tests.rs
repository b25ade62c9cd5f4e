//! One row for each record of the specification, and for what surrounds them.

use std::sync::Arc;

use hickory_server::proto::op::{LowerQuery, Query};

use super::*;
use crate::object::Kind;
use crate::store::model::SlicePort;

fn address(word: &str) -> IpAddr {
    word.parse().expect("an address")
}

fn port(name: &str, protocol: Protocol, port: u16) -> SlicePort {
    SlicePort { name: name.into(), protocol, port }
}

fn host(hostname: Option<&str>, at: &str, ports: &Arc<[SlicePort]>) -> Host {
    Host { hostname: hostname.map(Into::into), address: address(at), ports: Arc::clone(ports) }
}

fn service(namespace: &str, name: &str) -> Key {
    Key::new(Kind::Service, namespace, name)
}

/// `web` (both families), `old` (IPv4, an unnamed port), `db` (headless), `idle` (headless, nobody
/// ready), `out` (ExternalName), and `kube-dns`.
fn zone() -> Zone {
    let domain: Name = "cluster.local.".parse().expect("a name");
    let ranges = ["10.96.0.0/12", "fd00:10:96::/112"].map(|range| range.parse().expect("a range"));
    let mut zone = Zone::new(&domain, 5, ranges.to_vec());
    let virtual_ = |addresses: &[&str], ports: &[SlicePort]| Names::Virtual {
        addresses: addresses.iter().map(|word| address(word)).collect(),
        ports: ports.into(),
    };
    let mysql: Arc<[SlicePort]> = [port("mysql", Protocol::Tcp, 3306)].into();
    let admin: Arc<[SlicePort]> =
        [port("mysql", Protocol::Tcp, 3307), port("admin", Protocol::Tcp, 33)].into();
    let hosts = vec![
        host(Some("db-0"), "10.1.0.1", &mysql),
        host(Some("db-0"), "fd01::1", &mysql),
        host(None, "10.1.0.2", &admin),
        host(None, "fd01::2", &mysql),
    ];
    let ports = [port("http", Protocol::Tcp, 80), port("dns", Protocol::Udp, 53)];
    for (key, names) in [
        (service("default", "web"), virtual_(&["10.96.0.20", "fd00:10:96::20"], &ports)),
        (service("default", "old"), virtual_(&["10.96.0.21"], &[port("", Protocol::Tcp, 80)])),
        (service("prod", "db"), Names::headless(hosts)),
        (service("prod", "idle"), Names::Headless(Box::default())),
        (service("prod", "out"), Names::Alias("db.example.com.".parse().expect("a name"))),
        (service("kube-system", "kube-dns"), virtual_(&["10.96.0.10"], &[])),
    ] {
        zone.set(&key, Some(names));
    }
    zone.set_server(Some(&service("kube-system", "kube-dns")));
    zone.set_complete();
    zone
}

fn ask(zone: &Zone, name: &str, asked: RecordType) -> Answer {
    let name: Name = name.parse().expect("a name");
    zone.answer(&LowerQuery::query(Query::query(name, asked)), 100)
}

/// `A 10.96.0.20`, sorted; `none` for no data, `NXDOMAIN`, `elsewhere`, `later`, `alias …`; after `+`
/// the additional records.
fn show(answer: Answer) -> String {
    match answer {
        Answer::Elsewhere => "elsewhere".to_owned(),
        Answer::NotYet => "later".to_owned(),
        Answer::Alias(target) => format!("alias {target}"),
        Answer::NoData(_) => "none".to_owned(),
        Answer::NoName(_) => "NXDOMAIN".to_owned(),
        Answer::Found { records, additional } => {
            let mut records: Vec<_> =
                records.iter().map(|data| format!("{} {data}", data.record_type())).collect();
            records.sort();
            let mut more: Vec<_> =
                additional.iter().map(|it| format!("{} {}", it.name, it.data)).collect();
            more.sort();
            let plus = if more.is_empty() { "" } else { " + " };
            format!("{}{plus}{}", records.join(", "), more.join(", "))
        }
    }
}

#[test]
fn each_record_of_the_specification_is_served() {
    use RecordType::{A, AAAA, CNAME, MX, NS, PTR, SOA, SRV, TXT};
    let zone = zone();
    for (name, asked, answer) in [
        // 2.2, the version
        ("dns-version.cluster.local.", TXT, "TXT 1.1.0"),
        ("dns-version.cluster.local.", A, "none"),
        // 2.3.1, addresses of a Service
        ("web.default.svc.cluster.local.", A, "A 10.96.0.20"),
        ("web.default.svc.cluster.local.", AAAA, "AAAA fd00:10:96::20"),
        ("WEB.Default.sVc.Cluster.LOCAL.", A, "A 10.96.0.20"),
        ("old.default.svc.cluster.local.", AAAA, "none"),
        ("web.default.svc.cluster.local.", TXT, "none"),
        ("web.default.svc.cluster.local.", MX, "none"),
        ("web.prod.svc.cluster.local.", A, "NXDOMAIN"),
        ("x.web.default.svc.cluster.local.", A, "NXDOMAIN"),
        // 2.3.2, ports of a Service
        (
            "_http._tcp.web.default.svc.cluster.local.",
            SRV,
            "SRV 0 100 80 web.default.svc.cluster.local. + \
             web.default.svc.cluster.local. 10.96.0.20, \
             web.default.svc.cluster.local. fd00:10:96::20",
        ),
        (
            "_DNS._Udp.web.default.svc.cluster.local.",
            SRV,
            "SRV 0 100 53 web.default.svc.cluster.local. + \
             web.default.svc.cluster.local. 10.96.0.20, \
             web.default.svc.cluster.local. fd00:10:96::20",
        ),
        ("_http._tcp.web.default.svc.cluster.local.", A, "none"),
        ("_tcp.web.default.svc.cluster.local.", SRV, "none"),
        ("_http._udp.web.default.svc.cluster.local.", SRV, "NXDOMAIN"),
        ("_https._tcp.web.default.svc.cluster.local.", SRV, "NXDOMAIN"),
        ("_http._sctp.web.default.svc.cluster.local.", SRV, "NXDOMAIN"),
        ("http._tcp.web.default.svc.cluster.local.", SRV, "NXDOMAIN"),
        ("x._http._tcp.web.default.svc.cluster.local.", SRV, "NXDOMAIN"),
        ("_._tcp.old.default.svc.cluster.local.", SRV, "NXDOMAIN"),
        ("_tcp.old.default.svc.cluster.local.", SRV, "NXDOMAIN"),
        // 2.3.3, reverse names of ClusterIPs
        ("20.0.96.10.in-addr.arpa.", PTR, "PTR web.default.svc.cluster.local."),
        (
            "0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa.",
            PTR,
            "PTR web.default.svc.cluster.local.",
        ),
        ("20.0.96.10.in-addr.arpa.", A, "none"),
        ("22.0.96.10.in-addr.arpa.", PTR, "NXDOMAIN"),
        ("0.96.10.in-addr.arpa.", PTR, "none"),
        ("1.96.10.in-addr.arpa.", PTR, "NXDOMAIN"),
        ("97.10.in-addr.arpa.", PTR, "none"),
        ("10.in-addr.arpa.", PTR, "elsewhere"),
        ("7.113.0.203.in-addr.arpa.", PTR, "elsewhere"),
        ("256.0.96.10.in-addr.arpa.", PTR, "NXDOMAIN"),
        ("x.20.0.96.10.in-addr.arpa.", PTR, "NXDOMAIN"),
        ("b._dns-sd._udp.0.0.96.10.in-addr.arpa.", PTR, "NXDOMAIN"),
        ("x.7.113.0.203.in-addr.arpa.", PTR, "elsewhere"),
        ("home.arpa.", PTR, "elsewhere"),
        // 2.4.1, addresses of a headless Service, and of its endpoints
        ("db.prod.svc.cluster.local.", A, "A 10.1.0.1, A 10.1.0.2"),
        ("db.prod.svc.cluster.local.", AAAA, "AAAA fd01::1, AAAA fd01::2"),
        ("db-0.db.prod.svc.cluster.local.", A, "A 10.1.0.1"),
        ("db-0.db.prod.svc.cluster.local.", AAAA, "AAAA fd01::1"),
        ("10-1-0-2.db.prod.svc.cluster.local.", A, "A 10.1.0.2"),
        ("10-1-0-2.db.prod.svc.cluster.local.", AAAA, "none"),
        ("10-1-0-1.db.prod.svc.cluster.local.", A, "NXDOMAIN"),
        ("fd01--2.db.prod.svc.cluster.local.", AAAA, "AAAA fd01::2"),
        ("db-1.db.prod.svc.cluster.local.", A, "NXDOMAIN"),
        ("idle.prod.svc.cluster.local.", A, "NXDOMAIN"),
        // 2.4.2, ports of a headless Service
        (
            "_mysql._tcp.db.prod.svc.cluster.local.",
            SRV,
            "SRV 0 33 3306 db-0.db.prod.svc.cluster.local., \
             SRV 0 33 3306 fd01--2.db.prod.svc.cluster.local., \
             SRV 0 33 3307 10-1-0-2.db.prod.svc.cluster.local. + \
             10-1-0-2.db.prod.svc.cluster.local. 10.1.0.2, \
             db-0.db.prod.svc.cluster.local. 10.1.0.1, \
             db-0.db.prod.svc.cluster.local. fd01::1, \
             fd01--2.db.prod.svc.cluster.local. fd01::2",
        ),
        (
            "_admin._tcp.db.prod.svc.cluster.local.",
            SRV,
            "SRV 0 100 33 10-1-0-2.db.prod.svc.cluster.local. + \
             10-1-0-2.db.prod.svc.cluster.local. 10.1.0.2",
        ),
        ("_mysql._tcp.idle.prod.svc.cluster.local.", SRV, "NXDOMAIN"),
        // 2.4.3, reverse names of endpoints
        ("1.0.1.10.in-addr.arpa.", PTR, "PTR db-0.db.prod.svc.cluster.local."),
        ("2.0.1.10.in-addr.arpa.", PTR, "PTR 10-1-0-2.db.prod.svc.cluster.local."),
        ("3.0.1.10.in-addr.arpa.", PTR, "elsewhere"),
        // 2.5, ExternalName
        ("out.prod.svc.cluster.local.", A, "alias db.example.com."),
        ("out.prod.svc.cluster.local.", CNAME, "alias db.example.com."),
        ("_x._tcp.out.prod.svc.cluster.local.", SRV, "NXDOMAIN"),
        // What lies between
        (
            "cluster.local.",
            SOA,
            "SOA ns.dns.cluster.local. hostmaster.cluster.local. 7 7200 1800 86400 5",
        ),
        ("cluster.local.", NS, "NS ns.dns.cluster.local. + ns.dns.cluster.local. 10.96.0.10"),
        ("cluster.local.", A, "none"),
        ("ns.dns.cluster.local.", A, "A 10.96.0.10"),
        ("dns.cluster.local.", A, "none"),
        ("svc.cluster.local.", A, "none"),
        ("default.svc.cluster.local.", A, "none"),
        ("nobody.svc.cluster.local.", A, "NXDOMAIN"),
        ("cluster-local.", A, "elsewhere"),
        ("x.cluster.local.", A, "NXDOMAIN"),
        ("*.cluster.local.", A, "NXDOMAIN"),
        ("*.default.svc.cluster.local.", A, "NXDOMAIN"),
        ("10-1-0-2.prod.pod.cluster.local.", A, "NXDOMAIN"),
        ("local.", SOA, "elsewhere"),
        ("example.com.", A, "elsewhere"),
        (".", NS, "elsewhere"),
    ] {
        assert_eq!(show(ask(&zone, name, asked)), answer, "{name} {asked}");
    }
}

#[test]
fn what_is_not_there_is_said_by_the_zone_that_would_hold_it() {
    let zone = zone();
    for (name, apex) in [
        ("x.default.svc.cluster.local.", "cluster.local."),
        ("22.0.96.10.in-addr.arpa.", "96.10.in-addr.arpa."),
        (
            "1.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa.",
            "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa.",
        ),
    ] {
        let Answer::NoName(soa) = ask(&zone, name, RecordType::PTR) else { panic!("{name}") };
        assert_eq!(soa.name.to_string(), apex);
        assert_eq!((soa.ttl, soa.record_type()), (5, RecordType::SOA));
    }
}

#[test]
fn a_range_smaller_than_the_last_label_has_a_zone_too() {
    let domain: Name = "cluster.local.".parse().expect("a name");
    let mut zone = Zone::new(&domain, 5, vec!["10.0.0.0/28".parse().expect("a range")]);
    let addresses = [address("10.0.0.10")].into();
    let names = Names::Virtual { addresses, ports: Box::default() };
    zone.set(&service("default", "web"), Some(names));
    zone.set_complete();
    for (name, answer) in [
        ("10.0.0.10.in-addr.arpa.", "PTR web.default.svc.cluster.local."),
        ("11.0.0.10.in-addr.arpa.", "NXDOMAIN"),
        ("16.0.0.10.in-addr.arpa.", "elsewhere"),
        ("0.0.10.in-addr.arpa.", "elsewhere"),
    ] {
        assert_eq!(show(ask(&zone, name, RecordType::PTR)), answer, "{name}");
    }
    let Answer::NoName(soa) = ask(&zone, "11.0.0.10.in-addr.arpa.", RecordType::PTR) else {
        panic!("it is not there")
    };
    assert_eq!(soa.name.to_string(), "0.0.10.in-addr.arpa.");
}

#[test]
fn a_name_that_a_source_may_still_bring_is_not_denied() {
    let domain: Name = "cluster.local.".parse().expect("a name");
    let mut zone = Zone::new(&domain, 5, Vec::new());
    let name = "web.default.svc.cluster.local.";
    assert_eq!(show(ask(&zone, name, RecordType::A)), "later");
    assert_eq!(show(ask(&zone, "example.com.", RecordType::A)), "elsewhere");
    zone.set_complete();
    assert_eq!(show(ask(&zone, name, RecordType::A)), "NXDOMAIN");
    zone.incomplete = Some(Instant::now());
    assert_eq!(show(ask(&zone, name, RecordType::A)), "NXDOMAIN", "not for ever");
}

#[test]
fn a_service_that_changes_or_goes_leaves_nothing_behind() {
    let mut zone = zone();
    let web = service("default", "web");
    let addresses = [address("10.96.0.30")].into();
    zone.set(&web, Some(Names::Virtual { addresses, ports: Box::default() }));
    assert_eq!(show(ask(&zone, "web.default.svc.cluster.local.", RecordType::A)), "A 10.96.0.30");
    assert_eq!(show(ask(&zone, "20.0.96.10.in-addr.arpa.", RecordType::PTR)), "NXDOMAIN");
    for key in [
        web,
        service("default", "old"),
        service("prod", "db"),
        service("prod", "idle"),
        service("prod", "out"),
        service("kube-system", "kube-dns"),
    ] {
        zone.set(&key, None);
    }
    assert!(zone.services.is_empty() && zone.reverse.is_empty(), "{zone:?}");
    assert_eq!(show(ask(&zone, "default.svc.cluster.local.", RecordType::A)), "NXDOMAIN");
}

#[test]
fn addresses_stand_in_another_order_each_time() {
    let zone = zone();
    let first = |_| {
        let answer = ask(&zone, "db.prod.svc.cluster.local.", RecordType::A);
        let Answer::Found { records, .. } = answer else { panic!("{answer:?}") };
        records[0].to_string()
    };
    let firsts: BTreeSet<String> = (0..100).map(first).collect();
    assert_eq!(firsts.len(), 2, "{firsts:?}");
}
