//! The thread that looks at sockets.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use jiff::Timestamp;

use super::reclaim::Reclaim;
use super::schedule::Schedule;
use super::sweep::sweep;
use super::{Cause, CloseReply, CloseRequest, Config, DeadPeer, Status};
use crate::api::types::{CloseReport, ClosedSocket};
use crate::datapath::SocketTables;
use crate::plan::Protocol;

/// Asks the engine about dead peers, with or without `--close-tcp`; `None` if it has stopped.
pub type Judge = Box<dyn Fn(Vec<DeadPeer>, bool) -> Option<Vec<Option<Cause>>> + Send>;

enum Order {
    Deaths,
    Full,
    Close(CloseRequest, CloseReply),
}

/// Gives the thread its orders. When it is dropped, the thread ends.
#[derive(Debug)]
pub struct Handle {
    orders: Sender<Order>,
    status: Arc<Mutex<Status>>,
}

impl Handle {
    /// Backends have died: sockets may be connected to them.
    pub fn deaths(&self) {
        self.order(Order::Deaths);
    }

    /// Few slots of `ORIGIN` are free.
    pub fn full(&self) {
        self.order(Order::Full);
    }

    /// Looks at once, and tells.
    pub fn close(&self, request: CloseRequest, reply: CloseReply) {
        self.order(Order::Close(request, reply));
    }

    /// What `lb status` shows.
    pub fn status(&self) -> Status {
        self.status.lock().expect("no panic while it is held").clone()
    }

    fn order(&self, order: Order) {
        // The thread lives as long as this handle, unless it has panicked, and said so.
        self.orders.send(order).ok();
    }
}

/// Starts the thread.
pub fn start(config: Config, tables: SocketTables, judge: Judge) -> std::io::Result<Handle> {
    let (orders, queue) = mpsc::channel();
    let status = Arc::<Mutex<Status>>::default();
    let worker = Worker {
        close_tcp: config.close_tcp,
        tables,
        judge,
        schedule: Schedule::default(),
        reclaim: Reclaim::new(config.reclaim_after),
        status: Arc::clone(&status),
    };
    std::thread::Builder::new().name("sockets".into()).spawn(move || worker.run(&queue))?;
    Ok(Handle { orders, status })
}

struct Worker {
    close_tcp: bool,
    tables: SocketTables,
    judge: Judge,
    schedule: Schedule,
    reclaim: Reclaim,
    status: Arc<Mutex<Status>>,
}

impl Worker {
    fn run(mut self, orders: &Receiver<Order>) {
        // Sockets may have been closed while no agent and no program was there.
        if self.fill() > 0 {
            self.begin_reclaim();
        }
        loop {
            let wake = [self.schedule.next(), self.reclaim.next()].into_iter().flatten().min();
            let order = match wake {
                Some(at) => orders.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => orders.recv().map_err(Into::into),
            };
            match order {
                Ok(Order::Deaths) => self.schedule.after_deaths(Instant::now()),
                Ok(Order::Full) => self.begin_reclaim(),
                Ok(Order::Close(request, reply)) => {
                    if let Some(report) = self.sweep(request) {
                        // Who no longer waits for an answer does not get one.
                        reply.send(report).ok();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.do_what_is_due();
        }
    }

    fn do_what_is_due(&mut self) {
        let began = Instant::now();
        if self.schedule.begin(began) {
            self.sweep(CloseRequest { tcp: self.close_tcp, dry_run: false });
            self.schedule.rest(began, Instant::now());
            if self.is_nearly_full() {
                self.begin_reclaim();
            }
        }
        if self.reclaim.next().is_some_and(|at| at <= Instant::now()) {
            let freed = self.reclaim.finish(&self.tables);
            self.note_reclaimed(freed);
        }
    }

    fn sweep(&mut self, request: CloseRequest) -> Option<CloseReport> {
        let tcp = request.tcp || self.close_tcp;
        let report = sweep(&self.tables, |peers| (self.judge)(peers, tcp), request.dry_run)?;
        if !request.dry_run {
            report.sockets.iter().for_each(log);
        }
        let mut status = self.status.lock().expect("no panic while it is held");
        // Once is enough: the next sweep meets the same.
        for problem in report.problems.iter().filter(|known| !status.problems.contains(known)) {
            tracing::warn!("some sockets were not looked at: {problem}");
        }
        status.last_sweep = Some(Timestamp::now().to_string());
        status.problems.clone_from(&report.problems);
        for socket in report.sockets.iter().filter(|_| !request.dry_run) {
            let count = match (&socket.error, socket.protocol) {
                (Some(_), _) => &mut status.failed,
                (None, Protocol::Udp) => &mut status.closed_udp,
                (None, Protocol::Tcp) => &mut status.closed_tcp,
            };
            *count += 1;
        }
        drop(status);
        Some(report)
    }

    fn begin_reclaim(&mut self) {
        if self.reclaim.may_begin(Instant::now()) {
            let begun = self.reclaim.begin(&self.tables);
            self.note_reclaimed(begun.map(|()| 0));
        }
    }

    fn note_reclaimed(&self, freed: Result<u64, Vec<String>>) {
        let mut status = self.status.lock().expect("no panic while it is held");
        match freed {
            Ok(0) => {}
            Ok(freed) => {
                tracing::info!("freed {freed} slots of map ORIGIN whose sockets are gone");
                status.reclaimed += freed;
            }
            Err(problems) => {
                for problem in &problems {
                    tracing::warn!("no slot of map ORIGIN is freed: {problem}");
                }
                status.problems = problems;
            }
        }
    }

    fn fill(&self) -> usize {
        (0..self.tables.slots()).filter(|&slot| self.tables.holder(slot) != 0).count()
    }

    /// From here on a socket's slot is often taken, which makes its first connect slower.
    fn is_nearly_full(&self) -> bool {
        self.fill() > self.tables.slots() as usize / 4 * 3
    }
}

fn log(socket: &ClosedSocket) {
    let ClosedSocket { namespace, protocol, local, frontend, backend, cause, error } = socket;
    let socket = format!("{protocol} socket {local} in {namespace}, {frontend} → {backend}");
    match error {
        None => tracing::info!("closed the {socket}: {cause}"),
        Some(error) => tracing::warn!("cannot close the {socket} ({cause}): {error}"),
    }
}
