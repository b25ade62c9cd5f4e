//! A stage whose agent follows a cluster's API server.

use super::stage::Stage;
use crate::apiserver::{ApiServer, objects};

/// The node that the agent is on.
pub(crate) const NODE: &str = "node-1";

/// The arguments of an agent in a cluster.
const FOLLOW: [&str; 3] = ["--kubernetes", "--node-name", NODE];

/// A shell's words to give a program the folder `$0` where Pods have it. `/run` is emptied for that program
/// alone, as the place need not exist on the machine.
const MOUNT: &str = "place=/var/run/secrets/kubernetes.io/serviceaccount && \
                     mount -t tmpfs lb-e2e /run && mkdir -p $place && mount --bind \"$0\" $place && \
                     exec \"$@\"";

/// A cluster of one node. Its API server is in the node's namespace.
pub(crate) struct Cluster {
    pub(crate) stage: Stage,
    pub(crate) api: ApiServer,
}

impl Cluster {
    /// A cluster with its node and its ranges of ClusterIPs, whose agent is running.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let mut cluster = Self::without_agent();
        cluster.stage.agent.start();
        cluster
    }

    /// The same; the agent has not been started.
    #[track_caller]
    pub(crate) fn without_agent() -> Self {
        let mut stage = Stage::without_agent();
        let api = ApiServer::start(&stage.node);
        api.set(objects::node(NODE, &["10.244.0.1", "fd00:10:244::1"]));
        api.set(objects::service_cidr("kubernetes", &["10.96.0.0/12", "fd00:10:96::/112"]));
        let kubeconfig = api.kubeconfig().display().to_string();
        stage.agent.source = Some(words(&[&FOLLOW[..], &["--kubeconfig", &kubeconfig]].concat()));
        Self { stage, api }
    }

    /// Lets the agent find the server as a Pod does, from its next start on.
    pub(crate) fn as_pod(&mut self) {
        let (folder, server) = (self.api.service_account(), self.api.address);
        let host = format!("KUBERNETES_SERVICE_HOST={}", server.ip());
        let port = format!("KUBERNETES_SERVICE_PORT={}", server.port());
        let folder = folder.display().to_string();
        let agent = &mut self.stage.agent;
        agent.source = Some(words(&FOLLOW));
        agent.launcher =
            words(&["env", &host, &port, "unshare", "--mount", "sh", "-c", MOUNT, &folder]);
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
