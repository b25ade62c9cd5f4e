//! Real SQL servers and clients in pods.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::stage::pod::Pod;
use crate::stage::process::{self, Process};
use crate::stage::{Stage, narration};
use crate::workspace;

/// How long a server may take to start, on a slow disk too.
const START: Duration = Duration::from_secs(60);

/// The least a server needs here; each starts in a fraction of a second.
const SMALL: [&str; 4] = [
    "--innodb-buffer-pool-size=8M",
    "--innodb-log-file-size=4M",
    "--performance-schema=OFF",
    "--skip-name-resolve",
];

/// Makes servers: the data folder is filled once, and copied for each.
pub(super) struct Servers {
    folder: PathBuf,
}

impl Servers {
    /// Fills the data folder.
    pub(super) fn prepare(stage: &Stage) -> Result<Self> {
        let folder = stage.folder.clone();
        let mut install = Command::new("mariadb-install-db");
        install
            .args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal"])
            .args(["--skip-test-db", "--innodb-log-file-size=4M", "--skip-name-resolve"])
            // Or it refuses a machine that cannot look up its own name.
            .arg("--force")
            .arg(format!("--datadir={}", folder.join("template").display()));
        process::capture(&mut install).context("cannot fill a data folder for MariaDB")?;
        fs::write(folder.join("users.sql"), "CREATE USER IF NOT EXISTS 'demo'@'%';\n")
            .context("cannot write users.sql")?;
        Ok(Self { folder })
    }

    /// Starts a server in a pod, and waits until `client` gets an answer at the pod's address.
    pub(super) fn start(&self, pod: &Pod, client: &Pod) -> Result<Server> {
        let data = self.folder.join(format!("data-{}", pod.address));
        let mut copy = Command::new("cp");
        copy.args(["--archive", "--reflink=auto"]).arg(self.folder.join("template")).arg(&data);
        process::capture(&mut copy).context("cannot copy the data folder")?;

        let log = self.folder.join(format!("server-{}.log", pod.address));
        let mut mariadbd = self.command(pod, &data)?;
        let output = fs::File::create(&log).context("cannot create the server's log")?;
        mariadbd
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("cannot share the server's log")?)
            .stderr(output);
        pod.place(&mut mariadbd)?;
        let name = format!("the MariaDB server at {}", pod.address);
        let mut server = Server { process: Process::spawn(&mut mariadbd, &name)?, data };
        server.wait_until_ready(pod, client).with_context(|| {
            format!("{name} did not start; the end of its log:\n{}", process::tail(&log, 15))
        })?;
        narration::verified(&format!("MariaDB runs in pod {}, at {}", pod.name, pod.address));
        Ok(server)
    }

    fn command(&self, pod: &Pod, data: &Path) -> Result<Command> {
        let program = workspace::which("mariadbd").context("the program mariadbd is missing")?;
        let mut mariadbd = Command::new(program);
        mariadbd
            .args(["--no-defaults", "--user=root", "--skip-log-bin"])
            .args(SMALL)
            .arg(format!("--bind-address={}", pod.address))
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", data.join("mysqld.sock").display()))
            .arg(format!("--pid-file={}", data.join("mysqld.pid").display()))
            .arg(format!("--init-file={}", self.folder.join("users.sql").display()));
        Ok(mariadbd)
    }
}

/// A running server; dropping it ends it and removes its data.
pub(super) struct Server {
    process: Process,
    data: PathBuf,
}

impl Server {
    fn wait_until_ready(&mut self, pod: &Pod, client: &Pod) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            self.process.check_running()?;
            match Way::new(client, &pod.address.to_string()).ask() {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => process::pause()?,
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Killed rather than asked: the data goes with it.
        self.process.kill();
        let _ = fs::remove_dir_all(&self.data);
    }
}

/// How a client finds a server.
#[derive(Clone)]
pub(super) struct Way {
    /// Who asks.
    pub(super) client: Pod,
    /// A name or an address.
    pub(super) host: String,
    /// The port, if it is not the usual one.
    pub(super) port: Option<u16>,
}

impl Way {
    /// From this client to this host.
    pub(super) fn new(client: &Pod, host: &str) -> Self {
        Self { client: client.clone(), host: host.to_owned(), port: None }
    }

    /// A query by which one sees which server answers, in the client's namespace with the resolver
    /// configuration that is installed for it.
    pub(super) fn query(&self) -> Command {
        let mut mariadb = Command::new("ip");
        mariadb
            .args(["netns", "exec", &self.client.netns(), "mariadb"])
            .args(["--no-defaults", "--protocol=tcp", "--user=demo", "--connect-timeout=5"])
            .args(["--batch", "--skip-column-names"])
            .arg(format!("--host={}", self.host));
        if let Some(port) = self.port {
            mariadb.arg(format!("--port={port}"));
        }
        mariadb.arg("--execute=SELECT @@hostname, @@bind_address");
        mariadb
    }

    /// Asks who answers.
    pub(super) fn ask(&self) -> Result<Answer> {
        let mut query = self.query();
        self.client.place(&mut query)?;
        let row = process::capture(&mut query)?;
        let Some((hostname, address)) = row.trim().split_once('\t') else {
            bail!("expected a host name and an address, the server answered {row:?}");
        };
        Ok(Answer { hostname: hostname.to_owned(), address: address.to_owned() })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Which server answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Answer {
    /// The host name of its pod.
    pub(super) hostname: String,
    /// The address it listens on.
    pub(super) address: String,
}

/// The Pod object of a pod with a ready server.
pub(super) fn manifest(pod: &Pod) -> String {
    let Pod { name, address, .. } = pod;
    format!(
        "apiVersion: v1\n\
         kind: Pod\n\
         metadata: {{name: {name}, labels: {{app: mysql}}}}\n\
         spec: {{containers: [{{name: mysql, image: mariadb, ports: [{{containerPort: 3306}}]}}]}}\n\
         status:\n\
         \x20 podIP: {address}\n\
         \x20 podIPs: [{{ip: {address}}}]\n\
         \x20 conditions: [{{type: Ready, status: 'True'}}]\n"
    )
}
