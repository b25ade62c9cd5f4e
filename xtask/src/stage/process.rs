//! Processes on a stage. Each is in a session of its own, so that Ctrl-C reaches only this
//! program, which then ends them in order; and each dies with it, should it be killed.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, kill_process, set_parent_process_death_signal, setpriority_process, setsid,
};
use rustix::thread::{CpuSet, sched_setaffinity};

/// How long a short command may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The nice value of those who go first.
const FIRST: i32 = -20;
const POLL: Duration = Duration::from_millis(10);

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on SIGINT, SIGTERM and SIGHUP end what runs at its next wait, as an error.
pub(crate) fn catch_interrupts() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&INTERRUPTED))
            .context("cannot catch signals")?;
    }
    Ok(())
}

/// Waits a moment; an error if the user has asked to stop.
pub(crate) fn pause() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    thread::sleep(POLL);
    Ok(())
}

/// Runs a short command to its end and returns what it wrote to standard output. Its failure is
/// an error with what it wrote to standard error.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process::spawn(command, &program)?;
    let stdout = reader(process.child.stdout.take());
    let stderr = reader(process.child.stderr.take());
    let status = process.wait(PATIENCE)?;
    let (stdout, stderr) = (collect(stdout)?, collect(stderr)?);
    if !status.success() {
        bail!("{program} failed ({status}): {}{}", stdout.trim(), stderr.trim());
    }
    Ok(stdout)
}

/// Lets a command, and what it starts, run before everything that has an ordinary priority.
pub(crate) fn prefer(command: &mut Command) {
    let prefer = || {
        setpriority_process(None, FIRST)?;
        // Where sessions share a processor between them, priorities are those of sessions
        // (sched(7), "The autogroup feature"); elsewhere there is no such file.
        setsid()?;
        if let Ok(session) = open(c"/proc/self/autogroup", OFlags::WRONLY, Mode::empty()) {
            rustix::io::write(&session, b"-20")?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe system calls are made.
    unsafe { command.pre_exec(prefer) };
}

/// The same, on this processor only.
pub(crate) fn pin(command: &mut Command, processor: usize) {
    prefer(command);
    let mut only = CpuSet::new();
    only.set(processor);
    let pin = move || Ok(sched_setaffinity(None, &only)?);
    // SAFETY: between fork and exec only async-signal-safe system calls are made.
    unsafe { command.pre_exec(pin) };
}

/// The same, and nothing of ordinary priority gets more than the twentieth of the processor that the kernel keeps for
/// it (sched(7), "SCHED_FIFO"): a busy machine disturbs less.
pub(crate) fn pin_alone(command: &mut Command, processor: usize) {
    pin(command, processor);
    let lead = || {
        let least = libc::sched_param { sched_priority: 1 };
        // SAFETY: the kernel reads `least`, which lives through the call.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const least) };
        // Where cgroups give it no time of this kind, the priority of `pin` has to do.
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe system calls are made.
    unsafe { command.pre_exec(lead) };
}

/// A process that ends with its owner.
pub(crate) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts a command; `name` is what messages call it.
    pub(crate) fn spawn(command: &mut Command, name: &str) -> Result<Self> {
        let enter = || {
            match setsid() {
                // Some have a session of their own already.
                Ok(_) | Err(Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
        };
        // SAFETY: between fork and exec only async-signal-safe system calls are made.
        unsafe { command.pre_exec(enter) };
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// An error if the process has ended.
    pub(crate) fn check_running(&mut self) -> Result<()> {
        match self.child.try_wait().context("cannot ask for a child's state")? {
            Some(status) => bail!("{} has ended ({status})", self.name),
            None => Ok(()),
        }
    }

    /// Asks the process to end, and waits until it has.
    pub(crate) fn terminate(&mut self, patience: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(patience)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for a child")? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} did not end within {} s", self.name, patience.as_secs());
            }
            pause()?;
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a child without a process id")?, signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Ends the process at once. One that has ended is left alone.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path, count: usize) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn reader<R: Read + Send + 'static>(pipe: Option<R>) -> JoinHandle<io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    })
}

fn collect(reader: JoinHandle<io::Result<Vec<u8>>>) -> Result<String> {
    let bytes = reader.join().expect("the reader does not panic");
    Ok(String::from_utf8_lossy(&bytes.context("cannot read a command's output")?).into_owned())
}
