//! `lb status`: what the agent does, and what it could not do, on one screen.

mod devices;

use std::io::Write;

use anyhow::Result;
use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::Done;
use super::age::age;
use super::args::RunDirArg;
use super::output::{self, Out};
use super::table::Table;
use crate::api::types::{RefusedObject, SourceStatus, Status};
use crate::datapath::{self, TakingOver};
use crate::dns::UpstreamState;
use crate::flows;
use crate::health;
use crate::sockets;

#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    /// Another form than the screen
    #[arg(short, long, value_enum)]
    output: Option<Machine>,
    #[command(flatten)]
    run_dir: RunDirArg,
}

/// Forms that programs read.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Machine {
    Json,
    Yaml,
}

/// Prints a value in the form that was asked for.
pub(super) fn print_machine(
    value: &impl serde::Serialize,
    form: Machine,
    out: &mut Out,
) -> Result<()> {
    match form {
        Machine::Json => output::print_json(out, value),
        Machine::Yaml => output::print_yaml(out, value),
    }
}

pub(super) async fn run(args: StatusArgs, out: &mut Out) -> Done {
    let status = args.run_dir.client().status().await?;
    match args.output {
        Some(form) => print_machine(&status, form, out)?,
        None => print(&status, Timestamp::now(), out)?,
    }
    Ok(true)
}

fn print(status: &Status, now: Timestamp, out: &mut Out) -> Result<()> {
    summary(status, now, out)?;
    refused(status, out)?;
    limits(status, out)?;
    maps(status, out)?;
    counters(status, out)
}

fn summary(status: &Status, now: Timestamp, out: &mut Out) -> Result<()> {
    let agent = &status.agent;
    let counts = &status.objects;
    let started = age(agent.started.parse().ok(), now);
    let mut line = |label: &str, text: String| writeln!(out, "{label:<16}{text}");
    line("Agent:", format!("lb {}, pid {}, running for {started}", agent.version, agent.pid))?;
    line("Node:", agent.node.clone())?;
    line("Service CIDR:", service_cidrs(&agent.service_cidrs))?;
    let addresses: Vec<_> = agent.node_port_addresses.iter().map(ToString::to_string).collect();
    line(
        "NodePorts on:",
        if addresses.is_empty() { "no address".to_owned() } else { addresses.join(", ") },
    )?;
    line(
        "Objects:",
        format!(
            "{}, {}, {}",
            counted(counts.services, "service"),
            counted(counts.pods, "pod"),
            counted(counts.endpoint_slices, "endpointslice")
        ),
    )?;
    for (n, text) in names_lines(status).into_iter().enumerate() {
        line(if n == 0 { "Names:" } else { "" }, text)?;
    }
    for (n, text) in health_lines(&status.health_checks).into_iter().enumerate() {
        line(if n == 0 { "Health checks:" } else { "" }, text)?;
    }
    for (n, source) in status.sources.iter().enumerate() {
        line(if n == 0 { "Sources:" } else { "" }, source_line(source))?;
    }
    let programs = &status.datapath.programs;
    let place =
        programs.first().map(|program| format!(", attached to {}", program.cgroup.display()));
    line("Programs:", format!("{}{}", programs.len(), place.unwrap_or_default()))?;
    for (n, text) in devices::lines(status.datapath.devices.as_ref()).into_iter().enumerate() {
        line(if n == 0 { "Devices:" } else { "" }, text)?;
    }
    line("Maps:", layout_line(&status.datapath))?;
    for former in &status.datapath.former_layouts {
        let sockets = usize::try_from(former.sockets).unwrap_or(usize::MAX);
        line("", format!("{}, kept for {}", former.layout, counted(sockets, "socket")))?;
    }
    if let Some(test) = &status.datapath.self_test {
        let error = test.error.as_ref().map(|error| format!("failed: {error}"));
        line("Self-test:", error.unwrap_or_else(|| "ok".to_owned()))?;
    }
    if let Some(ports) = &status.datapath.snat_ports {
        line("SNAT ports:", ports.clone())?;
    }
    for (n, cgroup) in status.datapath.exempt.iter().enumerate() {
        let absent = if cgroup.id.is_none() { " (does not exist yet)" } else { "" };
        let label = if n == 0 { "Left alone:" } else { "" };
        line(label, format!("{}{absent}", cgroup.path.display()))?;
    }
    for (n, text) in socket_lines(&status.sockets, now).into_iter().enumerate() {
        line(if n == 0 { "Sockets:" } else { "" }, text)?;
    }
    for (n, text) in flow_lines(&status.flows, now).into_iter().enumerate() {
        line(if n == 0 { "Flows:" } else { "" }, text)?;
    }
    Ok(())
}

