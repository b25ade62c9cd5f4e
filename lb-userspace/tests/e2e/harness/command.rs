//! Running `lb`'s client commands.

use std::fmt;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// A client command answers within this time, or is killed and reported.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a finished command said.
pub(crate) struct Output {
    command: String,
    /// `None`: ended by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, code, stdout, stderr } = self;
        write!(f, "`{command}` ended with {code:?}\nstdout: {stdout}\nstderr: {stderr}")
    }
}

impl Output {
    /// Panics unless the command succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "must succeed: {self}");
        self
    }

    /// Panics unless the command failed as one that was refused does: with the exit code 1.
    #[track_caller]
    pub(crate) fn refused(self) -> Self {
        assert_eq!(self.code, Some(1), "must be refused with exit code 1: {self}");
        self
    }

    /// Panics unless every text occurs in the error output.
    #[track_caller]
    pub(crate) fn complains(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "stderr must contain {text:?}: {self}");
        }
        self
    }

    /// Panics unless every text occurs in the standard output.
    #[track_caller]
    pub(crate) fn mentions(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stdout.contains(text), "stdout must contain {text:?}: {self}");
        }
        self
    }

    /// Panics unless the standard output has the line.
    #[track_caller]
    pub(crate) fn says(self, line: &str) -> Self {
        let found = self.stdout.lines().any(|said| said.trim_end() == line);
        assert!(found, "stdout must have the line {line:?}: {self}");
        self
    }
}

/// Runs a command to its end, with `input` on its standard input.
#[track_caller]
pub(crate) fn run(mut command: Command, input: &str) -> Output {
    let name = format!("{command:?}").replace('"', "");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    let stdout = collect(child.stdout.take().expect("piped"));
    let stderr = collect(child.stderr.take().expect("piped"));
    // A command that does not read its input closes it: not an error of the test.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let code = finish(&mut child, PATIENCE);
    let [stdout, stderr] = [stdout, stderr].map(|text| text.join().expect("reads to the end"));
    let output = Output { command: name, code: code.flatten(), stdout, stderr };
    assert!(code.is_some(), "not finished after {PATIENCE:?}, killed: {output}");
    output
}

/// Waits for a child's end; kills it and returns `None` when it takes too long.
pub(crate) fn finish(child: &mut Child, patience: Duration) -> Option<Option<i32>> {
    let start = Instant::now();
    loop {
        match child.try_wait().expect("a child of ours") {
            Some(status) => return Some(status.code()),
            None if start.elapsed() > patience => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
            None => sleep(Duration::from_millis(2)),
        }
    }
}

fn collect(mut source: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        let _ = source.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}
