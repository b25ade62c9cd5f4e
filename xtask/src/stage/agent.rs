//! The agent on a stage, and the command line that talks to it.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::process::{self, Process};
use super::{Stage, narration};

/// How long the agent may take to load the kernel programs and to answer.
const START: Duration = Duration::from_secs(30);
/// How long it may take to end.
const STOP: Duration = Duration::from_secs(10);

/// A running agent that serves the stage's cgroup only.
pub(crate) struct Agent {
    lb: PathBuf,
    run_dir: PathBuf,
    process: Process,
}

impl Agent {
    /// Starts the agent, and waits until it answers. `adapt` adds options, or says where it runs.
    pub(crate) fn start(
        lb: &Path,
        stage: &Stage,
        adapt: impl FnOnce(&mut Command) -> Result<()>,
    ) -> Result<Self> {
        let log = stage.folder.join("agent.log");
        let output = fs::File::create(&log).context("cannot create the agent's log")?;
        let mut command = Command::new(lb);
        command
            .arg("agent")
            .args(places(stage))
            .args(["--node-name", "node"])
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("cannot share the agent's log")?)
            .stderr(output);
        adapt(&mut command)?;
        narration::command("node", &command);
        let process = Process::spawn(&mut command, "lb agent")?;
        let run_dir = stage.folder.join("run");
        let mut agent = Self { lb: lb.to_owned(), run_dir, process };
        agent.wait_until_ready().context("the agent did not start")?;
        narration::verified("the agent answers");
        Ok(agent)
    }

    /// Runs a client command and shows it with its answer.
    pub(crate) fn lb(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.client(arguments);
        narration::command("node", &command);
        let answer = process::capture(&mut command)?;
        narration::seen(&answer);
        Ok(answer)
    }

    /// Runs a client command whose answer nobody reads.
    pub(crate) fn quietly(&self, arguments: &[&str]) -> Result<()> {
        process::capture(&mut self.client(arguments)).map(drop)
    }

    /// Its process id; an error if it has ended.
    pub(crate) fn id(&mut self) -> Result<u32> {
        self.process.check_running()?;
        Ok(self.process.id())
    }

    /// The first ClusterIP of a Service.
    pub(crate) fn cluster_ip(&self, service: &str) -> Result<IpAddr> {
        let object = self.service(service)?;
        let address = object["spec"]["clusterIP"].as_str().unwrap_or_default();
        address.parse().with_context(|| format!("Service {service} has no ClusterIP: {object}"))
    }

    /// The NodePort of a Service's first port.
    pub(crate) fn node_port(&self, service: &str) -> Result<u16> {
        let object = self.service(service)?;
        let port = object["spec"]["ports"][0]["nodePort"].as_u64();
        port.and_then(|port| port.try_into().ok())
            .with_context(|| format!("Service {service} has no NodePort: {object}"))
    }

    /// What `lb status` tells.
    pub(crate) fn status(&self) -> Result<serde_json::Value> {
        self.json(&["status"])
    }

    fn service(&self, name: &str) -> Result<serde_json::Value> {
        self.json(&["get", "svc", name])
    }

    fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let object = process::capture(self.client(arguments).args(["-o", "json"]))?;
        let words = arguments.join(" ");
        serde_json::from_str(&object)
            .with_context(|| format!("lb {words} -o json gave no JSON: {object}"))
    }

    /// Ends the agent, and undoes what it did to the node.
    pub(crate) fn stop(mut self, stage: &Stage) -> Result<()> {
        println!("node $ kill -TERM <agent>");
        let status = self.process.terminate(STOP)?;
        if !status.success() {
            bail!("the agent ended with {status} after SIGTERM");
        }
        let mut cleanup = Command::new(&self.lb);
        cleanup.arg("cleanup").args(places(stage));
        narration::command("node", &cleanup);
        narration::seen(&process::capture(&mut cleanup)?);
        Ok(())
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.lb);
        command.args(arguments).arg("--run-dir").arg(&self.run_dir);
        command
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            self.process.check_running()?;
            match process::capture(&mut self.client(&["status"])) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => process::pause()?,
            }
        }
    }
}

/// The agent's places, all of them the stage's own.
fn places(stage: &Stage) -> Vec<String> {
    let inside = |name: &str| stage.folder.join(name).display().to_string();
    [
        ("--state-dir", inside("state")),
        ("--run-dir", inside("run")),
        ("--bpffs", inside("bpf")),
        ("--cgroup", stage.cgroup.display().to_string()),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .collect()
}
