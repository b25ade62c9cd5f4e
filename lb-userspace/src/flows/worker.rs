//! The thread that collects flows.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::{ClockId, clock_gettime};

use super::schedule::Schedule;
use super::{Lack, Lifetimes, Status, Table as _, Tally, sweep};
use crate::datapath::{Alarm, FlowTable, Flows};

/// For so long ports must have sufficed before it is said again that they do not.
const QUIET: Duration = Duration::from_secs(60);

/// The thread's owner. When it is dropped, the thread ends.
#[derive(Debug)]
pub struct Handle {
    status: Arc<Mutex<Status>>,
    /// Nothing is written: the thread notices that it is closed.
    _lifeline: OwnedFd,
}

impl Handle {
    /// What `lb status` shows.
    pub fn status(&self) -> Status {
        self.status.lock().expect("no panic while it is held").clone()
    }
}

/// Starts the thread.
///
/// # Errors
///
/// If there can be no thread.
pub fn start(lifetimes: Lifetimes, flows: Flows) -> io::Result<Handle> {
    let (owner, lifeline) = pipe_with(PipeFlags::CLOEXEC)?;
    let Flows { table, alarm } = flows;
    let capacity = table.capacity().into();
    let status = Arc::new(Mutex::new(Status { capacity, ..Status::default() }));
    let worker = Worker {
        lifetimes,
        table,
        alarm,
        owner,
        schedule: Schedule::new(Instant::now()),
        warned: false,
        short_of_ports: None,
        status: Arc::clone(&status),
    };
    std::thread::Builder::new().name("flows".into()).spawn(move || worker.run())?;
    Ok(Handle { status, _lifeline: lifeline })
}

struct Worker {
    lifetimes: Lifetimes,
    table: FlowTable,
    alarm: Alarm,
    owner: OwnedFd,
    schedule: Schedule,
    /// Whether it was said that the table is full.
    warned: bool,
    /// When ports ran short the last time.
    short_of_ports: Option<Instant>,
    status: Arc<Mutex<Status>>,
}

/// Why the thread goes on.
enum Wake {
    Time,
    Alarm,
    /// The owner is gone.
    End,
}

impl Worker {
    fn run(mut self) {
        loop {
            // Those who find no room ring without end; they are heard when a sweep may begin.
            if matches!(self.wait(Some(self.schedule.rest_until), false), Wake::End) {
                return;
            }
            let lack = match self.wait(self.schedule.due, true) {
                Wake::End => return,
                Wake::Alarm => self.alarm.hush(),
                Wake::Time => Lack::default(),
            };
            self.alarm.disarm();
            self.look(lack);
            if self.schedule.due.is_none() {
                self.fall_asleep();
            }
        }
    }

    /// Waits for a time, or for an alarm, too.
    fn wait(&self, until: Option<Instant>, alarm: bool) -> Wake {
        let wait = until.map(|at| at.saturating_duration_since(Instant::now()));
        let wait = wait.map(|wait| Timespec::try_from(wait).unwrap_or(Timespec::default()));
        let mut events = [
            PollFd::new(&self.owner, PollFlags::IN),
            PollFd::new(&self.alarm, if alarm { PollFlags::IN } else { PollFlags::empty() }),
        ];
        // An interrupted wait is as good as a finished one: a sweep too many does no harm.
        let _count_or_interrupted = poll(&mut events, wait.as_ref());
        if !events[0].revents().is_empty() {
            Wake::End
        } else if !events[1].revents().is_empty() {
            Wake::Alarm
        } else {
            Wake::Time
        }
    }

    fn look(&mut self, lack: Lack) {
        let began = Instant::now();
        match sweep(&mut self.table, &self.lifetimes, now(), lack) {
            Ok(tally) => {
                self.schedule.after_sweep(began, Instant::now(), tally.nearest);
                self.note(&tally);
                self.speak_of_room(&tally, lack.room);
                self.speak_of_ports(&tally);
            }
            Err(error) => {
                self.schedule.after_failure(Instant::now());
                self.note_problem(&error);
            }
        }
    }

    /// Has the first flow ring. One that was made before that is looked at soon.
    fn fall_asleep(&mut self) {
        let empty = self.alarm.arm().and_then(|()| self.table.list()).map(|all| all.is_empty());
        match empty {
            Ok(true) => {}
            Ok(false) => self.schedule.due = Some(self.schedule.rest_until),
            Err(error) => {
                self.schedule.after_failure(Instant::now());
                self.note_problem(&error);
            }
        }
    }

    fn note(&self, tally: &Tally) {
        let mut status = self.status.lock().expect("no panic while it is held");
        let Tally { entries, established, opening, closed, udp, strays, collected, early, .. } =
            *tally;
        *status = Status {
            entries,
            capacity: status.capacity,
            established,
            opening,
            closed,
            udp,
            strays,
            collected: status.collected + collected + early,
            collected_early: status.collected_early + early,
            refused: 0,
            last_sweep: Some(Timestamp::now().to_string()),
            problem: None,
        };
    }

    fn note_problem(&self, error: &io::Error) {
        let problem = Some(error.to_string());
        let mut status = self.status.lock().expect("no panic while it is held");
        // Once is enough: the next try may meet the same.
        if status.problem != problem {
            tracing::error!("no flow is collected: map FLOWS: {error}");
        }
        status.problem = problem;
    }

    /// Once, until they suffice for a while.
    fn speak_of_ports(&mut self, tally: &Tally) {
        let Some((address, port)) = tally.short_of_ports else { return };
        let now = Instant::now();
        let last = self.short_of_ports.replace(now);
        if last.is_none_or(|last| now - last >= QUIET) {
            let endpoint = SocketAddr::new(address.into(), port.number());
            tracing::warn!(
                "this node could not stand in for more clients of {endpoint}, and new connections were \
                 dropped: hardly one of its {} ports was free, before {} connections that are not \
                 established were collected. Widen --snat-ports, or shorten --flow-syn, --flow-closed \
                 or --flow-udp",
                self.table.ports(),
                tally.early
            );
        }
    }

    fn speak_of_room(&mut self, tally: &Tally, pressed: bool) {
        let capacity = u64::from(self.table.capacity());
        if pressed && !self.warned {
            let Tally { entries, established, opening, closed, udp, collected, early, .. } = tally;
            tracing::warn!(
                "map FLOWS is full, and new connections were refused; of {capacity} entries \
                 {entries} are in use after {collected} connections that were over were collected, \
                 and {early} before their time: {established} established, {opening} opening, \
                 {closed} closed, {udp} UDP. {}, or shorten --flow-established, --flow-syn, \
                 --flow-closed or --flow-udp",
                self.table.remedy()
            );
            self.warned = true;
        } else if self.warned && tally.entries < capacity / 4 * 3 {
            tracing::info!("map FLOWS has room again");
            self.warned = false;
        }
    }
}

/// The time by which programs note when a packet came.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let now = Duration::try_from(now).expect("the time since boot is not negative");
    u64::try_from(now.as_nanos()).expect("584 years have not passed since boot")
}
