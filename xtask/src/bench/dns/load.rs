//! The load: a process of its own, so that it can be on a processor, in a network namespace and in a
//! cgroup of its own. One thread keeps a number of questions outstanding over a few connected
//! sockets, as resolvers use them.
//!
//! Without a rate each answer is followed by the next question, which finds the most that a server can
//! do; latency is then the length of the queue. With a rate questions are due at fixed times, and
//! latency counts from then, so that a server that stalls is not asked less for it. When it is this
//! process that stalls, because something else took its processor, the time does not count.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use super::questions::Question;

/// How many sockets, and how many questions outstanding on each: dnsperf's default is 100 in total.
const SOCKETS: usize = 10;
const WINDOW: usize = 10;
/// When a question counts as unanswered.
const TIMEOUT: Duration = Duration::from_secs(1);
/// A turn of the loop that takes longer was interrupted: one takes some ten microseconds.
const STALL: Duration = Duration::from_micros(500);
/// How often timeouts are looked for.
const SWEEP: Duration = Duration::from_millis(50);

/// What the process is to do.
#[derive(clap::Args)]
pub(crate) struct Order {
    /// Whom to ask
    #[arg(long)]
    server: SocketAddr,
    /// A file of questions, one a line, each with its answer
    #[arg(long)]
    questions: PathBuf,
    /// For how long
    #[arg(long)]
    seconds: f64,
    /// For how long before that, without counting
    #[arg(long)]
    warm_up: f64,
    /// Questions a second; as many as are answered if absent
    #[arg(long)]
    rate: Option<f64>,
    /// The server's process, whose processor time is taken
    #[arg(long)]
    process: u32,
}

/// Asks, and prints what was seen as one JSON object.
pub(crate) fn run(order: &Order) -> Result<()> {
    let text = fs::read_to_string(&order.questions)
        .with_context(|| format!("cannot read {}", order.questions.display()))?;
    let questions: Vec<Question> = text.lines().map(Question::parse).collect::<Result<_>>()?;
    ensure!(!questions.is_empty(), "no questions in {}", order.questions.display());
    let mut load = Load::new(order, &questions)?;
    load.run_until(Instant::now() + Duration::from_secs_f64(order.warm_up))?;
    load.tally = Tally::default();
    let (started, busy) = (Instant::now(), processor_time(order.process)?);
    load.run_until(started + Duration::from_secs_f64(order.seconds))?;
    let seconds = started.elapsed().as_secs_f64();
    let busy = processor_time(order.process)? - busy;
    println!("{}", load.tally.into_json(seconds, busy));
    Ok(())
}

/// A place for one outstanding question. Its number, on its socket, is the low byte of the id.
#[derive(Clone, Copy)]
struct Slot {
    /// The high byte of the id, another for each question: an answer that comes late is not taken
    /// for that of the next.
    turn: u8,
    /// Which question is outstanding, and since when.
    asked: Option<(usize, Instant)>,
}

#[derive(Default)]
struct Tally {
    /// How long each answer took, in nanoseconds.
    latencies: Vec<u32>,
    timeouts: u64,
    wrong: u64,
    /// The first wrong answer, in words.
    fault: Option<String>,
}

struct Load<'a> {
    sockets: Vec<(UdpSocket, [Slot; WINDOW])>,
    questions: &'a [Question],
    random: fastrand::Rng,
    /// Time between questions, and when the next is due; nothing: at once.
    pace: Option<(Duration, Instant)>,
    turned: Instant,
    swept: Instant,
    tally: Tally,
}

impl<'a> Load<'a> {
    fn new(order: &Order, questions: &'a [Question]) -> Result<Self> {
        let slot = Slot { turn: 0, asked: None };
        let connect = || -> Result<_> {
            let local = if order.server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(local).context("cannot open a socket")?;
            socket
                .connect(order.server)
                .with_context(|| format!("cannot connect to {}", order.server))?;
            socket.set_nonblocking(true).context("cannot make a socket non-blocking")?;
            Ok((socket, [slot; WINDOW]))
        };
        let now = Instant::now();
        Ok(Self {
            sockets: (0..SOCKETS).map(|_| connect()).collect::<Result<_>>()?,
            questions,
            // The same questions in the same order for everyone.
            random: fastrand::Rng::with_seed(1),
            pace: order.rate.map(|rate| (Duration::from_secs_f64(1.0 / rate), now)),
            turned: now,
            swept: now,
            tally: Tally::default(),
        })
    }

    fn run_until(&mut self, end: Instant) -> Result<()> {
        let mut buffer = [0; 65_535];
        self.turned = Instant::now();
        loop {
            self.forgive_stall();
            let mut is_idle = true;
            for index in 0..SOCKETS {
                is_idle &= !self.receive(index, &mut buffer)?;
                self.send(index)?;
            }
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            if now - self.swept >= SWEEP {
                self.sweep(now);
            }
            // With a rate the thread spins: a timer would add its own latency.
            if is_idle && self.pace.is_none() {
                self.wait()?;
            }
        }
    }

