//! The story of the ClusterIP tutorial: one server behind a Service, the server replaced, then
//! three of them; then, for a client on another host, a NodePort. Each step shows what is done and what is seen, and checks it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::mariadb::{self, Answer, Server, Servers, Way};
use crate::stage::agent::Agent;
use crate::stage::pod::Pod;
use crate::stage::{NODE, Stage, UPLINK, narration, process};
use crate::workspace;

/// How soon a change must be seen by new connections.
const SOON: Duration = Duration::from_secs(5);
/// Queries over three servers. That one of them gets none by chance: once in 10¹⁰ runs.
const QUERIES: usize = 60;

/// Everybody on the stage. The order is that in which they leave it.
struct Cast {
    servers: Vec<Server>,
    agent: Option<Agent>,
    mariadb: Servers,
    client: Pod,
    /// A host that is no node.
    elsewhere: Pod,
    /// Where the agent runs.
    node: Pod,
    stage: Stage,
}

/// Tells the story; an error if anything is not as told.
pub(super) fn tell(lb: &Path) -> Result<()> {
    narration::step("The stage: a network, a cgroup and a client of the demo's own");
    let mut cast = Cast::enter()?;
    let told = cast.play(lb);
    if told.is_err() {
        let log = process::tail(&cast.stage.folder.join("agent.log"), 20);
        eprintln!("\nthe story breaks off; the end of the agent's log:\n{log}");
    }
    told
}

impl Cast {
    fn enter() -> Result<Self> {
        let stage = Stage::set_up("lb-demo")?;
        let node = stage.add_pod("node", 1)?;
        let client = stage.add_pod("client", 100)?;
        let elsewhere = stage.add_host("elsewhere", &node)?;
        stage.route_to_hosts(&client, &node)?;
        let mariadb = Servers::prepare(&stage)?;
        narration::verified(&format!(
            "pod client at {}, with routes to pods and to the node, and to nothing else",
            client.address
        ));
        narration::verified(&format!(
            "host elsewhere at {}, with a route to the node and to nothing else",
            elsewhere.address
        ));
        Ok(Self { servers: Vec::new(), agent: None, mariadb, client, elsewhere, node, stage })
    }

    fn play(&mut self, lb: &Path) -> Result<()> {
        narration::step(
            "The agent attaches to the demo's cgroup, and to the node's device to other hosts",
        );
        let node = self.node.clone();
        self.agent = Some(Agent::start(lb, &self.stage, |command| {
            command.args(["--device", UPLINK]);
            node.place(command)
        })?);
        self.agent()?.lb(&["resolv-conf", "--netns", &self.client.netns()])?;

        narration::step("A Service, and one pod behind it");
        let first = self.start_server("mysql-1", 11)?;
        self.apply_service("mysql.yaml")?;
        self.apply_pod(&first)?;
        let vip = self.agent()?.cluster_ip("mysql")?.to_string();
        let (by_address, by_name) = (self.way(&vip), self.way("mysql"));
        self.agent()?.lb(&["get", "svc"])?;
        self.agent()?.lb(&["get", "pods", "-o", "wide"])?;
        self.expect_answer_from(&by_address, &first)?;
        self.expect_answer_from(&by_name, &first)?;

        narration::step("The pod is replaced by one with another address");
        let second = self.start_server("mysql-1", 21)?;
        self.apply_pod(&second)?;
        drop(self.servers.remove(0));
        narration::verified(&format!("the server at {} is gone", first.address));
        self.expect_answer_from(&by_name, &second)?;
        self.expect_same_cluster_ip(&vip)?;

        narration::step("Three replicas");
        let mut replicas = vec![second];
        for (name, id) in [("mysql-2", 22), ("mysql-3", 23)] {
            let replica = self.start_server(name, id)?;
            self.apply_pod(&replica)?;
            replicas.push(replica);
        }
        self.agent()?.lb(&["get", "endpointslices"])?;
        self.expect_spread(&by_name, &replicas)?;

        narration::step("A NodePort, for a client on another host");
        self.apply_service("mysql-nodeport.yaml")?;
        self.agent()?.lb(&["get", "svc"])?;
        self.expect_same_cluster_ip(&vip)?;
        let by_port = self.way_from_elsewhere()?;
        self.expect_spread(&by_port, &replicas)?;

        narration::step("The node is left as it was");
        let agent = self.agent.take().context("the agent runs")?;
        agent.stop(&self.stage)?;
        self.expect_no_mount()?;
        self.expect_silence(&by_address)?;
        self.expect_silence(&by_name)?;
        self.expect_silence(&by_port)
    }

