//! `lb describe svc`: one Service with its endpoints, as kubectl lays it out.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::{Result, bail};
use clap::Args;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Done;
use super::args::{RunDirArg, Target, not_found, parse_targets};
use super::columns::{host_port, labels, read, some_of};
use super::get::Scope;
use super::output::Out;
use crate::object::Kind;
use crate::store::model::SERVICE_NAME_LABEL;

#[derive(Args, Debug)]
pub(super) struct DescribeArgs {
    /// svc [NAME…], or svc/NAME…
    #[arg(required = true, value_name = "KIND NAME")]
    objects: Vec<String>,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    run_dir: RunDirArg,
}

pub(super) async fn run(args: DescribeArgs, out: &mut Out) -> Done {
    let client = args.run_dir.client();
    let mut done = true;
    let mut first = true;
    for Target { kind, name } in parse_targets(&args.objects)? {
        if kind != Kind::Service {
            bail!(
                "lb describes services; lb get {} -o yaml shows everything about others",
                kind.plural()
            );
        }
        let services = client.list(kind, args.scope.namespace(kind), name.as_deref()).await?;
        if let (Some(name), true) = (&name, services.is_empty()) {
            out.flush()?;
            writeln!(io::stderr(), "{}", not_found(kind, name))?;
            done = false;
        }
        for service in &services {
            let service: Service = read(service)?;
            let namespace = service.metadata.namespace.as_deref();
            let slices = client.list(Kind::EndpointSlice, namespace, None).await?;
            let slices =
                slices.iter().map(|slice| read(slice)).collect::<Result<Vec<EndpointSlice>>>()?;
            if !std::mem::take(&mut first) {
                write!(out, "\n\n")?;
            }
            print(&describe(&service, &slices), out)?;
        }
    }
    Ok(done)
}

type Line = (&'static str, String);

/// The lines of one Service; an empty label continues the line above.
fn describe(service: &Service, slices: &[EndpointSlice]) -> Vec<Line> {
    let metadata = &service.metadata;
    let spec = service.spec.clone().unwrap_or_default();
    let mut lines = vec![
        ("Name", metadata.name.clone().unwrap_or_default()),
        ("Namespace", metadata.namespace.clone().unwrap_or_default()),
    ];
    lines.extend(pairs("Labels", metadata.labels.as_ref(), "="));
    lines.extend(pairs("Annotations", metadata.annotations.as_ref(), ": "));
    lines.push(("Selector", labels(spec.selector.as_ref())));
    lines.push(("Type", spec.type_.clone().unwrap_or_else(|| "ClusterIP".to_owned())));
    lines.extend(addresses(service, &spec));
    for port in spec.ports.iter().flatten() {
        lines.extend(port_lines(service, port, slices));
    }
    let affinity = spec.session_affinity.unwrap_or_else(|| "None".to_owned());
    lines.push(("Session Affinity", affinity));
    let optional = [
        ("External Traffic Policy", spec.external_traffic_policy),
        ("Internal Traffic Policy", spec.internal_traffic_policy),
        ("Traffic Distribution", spec.traffic_distribution),
        ("HealthCheck NodePort", spec.health_check_node_port.map(|port| port.to_string())),
        (
            "LoadBalancer Source Ranges",
            spec.load_balancer_source_ranges.map(|ranges| ranges.join(",")),
        ),
    ];
    lines.extend(optional.into_iter().filter_map(|(label, value)| Some((label, value?))));
    lines
}

fn addresses(service: &Service, spec: &ServiceSpec) -> Vec<Line> {
    let joined = |list: Option<&Vec<String>>| {
        list.filter(|list| !list.is_empty()).map(|list| list.join(","))
    };
    let none = || "<none>".to_owned();
    let ingress = service.status.iter().filter_map(|status| status.load_balancer.as_ref());
    let ingress: Vec<_> = ingress
        .flat_map(|balancer| balancer.ingress.iter().flatten())
        .filter_map(|one| match (&one.ip, &one.ip_mode) {
            (Some(ip), Some(mode)) => Some(format!("{ip} ({mode})")),
            (Some(ip), None) => Some(ip.clone()),
            (None, _) => one.hostname.clone(),
        })
        .collect();
    let lines = [
        ("IP Family Policy", spec.ip_family_policy.clone()),
        ("IP Families", Some(joined(spec.ip_families.as_ref()).unwrap_or_else(none))),
        ("IP", Some(spec.cluster_ip.clone().unwrap_or_default())),
        ("IPs", Some(joined(spec.cluster_ips.as_ref()).unwrap_or_else(none))),
        ("External IPs", joined(spec.external_ips.as_ref())),
        ("Desired LoadBalancer IP", spec.load_balancer_ip.clone()),
        ("External Name", spec.external_name.clone()),
        ("LoadBalancer Ingress", (!ingress.is_empty()).then(|| ingress.join(", "))),
    ];
    lines.into_iter().filter_map(|(label, value)| Some((label, value?))).collect()
}

fn port_lines(service: &Service, port: &ServicePort, slices: &[EndpointSlice]) -> Vec<Line> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let name = port.name.as_deref().filter(|name| !name.is_empty()).unwrap_or("<unset>");
    let target = match &port.target_port {
        Some(IntOrString::Int(number)) => number.to_string(),
        Some(IntOrString::String(name)) => name.clone(),
        None => port.port.to_string(),
    };
    let mut lines = vec![
        ("Port", format!("{name}  {}/{protocol}", port.port)),
        ("TargetPort", format!("{target}/{protocol}")),
    ];
    if let Some(node_port) = port.node_port.filter(|&port| port != 0) {
        lines.push(("NodePort", format!("{name}  {node_port}/{protocol}")));
    }
    lines.push(("Endpoints", endpoints(service, port, slices)));
    lines
}