    /// If this process was kept from running, puts off what was due meanwhile, and forgets what was
    /// outstanding.
    fn forgive_stall(&mut self) {
        let now = Instant::now();
        let took = now - std::mem::replace(&mut self.turned, now);
        let Some((_, due)) = self.pace.as_mut().filter(|_| took > STALL) else { return };
        *due += took;
        for slot in self.sockets.iter_mut().flat_map(|(_, slots)| slots) {
            slot.asked = None;
        }
    }

    /// Takes the answers that are there; whether there were any.
    fn receive(&mut self, index: usize, buffer: &mut [u8]) -> Result<bool> {
        let (socket, slots) = &mut self.sockets[index];
        let mut any = false;
        loop {
            let answer = match socket.recv(buffer) {
                Ok(length) => &buffer[..length],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(any),
                Err(error) => return Err(error).context("cannot receive an answer"),
            };
            any = true;
            let now = Instant::now();
            let &[turn, number, ..] = answer else { continue };
            let Some(slot) = slots.get_mut(usize::from(number)) else { continue };
            let Some((question, since)) = slot.asked.filter(|_| slot.turn == turn) else {
                continue;
            };
            slot.asked = None;
            let question = &self.questions[question];
            if let Some(fault) = question.fault(answer) {
                self.tally.wrong += 1;
                let words = || format!("the answer to {} {fault}: {answer:02x?}", question.name);
                self.tally.fault.get_or_insert_with(words);
            } else {
                let nanoseconds = (now - since).as_nanos();
                self.tally.latencies.push(u32::try_from(nanoseconds).unwrap_or(u32::MAX));
            }
        }
    }

    /// Asks what is due, where there is a free slot.
    fn send(&mut self, index: usize) -> Result<()> {
        let (socket, slots) = &mut self.sockets[index];
        for (number, slot) in slots.iter_mut().enumerate().filter(|(_, slot)| slot.asked.is_none())
        {
            let mut since = Instant::now();
            if let Some((interval, due)) = &mut self.pace {
                if *due > since {
                    return Ok(());
                }
                since = *due;
                *due += *interval;
            }
            let choice = self.random.usize(..self.questions.len());
            slot.turn = slot.turn.wrapping_add(1);
            slot.asked = Some((choice, since));
            let mut message = [0; 300];
            let question = &self.questions[choice].message;
            let message = &mut message[..question.len()];
            message.copy_from_slice(question);
            (message[0], message[1]) = (slot.turn, u8::try_from(number)?);
            socket.send(message).context("cannot send a question")?;
        }
        Ok(())
    }

    fn sweep(&mut self, now: Instant) {
        self.swept = now;
        for slot in self.sockets.iter_mut().flat_map(|(_, slots)| slots) {
            if slot.asked.is_some_and(|(_, since)| now.saturating_duration_since(since) > TIMEOUT) {
                slot.asked = None;
                self.tally.timeouts += 1;
            }
        }
    }

    fn wait(&self) -> Result<()> {
        let mut descriptors: Vec<PollFd<'_>> =
            self.sockets.iter().map(|(socket, _)| PollFd::new(socket, PollFlags::IN)).collect();
        let timeout = Timespec::try_from(SWEEP).context("no time to wait")?;
        match poll(&mut descriptors, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("cannot wait for answers"),
        }
    }
}

impl Tally {
    fn into_json(mut self, seconds: f64, busy: f64) -> serde_json::Value {
        self.latencies.sort_unstable();
        let answered = self.latencies.len();
        // The nearest rank: the latency that so many of a hundred answers did not exceed.
        let microseconds = |percent: usize| {
            let rank = (answered * percent).div_ceil(100).max(1);
            self.latencies.get(rank - 1).map(|nanoseconds| f64::from(*nanoseconds) / 1e3)
        };
        json!({
            "answered": answered,
            "seconds": seconds,
            "p50": microseconds(50),
            "p99": microseconds(99),
            "busy": busy,
            "timeouts": self.timeouts,
            "wrong": self.wrong,
            "fault": self.fault,
        })
    }
}

/// Seconds that a process has spent on a processor, in all its threads (proc(5), `stat`).
fn processor_time(process: u32) -> Result<f64> {
    let file = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    // The program's name may hold anything, but it is the last that is in parentheses.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: Vec<u64> = fields.split_whitespace().skip(11).take(2).flat_map(str::parse).collect();
    let [user, system] = ticks[..] else { bail!("{file} has no times: {stat}") };
    let per_second = rustix::param::clock_ticks_per_second();
    Ok((user + system) as f64 / per_second as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_answers_that_were_right() {
        let tally = Tally {
            latencies: (1..=200).rev().map(|micros| micros * 1000).collect(),
            ..Tally::default()
        };
        let seen = tally.into_json(2.0, 1.0);
        assert_eq!(
            (&seen["answered"], &seen["p50"], &seen["p99"]),
            (&json!(200), &json!(100.0), &json!(198.0))
        );
        assert_eq!(Tally::default().into_json(1.0, 0.0)["p99"], json!(null));
    }
}