fn service_cidrs(ranges: &[String]) -> String {
    if ranges.is_empty() {
        return "none known; addresses without a Service are let pass".to_owned();
    }
    ranges.join(", ")
}

fn names_lines(status: &Status) -> Vec<String> {
    let Some(dns) = &status.dns else {
        if status.agent.kubernetes {
            return vec!["left to the cluster's DNS".to_owned()];
        }
        return vec!["not answered (--no-dns)".to_owned()];
    };
    let list = |all: &[String]| all.join(", ");
    let vips: Vec<_> = dns.cluster_ips.iter().map(ToString::to_string).collect();
    let at = if vips.is_empty() { "no ClusterIP".to_owned() } else { list(&vips) };
    let listeners: Vec<_> = dns.listeners.iter().map(ToString::to_string).collect();
    let mut counts = format!("{} answered", dns.answered);
    if dns.failed > 0 {
        counts += &format!(", {} of them by SERVFAIL", dns.failed);
    }
    if dns.refused > 0 {
        counts += &format!(", {} REFUSED (--dns-allow)", dns.refused);
    }
    let by_way = if listeners.is_empty() { "no listener".to_owned() } else { list(&listeners) };
    let mut lines = vec![format!("{} at {at}, by way of {by_way}", dns.domain), counts];
    lines.extend(dns.elsewhere.problem.iter().map(|why| format!("elsewhere: {why}")));
    lines.extend(dns.elsewhere.upstreams.iter().map(|upstream| {
        let state = match &upstream.state {
            UpstreamState::Untried => "not asked yet".to_owned(),
            UpstreamState::Answers => "answers".to_owned(),
            UpstreamState::Refuses(why) => format!("refuses: {why}"),
            UpstreamState::Silent(why) => format!("silent: {why}"),
            UpstreamState::Own => "not used: it is this server".to_owned(),
            UpstreamState::Loops => "not used: its questions come back here".to_owned(),
        };
        format!("elsewhere from {}: {state}", upstream.address)
    }));
    lines
}

/// Nothing, where nobody asks.
fn health_lines(status: &health::Status) -> Vec<String> {
    let health::Status { ports, problems } = status;
    let count = (*ports > 0).then(|| format!("at {}", counted(*ports, "port")));
    count.into_iter().chain(problems.iter().cloned()).collect()
}

fn layout_line(status: &datapath::Status) -> String {
    let layout = &status.layout;
    match &status.taking_over {
        None => layout.clone(),
        Some(TakingOver { layout: from, error: None }) => format!(
            "{layout}, taking over from another layout: {from} serves on until every source has \
             been read"
        ),
        Some(TakingOver { layout: from, error: Some(error) }) => {
            format!("{layout}, cannot take over from {from}, which serves on: {error}")
        }
    }
}

fn socket_lines(sockets: &sockets::Status, now: Timestamp) -> Vec<String> {
    let sockets::Status { closed_tcp, closed_udp, failed, reclaimed, last_sweep, problems } =
        sockets;
    let mut counts = format!("{closed_tcp} TCP and {closed_udp} UDP closed");
    if *failed > 0 {
        counts += &format!(", {failed} could not be");
    }
    if *reclaimed > 0 {
        counts += &format!(", {reclaimed} slots of closed ones freed");
    }
    if let Some(last) = last_sweep {
        counts += &format!("; looked at {} ago", age(last.parse().ok(), now));
    }
    let mut lines = vec![counts];
    lines.extend(problems.iter().map(|problem| format!("not looked at: {problem}")));
    lines
}

