//! Network namespaces without a name: each lives as long as the thread inside it.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use rustix::thread::{UnshareFlags, gettid, unshare_unsafe};
use serde_json::Value;

use super::command::{Output, run};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, and the thread through which everything in it is done.
pub(crate) struct Namespace {
    jobs: Option<mpsc::Sender<Job>>,
    worker: Option<JoinHandle<()>>,
    /// Names the namespace to `ip link … netns`.
    tid: i32,
}

impl Namespace {
    /// A namespace with nothing but a loopback device that is up.
    pub(crate) fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, is_ready) = mpsc::channel();
        let worker = thread::spawn(move || {
            // SAFETY: without `UnshareFlags::FILES` no file descriptor changes hands.
            let entered = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
            let tid = gettid().as_raw_nonzero().get();
            let _ = ready.send(entered.map(|()| tid));
            queue.into_iter().for_each(|job| job());
        });
        let tid = is_ready
            .recv()
            .expect("the namespace's thread reports")
            .unwrap_or_else(|error| panic!("no network namespace: {error}"));
        let namespace = Self { jobs: Some(jobs), worker: Some(worker), tid };
        // Addresses must be usable at once, without duplicate address detection.
        namespace.run(|| {
            for which in ["all", "default"] {
                let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{which}/accept_dad"), "0");
            }
        });
        namespace.ip("link set lo up");
        namespace
    }

    /// Connects this namespace's `eth0` with the other's.
    #[track_caller]
    pub(crate) fn wire_to(&self, other: &Self) {
        self.wire("eth0", other);
    }

    /// Connects a new device of this namespace with the other's `eth0`.
    #[track_caller]
    pub(crate) fn wire(&self, device: &str, other: &Self) {
        self.ip(&format!("link add name {device} type veth peer name eth0 netns {}", other.tid));
        self.ip(&format!("link set {device} up"));
        other.ip("link set eth0 up");
    }

    /// Lets packets through from one device to another.
    pub(crate) fn forward_packets(&self) {
        self.run(|| {
            for file in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                fs::write(format!("/proc/sys/net/{file}"), "1").expect("a namespace of our own");
            }
        });
    }

    /// Runs a program inside to its end, its arguments separated by spaces.
    #[track_caller]
    pub(crate) fn command(&self, program: &str, arguments: &str) -> Output {
        let mut command = Command::new(program);
        command.args(arguments.split_whitespace());
        self.run(move || run(command, ""))
    }

    /// Does something inside: sockets made there belong to the namespace, and so do the child
    /// processes it starts.
    #[track_caller]
    pub(crate) fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (answer, result) = mpsc::channel();
        let job: Job = Box::new(move || {
            let _ = answer.send(job());
        });
        self.jobs.as_ref().expect("open until dropped").send(job).expect("the thread is alive");
        result.recv().expect("the job does not panic")
    }

    /// Runs `ip` commands inside, one a line.
    #[track_caller]
    pub(crate) fn ip(&self, script: &str) {
        let script_of_job = script.to_owned();
        let outcome = self.run(move || ip(&script_of_job));
        if let Err(problem) = outcome {
            panic!("ip failed: {problem}\nin the script:\n{script}");
        }
    }
}

impl Namespace {
    /// What `tc` prints of a question, as JSON.
    #[track_caller]
    pub(crate) fn tc(&self, question: &str) -> Value {
        let words: Vec<_> = question.split_whitespace().map(str::to_owned).collect();
        let output = self.run(move || Command::new("tc").args(["-s", "-j"]).args(words).output());
        let output = output.unwrap_or_else(|error| panic!("cannot run tc (iproute2): {error}"));
        assert!(output.status.success(), "tc {question}: {output:?}");
        match &output.stdout[..] {
            [] => Value::Null,
            text => serde_json::from_slice(text)
                .unwrap_or_else(|error| panic!("tc {question}: not JSON ({error}): {output:?}")),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

fn ip(script: &str) -> Result<(), String> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run ip (package iproute2): {error}"))?;
    let mut stdin = child.stdin.take().expect("piped");
    let written = stdin.write_all(script.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() && written.is_ok() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}