    fn agent(&self) -> Result<&Agent> {
        self.agent.as_ref().context("the agent does not run")
    }

    fn way(&self, host: &str) -> Way {
        Way::new(&self.client, host)
    }

    /// By the node's address and the NodePort.
    fn way_from_elsewhere(&self) -> Result<Way> {
        let way = Way::new(&self.elsewhere, &NODE.to_string());
        Ok(Way { port: Some(self.agent()?.node_port("mysql")?), ..way })
    }

    fn start_server(&mut self, name: &str, id: u8) -> Result<Pod> {
        let pod = self.stage.add_pod(name, id)?;
        self.stage.route_to_hosts(&pod, &self.node)?;
        self.servers.push(self.mariadb.start(&pod, &self.client)?);
        Ok(pod)
    }

    fn apply_service(&self, example: &str) -> Result<()> {
        let example = workspace::root().join("examples").join(example);
        let manifest = fs::read_to_string(&example)
            .with_context(|| format!("cannot read {}", example.display()))?;
        self.apply("service.yaml", &manifest)
    }

    fn apply_pod(&self, pod: &Pod) -> Result<()> {
        self.apply(&format!("{}.yaml", pod.name), &mariadb::manifest(pod))
    }

    fn apply(&self, file: &str, manifest: &str) -> Result<()> {
        let file = self.stage.folder.join(file);
        fs::write(&file, manifest).with_context(|| format!("cannot write {}", file.display()))?;
        narration::seen(manifest);
        self.agent()?.lb(&["apply", "-f", &file.display().to_string()])?;
        Ok(())
    }

    fn expect_answer_from(&self, way: &Way, pod: &Pod) -> Result<()> {
        narration::command(&way.client.name, &way.query());
        let expected = Answer { hostname: pod.name.clone(), address: pod.address.to_string() };
        let deadline = Instant::now() + SOON;
        loop {
            match way.ask() {
                Ok(answer) if answer == expected => break,
                Ok(answer) if Instant::now() >= deadline => {
                    bail!("{way} should be answered by {expected:?}, but was by {answer:?}")
                }
                Err(error) if Instant::now() >= deadline => {
                    return Err(error).with_context(|| format!("no answer through {way}"));
                }
                Ok(_) | Err(_) => process::pause()?,
            }
        }
        narration::seen(&format!("{}\t{}", expected.hostname, expected.address));
        narration::verified(&format!("the server at {} answers through {way}", pod.address));
        Ok(())
    }

    fn expect_same_cluster_ip(&self, vip: &str) -> Result<()> {
        let now = self.agent()?.cluster_ip("mysql")?.to_string();
        if now != vip {
            bail!("the ClusterIP changed from {vip} to {now}");
        }
        narration::verified(&format!("the ClusterIP is still {vip}"));
        Ok(())
    }

    fn expect_spread(&self, way: &Way, replicas: &[Pod]) -> Result<()> {
        narration::command(&way.client.name, &way.query());
        let mut counts: BTreeMap<Answer, usize> = BTreeMap::new();
        for number in 1..=QUERIES {
            let answer =
                way.ask().with_context(|| format!("query {number} of {QUERIES} through {way}"))?;
            *counts.entry(answer).or_default() += 1;
        }
        println!("    … {QUERIES} times:");
        for (answer, count) in &counts {
            println!("    {:<10} {:<14} {count:>3}", answer.hostname, answer.address);
        }
        let answered: Vec<&str> = counts.keys().map(|answer| answer.address.as_str()).collect();
        let expected: Vec<String> = replicas.iter().map(|pod| pod.address.to_string()).collect();
        if answered != expected {
            bail!("{expected:?} should have answered, and {answered:?} did");
        }
        narration::verified(&format!("all {} servers answer through {way}", replicas.len()));
        Ok(())
    }

    /// The agent had mounted a BPF file system for its maps and programs.
    fn expect_no_mount(&self) -> Result<()> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read mountinfo")?;
        let folder = self.stage.folder.display().to_string();
        if let Some(mount) = mounts.lines().find(|line| line.contains(&folder)) {
            bail!("lb cleanup left this mount: {mount}");
        }
        narration::verified("no program, map or mount of lb is left");
        Ok(())
    }

    fn expect_silence(&self, way: &Way) -> Result<()> {
        narration::command(&way.client.name, &way.query());
        match way.ask() {
            Ok(answer) => bail!("{way} still reaches {answer:?} after lb cleanup"),
            Err(error) => narration::seen(&format!("{error:#}")),
        }
        narration::verified(&format!("{way} means nothing any more"));
        Ok(())
    }
}