/// The ready endpoints of one port of the Service.
fn endpoints(service: &Service, port: &ServicePort, slices: &[EndpointSlice]) -> String {
    let own = slices.iter().filter(|slice| {
        let labels = slice.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(SERVICE_NAME_LABEL)) == service.metadata.name.as_ref()
    });
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let mut found = Vec::new();
    for slice in own {
        let ports = slice.ports.iter().flatten().filter(|p| name(&p.name) == name(&port.name));
        for number in ports.filter_map(|port| port.port) {
            let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
                endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
            });
            found.extend(
                ready.flat_map(|e| e.addresses.iter().map(move |ip| host_port(ip, number))),
            );
        }
    }
    some_of(found.into_iter(), "")
}

fn pairs(label: &'static str, map: Option<&BTreeMap<String, String>>, between: &str) -> Vec<Line> {
    let mut lines: Vec<_> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| ("", format!("{key}{between}{value}")))
        .collect();
    match lines.first_mut() {
        Some(first) => first.0 = label,
        None => lines.push((label, "<none>".to_owned())),
    }
    lines
}

fn print(lines: &[Line], out: &mut Out) -> Result<()> {
    let width = lines.iter().map(|(label, _)| label.len()).max().unwrap_or_default() + 3;
    for (label, value) in lines {
        let label = if label.is_empty() { String::new() } else { format!("{label}:") };
        writeln!(out, "{}", format!("{label:<width$}{value}").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::output::tests::Captured;

    #[test]
    fn a_service_is_described_as_by_kubectl() {
        let service = json!({
            "metadata": {"name": "mysql", "namespace": "default", "labels": {"a": "1", "b": "2"}},
            "spec": {
                "selector": {"app": "mysql"}, "type": "ClusterIP",
                "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"],
                "clusterIP": "10.96.10.1", "clusterIPs": ["10.96.10.1"],
                "ports": [{"port": 3306, "protocol": "TCP", "targetPort": 3306}],
                "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            },
        });
        let slice = |service: &str| {
            json!({
                "metadata": {"name": "x", "labels": {SERVICE_NAME_LABEL: service}}, "addressType": "IPv4",
                "ports": [{"name": "", "port": 3306}],
                "endpoints": [
                    {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                    {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                    {"addresses": ["10.0.0.3"]},
                ],
            })
        };
        let slices = [slice("mysql"), slice("other")].map(|slice| read(&slice).expect("a slice"));
        let captured = Captured::default();
        let service = read(&service).expect("a Service");
        print(&describe(&service, &slices), &mut captured.out()).expect("printed");
        assert_eq!(
            captured.text(),
            "Name:                     mysql\n\
             Namespace:                default\n\
             Labels:                   a=1\n\
             \u{20}                         b=2\n\
             Annotations:              <none>\n\
             Selector:                 app=mysql\n\
             Type:                     ClusterIP\n\
             IP Family Policy:         SingleStack\n\
             IP Families:              IPv4\n\
             IP:                       10.96.10.1\n\
             IPs:                      10.96.10.1\n\
             Port:                     <unset>  3306/TCP\n\
             TargetPort:               3306/TCP\n\
             Endpoints:                10.0.0.1:3306,10.0.0.3:3306\n\
             Session Affinity:         None\n\
             Internal Traffic Policy:  Cluster\n"
        );
    }
}
