//! lb's agent in the node.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Service, TO_BACKEND, TO_CLIENT};
use crate::stage::Stage;
use crate::stage::agent::Agent;
use crate::stage::pod::Pod;
use crate::stage::process;

/// Starts an agent that serves these Services to what comes by the node's devices.
pub(super) fn start(
    binary: &Path,
    stage: &Stage,
    node: &Pod,
    services: &[Service],
) -> Result<Agent> {
    let agent = Agent::start(binary, stage, |command| {
        command.args(["--device", TO_CLIENT, "--device", TO_BACKEND, "--no-dns"]);
        process::prefer(command);
        node.place(command)
    })
    .with_context(|| {
        let log = process::tail(&stage.folder.join("agent.log"), 10);
        format!("the end of the agent's log:\n{log}")
    })?;
    let manifests: Vec<String> = services.iter().map(Service::manifest).collect();
    let file = stage.folder.join("services.yaml");
    fs::write(&file, manifests.join("---\n"))
        .with_context(|| format!("cannot write {}", file.display()))?;
    agent.quietly(&["apply", "-f", &file.display().to_string()])?;
    Ok(agent)
}

/// How many flows its programs have made.
pub(super) fn translated(agent: &Agent) -> Result<u64> {
    let status = agent.status()?;
    // Until there is a flow, the counter is not shown.
    Ok(status["datapath"]["counters"]["ingress"]["translated"].as_u64().unwrap_or_default())
}
