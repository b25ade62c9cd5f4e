//! Long steps: announced, watched, and quiet unless they fail.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// How often a log that is no terminal hears that a step still runs.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// How much of a failed step's output is shown.
const SHOWN_LINES: usize = 40;

/// Runs a command whose output matters only if it fails. `what` says what is done and why,
/// `estimate` roughly how long it takes.
pub(crate) fn run(command: &mut Command, what: &str, estimate: &str) -> Result<()> {
    eprintln!("• {what} (about {estimate})");
    let started = Instant::now();
    let program = command.get_program().display().to_string();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;

    let (sender, lines) = mpsc::channel();
    forward(child.stdout.take().context("no standard output")?, sender.clone());
    forward(child.stderr.take().context("no standard error")?, sender);
    let log = watch(&lines, started);

    let status = child.wait().with_context(|| format!("cannot wait for {program}"))?;
    if !status.success() {
        let tail = log.len().saturating_sub(SHOWN_LINES);
        for line in &log[tail..] {
            eprintln!("  {line}");
        }
        bail!("{program} failed ({status}) in this step: {what}");
    }
    eprintln!("  done in {:.0} s", started.elapsed().as_secs_f32().max(1.0));
    Ok(())
}

/// Shows the last line and the time passed, until the command has closed its output.
fn watch(lines: &mpsc::Receiver<String>, started: Instant) -> Vec<String> {
    let spinner = spinner();
    let mut log = Vec::new();
    let mut next_heartbeat = HEARTBEAT;
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                spinner.set_message(line.clone());
                log.push(line);
            }
            Err(RecvTimeoutError::Timeout) => spinner.tick(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if spinner.is_hidden() && started.elapsed() >= next_heartbeat {
            let last = log.last().map_or("", String::as_str);
            eprintln!("  {} s: {last}", next_heartbeat.as_secs());
            next_heartbeat += HEARTBEAT;
        }
    }
    spinner.finish_and_clear();
    log
}

fn spinner() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("  {spinner} {elapsed} {wide_msg}")
        .expect("the template is well-formed");
    ProgressBar::new_spinner().with_style(style)
}

/// Steps of known number: a bar that says which one is at work, or a line for each where there is
/// no terminal.
pub(crate) struct Steps {
    bar: ProgressBar,
}

impl Steps {
    /// Nothing done yet.
    pub(crate) fn new(count: usize) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden() };
        }
        let style = ProgressStyle::with_template("  {bar:20} {elapsed}, {eta} left  {wide_msg}")
            .expect("the template is well-formed");
        let bar = ProgressBar::new(count as u64).with_style(style);
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar }
    }

    /// Begins a step, and ends the one before.
    pub(crate) fn next(&self, what: &str) {
        if self.bar.is_hidden() {
            eprintln!("  {what}");
        } else if !self.bar.message().is_empty() {
            self.bar.inc(1);
        }
        self.bar.set_message(what.to_owned());
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn forward(output: impl Read + Send + 'static, lines: mpsc::Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if !line.is_empty() && lines.send(line).is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_step_is_an_error_that_names_the_step() {
        let mut command = Command::new("sh");
        let error = run(command.args(["-c", "echo why; exit 3"]), "trying in vain", "no time")
            .expect_err("exit code 3");
        assert!(error.to_string().contains("trying in vain"), "{error}");
    }
}