fn flow_lines(flows: &flows::Status, now: Timestamp) -> Vec<String> {
    let flows::Status { established, opening, closed, udp, .. } = flows;
    let mut counts =
        format!("{established} established, {opening} opening, {closed} closed, {udp} UDP");
    if let Some(last) = &flows.last_sweep {
        counts += &format!("; looked at {} ago", age(last.parse().ok(), now));
    }
    let mut lines = vec![counts];
    if flows.collected > 0 {
        lines.push(format!(
            "{} collected, {} before their time",
            flows.collected, flows.collected_early
        ));
    }
    if flows.refused > 0 {
        lines.push(format!("{} refused for lack of room (--map-size FLOWS=)", flows.refused));
    }
    lines.extend(flows.problem.iter().map(|problem| format!("not collected: {problem}")));
    lines
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn source_line(source: &SourceStatus) -> String {
    let path = source.path.as_ref().map(|path| format!(" {}", path.display()));
    let state = match (&source.error, source.synced) {
        (Some(error), _) => format!(": {error}"),
        (None, false) => ": being read".to_owned(),
        (None, true) => String::new(),
    };
    format!("{}{}{state}", source.kind, path.unwrap_or_default())
}

fn refused(status: &Status, out: &mut Out) -> Result<()> {
    if status.refused.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nNot served:")?;
    for RefusedObject { source, object, namespace, message } in &status.refused {
        // Messages about manifests name place and object themselves.
        if source.is_empty() || message.starts_with(source) {
            writeln!(out, "  {message}")?;
        } else {
            writeln!(out, "  {object} in namespace {namespace} (from {source}): {message}")?;
        }
    }
    Ok(())
}

fn limits(status: &Status, out: &mut Out) -> Result<()> {
    if status.datapath.limits.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nLimits of this node:")?;
    for limit in &status.datapath.limits {
        writeln!(out, "  {limit}")?;
    }
    Ok(())
}

fn maps(status: &Status, out: &mut Out) -> Result<()> {
    if status.datapath.maps.is_empty() {
        return Ok(());
    }
    let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
    let mut rows = vec![row(["MAP", "USED", "CAPACITY", "FULL"])];
    for map in &status.datapath.maps {
        let percent = map.used.saturating_mul(100).checked_div(map.capacity).unwrap_or(0);
        rows.push(row([
            &map.name,
            &map.used.to_string(),
            &map.capacity.to_string(),
            &format!("{percent}%"),
        ]));
    }
    writeln!(out)?;
    Table::default().print(out, &rows)
}

fn counters(status: &Status, out: &mut Out) -> Result<()> {
    let mut rows = vec![["OPERATION", "RESULT", "COUNT"].map(str::to_owned).to_vec()];
    for (operation, reasons) in &status.datapath.counters {
        let counted = reasons.iter().filter(|&(_, &count)| count > 0);
        rows.extend(
            counted
                .map(|(reason, count)| vec![operation.clone(), reason.clone(), count.to_string()]),
        );
    }
    if rows.len() == 1 {
        return Ok(());
    }
    writeln!(out)?;
    Table::default().print(out, &rows)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::types::{AgentStatus, ObjectCounts};
    use crate::cli::output::tests::Captured;
    use crate::datapath::{FormerLayout, MapStatus, ProgramStatus, SelfTest};
    use crate::dns;

    fn status() -> Status {
        Status {
            agent: AgentStatus {
                version: "0.1.0".into(),
                pid: 7,
                node: "n1".into(),
                started: "2026-11-22T11:00:00Z".into(),
                kubernetes: false,
                service_cidrs: vec!["10.96.0.0/12".into()],
                cluster_domain: "cluster.local".into(),
                node_port_addresses: ["10.0.0.1", "::1"]
                    .map(|ip| ip.parse().expect("an address"))
                    .into(),
            },
            datapath: datapath::Status {
                programs: vec![ProgramStatus {
                    name: "connect4".into(),
                    id: 3,
                    cgroup: "/sys/fs/cgroup".into(),
                }],
                layout: "maps-2".into(),
                taking_over: Some(TakingOver { layout: "maps-1".into(), error: None }),
                former_layouts: vec![FormerLayout { layout: "maps-0".into(), sockets: 1 }],
                self_test: Some(SelfTest { ok: true, error: None }),
                maps: vec![MapStatus { name: "FRONTENDS".into(), used: 50, capacity: 200 }],
                counters: BTreeMap::from([(
                    "connect".into(),
                    BTreeMap::from([("translated".into(), 5), ("refused".into(), 0)]),
                )]),
                limits: vec!["refusals show as EPERM".into()],
                exempt: Vec::new(),
                devices: None,
                snat_ports: Some("49152-65535".into()),
            },
            sockets: sockets::Status {
                closed_udp: 3,
                reclaimed: 2,
                last_sweep: Some("2026-11-22T11:59:30Z".into()),
                ..sockets::Status::default()
            },
            flows: flows::Status {
                established: 4,
                opening: 1,
                udp: 2,
                collected: 70,
                collected_early: 3,
                refused: 9,
                last_sweep: Some("2026-11-22T11:59:57Z".into()),
                ..flows::Status::default()
            },
            dns: Some(dns::Status {
                domain: "cluster.local".into(),
                cluster_ips: vec!["10.96.0.10".parse().expect("an address")],
                listeners: vec!["10.0.0.1:5353".parse().expect("an address")],
                elsewhere: dns::ForwardStatus {
                    problem: None,
                    upstreams: vec![dns::UpstreamStatus {
                        address: "9.9.9.9:53".parse().expect("an address"),
                        state: UpstreamState::Silent("timed out".into()),
                    }],
                },
                answered: 12,
                failed: 2,
                refused: 1,
            }),
            health_checks: health::Status {
                ports: 2,
                problems: vec!["health checks are not answered".into()],
            },
            sources: vec![SourceStatus {
                kind: "manifests".into(),
                path: Some("/etc/lb".into()),
                synced: false,
                error: Some("no such folder".into()),
            }],
            refused: vec![
                RefusedObject {
                    source: "a.yaml:3".into(),
                    object: "service/a".into(),
                    namespace: "default".into(),
                    message: "a.yaml:3: Service \"a\" is invalid".into(),
                },
                RefusedObject {
                    source: "lb apply".into(),
                    object: "service/b".into(),
                    namespace: "default".into(),
                    message: "map RUNS is full".into(),
                },
            ],
            objects: ObjectCounts { services: 1, pods: 2, endpoint_slices: 0 },
        }
    }

    #[test]
    fn one_screen_says_what_runs_and_what_does_not() {
        let captured = Captured::default();
        let now = "2026-11-22T12:00:00Z".parse().expect("a time");
        print(&status(), now, &mut captured.out()).expect("printed");
        assert_eq!(
            captured.text(),
            "Agent:          lb 0.1.0, pid 7, running for 60m\n\
             Node:           n1\n\
             Service CIDR:   10.96.0.0/12\n\
             NodePorts on:   10.0.0.1, ::1\n\
             Objects:        1 service, 2 pods, 0 endpointslices\n\
             Names:          cluster.local at 10.96.0.10, by way of 10.0.0.1:5353\n\
             \u{20}               12 answered, 2 of them by SERVFAIL, 1 REFUSED (--dns-allow)\n\
             \u{20}               elsewhere from 9.9.9.9:53: silent: timed out\n\
             Health checks:  at 2 ports\n\
             \u{20}               health checks are not answered\n\
             Sources:        manifests /etc/lb: no such folder\n\
             Programs:       1, attached to /sys/fs/cgroup\n\
             Devices:        none (--no-packet-path)\n\
             Maps:           maps-2, taking over from another layout: maps-1 serves on until every \
             source has been read\n\
             \u{20}               maps-0, kept for 1 socket\n\
             Self-test:      ok\n\
             SNAT ports:     49152-65535\n\
             Sockets:        0 TCP and 3 UDP closed, 2 slots of closed ones freed; looked at 30s ago\n\
             Flows:          4 established, 1 opening, 0 closed, 2 UDP; looked at 3s ago\n\
             \u{20}               70 collected, 3 before their time\n\
             \u{20}               9 refused for lack of room (--map-size FLOWS=)\n\
             \n\
             Not served:\n\
             \u{20} a.yaml:3: Service \"a\" is invalid\n\
             \u{20} service/b in namespace default (from lb apply): map RUNS is full\n\
             \n\
             Limits of this node:\n\
             \u{20} refusals show as EPERM\n\
             \n\
             MAP         USED   CAPACITY   FULL\n\
             FRONTENDS   50     200        25%\n\
             \n\
             OPERATION   RESULT       COUNT\n\
             connect     translated   5\n"
        );
    }

    #[test]
    fn programs_get_the_status_as_it_is() {
        let captured = Captured::default();
        print_machine(&status(), Machine::Json, &mut captured.out()).expect("printed");
        let back: Status = serde_json::from_str(&captured.text()).expect("a status");
        assert_eq!(back.objects, status().objects);
    }
}
