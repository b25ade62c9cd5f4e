//! What went over a device, for reading after a test has failed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use socket2::Socket;

use super::frames::packet_socket;
use super::netns::Namespace;
use super::{report, sandbox};

/// Bytes of each packet that are kept.
const KEPT: u32 = 256;

/// A recording that is kept if the test fails.
pub(crate) struct Capture {
    path: PathBuf,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Capture {
    /// Records every packet of all devices in the namespace, if `LB_CAPTURE` is set.
    pub(crate) fn of(namespace: &Namespace) -> Option<Self> {
        std::env::var_os("LB_CAPTURE")?;
        let name = format!("e2e-{}-{}.pcap", std::process::id(), sandbox::get().next_number());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let socket = namespace.run(socket).expect("root may listen to packets");
        let over = Arc::new(AtomicBool::new(false));
        let (file, is_over) = (File::create(&path).expect("target/tmp"), Arc::clone(&over));
        let thread = thread::spawn(move || record(&socket, file, &is_over));
        Some(Self { path, over, thread: Some(thread) })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let result = self.thread.take().map(JoinHandle::join);
        if thread::panicking() {
            let path = self.path.display();
            report::evidence("capture", &format!("packets of the node: {path} ({result:?})"));
        } else {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn socket() -> io::Result<Socket> {
    let socket = packet_socket()?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    socket.set_recv_buffer_size(8 << 20)?;
    Ok(socket)
}

/// Writes pcap's format: a header, then each packet behind its own.
fn record(socket: &Socket, file: File, over: &AtomicBool) -> io::Result<()> {
    const ETHERNET: u32 = 1;
    let mut file = BufWriter::new(file);
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, KEPT, ETHERNET] {
        file.write_all(&word.to_ne_bytes())?;
    }
    while !over.load(Ordering::Relaxed) {
        let mut packet = [0; KEPT as usize];
        match rustix::net::recv(socket, &mut packet, rustix::net::RecvFlags::TRUNC) {
            Ok((kept, length)) => keep(&mut file, &packet[..kept], length)?,
            Err(_) => file.flush()?,
        }
    }
    file.flush()
}

fn keep(file: &mut impl Write, kept: &[u8], length: usize) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    let fields = [now.as_secs(), now.subsec_micros().into(), kept.len() as u64, length as u64];
    for field in fields {
        file.write_all(&u32::try_from(field).unwrap_or(u32::MAX).to_ne_bytes())?;
    }
    file.write_all(kept)
}
