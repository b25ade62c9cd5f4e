//! The agent under test as a child process, and `lb` as its client.

use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::command::{Output, finish, run};
use super::netns::Namespace;
use super::sandbox::LB;
use super::status::Status;
use super::wait::within;
use super::{process, report};

/// Both families' Service ranges, unless a test chooses others.
pub(crate) const SERVICE_CIDRS: &str = "10.96.0.0/12,fd00:10:96::/112";

/// A shell's words to start a program with what are its standard input and output as descriptors 3 and
/// 4, and to say so as systemd does.
const PASS_ON: &str = "exec 3<&0 4<&1 0</dev/null 1>&2; \
                       LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=dns:dns exec \"$0\" \"$@\"";

/// Loading and verifying the programs on a busy machine.
const START: Duration = Duration::from_secs(180);

/// Where an agent keeps its things.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) state: PathBuf,
    pub(crate) run: PathBuf,
    pub(crate) bpffs: PathBuf,
    pub(crate) cgroup: PathBuf,
    pub(crate) manifests: PathBuf,
    /// Standard output and error of every agent started here.
    pub(crate) log: PathBuf,
}

/// An agent, running or stopped.
pub(crate) struct Agent {
    pub(crate) paths: Paths,
    /// The lb that is started as an agent.
    pub(crate) binary: PathBuf,
    /// Further arguments of `lb agent`.
    options: Vec<String>,
    /// Whether it answers for names, and has the Service kube-dns.
    pub(crate) names: bool,
    /// The words that start it in another way, before those of `lb agent`.
    pub(crate) launcher: Vec<String>,
    /// Sockets that somebody keeps for it, as systemd does.
    pub(crate) kept: Option<(UdpSocket, TcpListener)>,
    pub(crate) service_cidrs: String,
    /// The arguments that say where its objects come from, if that is not the folder of manifests.
    pub(crate) source: Option<Vec<String>>,
    /// The namespace it runs in: the node's.
    node: Arc<Namespace>,
    child: Option<Child>,
    cleaned: bool,
}

impl Agent {
    /// An agent that is not running yet.
    pub(crate) fn new(node: &Arc<Namespace>, paths: Paths) -> Self {
        let (node, service_cidrs) = (Arc::clone(node), SERVICE_CIDRS.to_owned());
        let (binary, options) = (PathBuf::from(LB), Vec::new());
        Self {
            paths,
            binary,
            options,
            names: false,
            launcher: Vec::new(),
            kept: None,
            service_cidrs,
            source: None,
            node,
            child: None,
            cleaned: false,
        }
    }

    /// Sets further arguments of `lb agent` for its next start.
    pub(crate) fn set_options(&mut self, options: &[&str]) {
        self.options = options.iter().map(|&option| option.to_owned()).collect();
    }

