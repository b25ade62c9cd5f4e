//! A tunnel between two namespaces whose packets have no link header, as WireGuard's have none.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::netns::Namespace;

/// include/uapi/linux/if_tun.h: IP packets without a word before them.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const IFF_TUN_NO_PI: u16 = 0x1001;

/// The part of `struct ifreq` that the call reads, and the rest.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Carries packets until it is dropped.
pub(crate) struct Tunnel {
    over: Arc<AtomicBool>,
    carrier: Option<JoinHandle<()>>,
}

impl Tunnel {
    /// A device `tun0` in both namespaces, up.
    #[track_caller]
    pub(crate) fn between(here: &Namespace, there: &Namespace) -> Self {
        let ends = [here, there].map(|namespace| {
            let end = namespace.run(open).expect("the kernel has tunnels (/dev/net/tun)");
            namespace.ip("link set tun0 up");
            end
        });
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let carrier = thread::spawn(move || carry(&ends, &is_over));
        Self { over, carrier: Some(carrier) }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(carrier) = self.carrier.take() {
            let _ = carrier.join();
        }
    }
}

fn open() -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut name = [0; 16];
    name[..4].copy_from_slice(b"tun0");
    let request = Request { name, flags: IFF_TUN_NO_PI, rest: [0; 22] };
    // SAFETY: the kernel reads and writes one `struct ifreq`, which is as large.
    match unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw const request) } {
        0 => Ok(file),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What comes out of one end goes into the other. As of a wire, what finds no room is lost.
fn carry(ends: &[File; 2], over: &AtomicBool) {
    let mut packet = vec![0; 65_536];
    let wait = Timespec::try_from(Duration::from_millis(50)).expect("a short time");
    while !over.load(Ordering::Relaxed) {
        let mut ready =
            ends.each_ref().map(|end| PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN));
        let _ = poll(&mut ready, Some(&wait));
        let ready = ready.map(|end| end.revents().contains(PollFlags::IN));
        for (from, to) in [(0, 1), (1, 0)] {
            if ready[from]
                && let Ok(length) = (&ends[from]).read(&mut packet)
            {
                let _ = (&ends[to]).write(&packet[..length]);
            }
        }
    }
}