    /// Starts the agent and waits until it answers.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        self.spawn();
        within(START, "the agent answers `lb status`", || {
            if let Some(code) = self.exited() {
                panic!("the agent ended with {code:?} instead of starting");
            }
            let output = self.lb(&["status"]);
            if output.code == Some(0) { Ok(()) } else { Err(output.to_string()) }
        });
    }

    /// Starts the agent and does not wait.
    #[track_caller]
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "one process per agent");
        let log = File::options().create(true).append(true).open(&self.paths.log);
        let log = log.expect("a log file on the scratch file system");
        let source = self.source.clone().unwrap_or_else(|| {
            let manifests = self.paths.manifests.display().to_string();
            vec![
                "--service-cidr".into(),
                self.service_cidrs.clone(),
                "--manifests".into(),
                manifests,
            ]
        });
        let mut command = process::starter();
        command.args(&self.launcher);
        if self.kept.is_some() {
            command.args(["sh", "-c", PASS_ON]);
        }
        command.arg(&self.binary);
        without_defaults(&mut command)
            .arg("agent")
            .args(source)
            .arg("--state-dir")
            .arg(&self.paths.state)
            .arg("--run-dir")
            .arg(&self.paths.run)
            .arg("--bpffs")
            .arg(&self.paths.bpffs)
            .arg("--cgroup")
            .arg(&self.paths.cgroup)
            .args((!self.names).then_some("--no-dns"))
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle on the log"))
            .stderr(log);
        if let Some((udp, tcp)) = &self.kept {
            command.stdin(OwnedFd::from(udp.try_clone().expect("a second handle")));
            command.stdout(OwnedFd::from(tcp.try_clone().expect("a second handle")));
        }
        // From the namespace's thread: the process inherits the namespace, and its life.
        let child = self.node.run(move || command.spawn());
        self.child = Some(child.expect("the test binary can be run again"));
        self.cleaned = false;
    }

    /// The exit code, if the process has ended.
    pub(crate) fn exited(&mut self) -> Option<Option<i32>> {
        let status = self.child.as_mut()?.try_wait().expect("a child of ours")?;
        self.child = None;
        Some(status.code())
    }

    /// Waits for the end of an agent that is expected to give up by itself.
    #[track_caller]
    pub(crate) fn gives_up(&mut self) -> i32 {
        let code = within(START, "the agent gives up", || {
            self.exited().ok_or_else(|| "it is still running".to_owned())
        });
        code.unwrap_or_else(|| panic!("the agent must exit by itself, not by a signal"))
    }

    /// Kills the agent in the middle of whatever it does.
    #[track_caller]
    pub(crate) fn kill_nine(&mut self) {
        let mut child = self.child.take().expect("the agent is running");
        child.kill().expect("a child of ours");
        child.wait().expect("a child of ours");
    }

    /// The agent's anonymous memory in KiB.
    #[track_caller]
    pub(crate) fn anonymous_memory(&self) -> u64 {
        let pid = self.child.as_ref().expect("the agent is running").id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a child of ours");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.expect("the kernel counts anonymous memory")
    }

    /// Sends the agent a signal.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the agent is running");
        kill_process(Pid::from_child(child), signal).expect("a child of ours");
    }

    /// Ends the agent in order and returns its exit code.
    #[track_caller]
    pub(crate) fn stop(&mut self, signal: Signal) -> i32 {
        self.signal(signal);
        self.gives_up()
    }

    /// Runs a client command against this agent.
    #[track_caller]
    pub(crate) fn lb(&self, arguments: &[&str]) -> Output {
        run(self.client(arguments), "")
    }

    /// A client command for this agent, not started.
    pub(crate) fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(LB);
        let own_place = without_defaults(&mut command).args(arguments).arg("--run-dir");
        own_place.arg(&self.paths.run);
        command
    }

    /// Applies manifests, which must succeed.
    #[track_caller]
    pub(crate) fn apply(&self, manifests: &[&str]) -> Output {
        self.try_apply(manifests).ok()
    }

    /// Applies manifests.
    #[track_caller]
    pub(crate) fn try_apply(&self, manifests: &[&str]) -> Output {
        run(self.client(&["apply", "-f", "-"]), &super::manifest::documents(manifests))
    }

    /// Deletes an object, which must succeed.
    #[track_caller]
    pub(crate) fn delete(&self, kind: &str, name: &str) -> Output {
        self.lb(&["delete", kind, name]).ok()
    }

    /// An object as the agent shows it.
    #[track_caller]
    pub(crate) fn get(&self, kind: &str, name: &str) -> Value {
        let output = self.lb(&["get", kind, name, "-o", "json"]).ok();
        serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {output}"))
    }

    /// All objects of a kind, in the namespace `default`.
    #[track_caller]
    pub(crate) fn get_all(&self, kind: &str) -> Vec<Value> {
        let output = self.lb(&["get", kind, "-o", "json"]).ok();
        let list: Value = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {output}"));
        let items = list["items"].as_array().cloned();
        items.unwrap_or_else(|| panic!("`lb get {kind} -o json` must print a List: {output}"))
    }

    /// `lb status -o json`.
    #[track_caller]
    pub(crate) fn status(&self) -> Status {
        let output = self.lb(&["status", "-o", "json"]).ok();
        Status::parse(&output.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {output}"))
    }

    /// What this agent shares with another is left to that one: no cleanup when dropped.
    pub(crate) fn leave_as_it_is(&mut self) {
        self.cleaned = true;
    }

    /// Everything the agents of this place have logged.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(&self.paths.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Takes programs and pins away, in the node's namespace; `more` may ask for more. Does not judge: see `lifecycle`.
    #[track_caller]
    pub(crate) fn cleanup(&mut self, more: &[&str]) -> Output {
        self.cleaned = self.child.is_none();
        let paths = &self.paths;
        let mut command = self.client(&["cleanup"]);
        command.args(more);
        command.arg("--state-dir").arg(&paths.state);
        command.arg("--bpffs").arg(&paths.bpffs).arg("--cgroup").arg(&paths.cgroup);
        self.node.run(move || run(command, ""))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let title = format!("log of the agent at {}", self.paths.run.display());
            report::evidence(&title, &tail(&self.log(), 80));
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            finish(&mut child, START);
        }
        if !self.cleaned && Path::new(&self.paths.bpffs).exists() {
            self.cleanup(&[]);
        }
    }
}

/// Variables that a developer has set for `lb` must not reach a test's.
fn without_defaults(command: &mut Command) -> &mut Command {
    let ours = std::env::vars_os().map(|(name, _)| name);
    for name in ours.filter(|name| name.to_str().is_some_and(|name| name.starts_with("LB_"))) {
        command.env_remove(name);
    }
    command
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    let skipped = all.len().saturating_sub(lines);
    all[skipped..].join("\n")
}
