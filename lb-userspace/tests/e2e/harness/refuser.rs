//! A program of somebody else's: one that refuses every IPv4 connect.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// What the program is called.
pub(crate) const NAME: &str = "refuse_all";

/// Numbers of include/uapi/linux/bpf.h.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const CGROUP_SOCK_ADDR: u32 = 18;
const INET4_CONNECT: u32 = 10;

/// `r0 = 0; exit`
const CODE: [u64; 2] = [0xb7, 0x95];

/// The part of `union bpf_attr` that `BPF_PROG_LOAD` reads.
#[repr(C)]
#[derive(Default)]
struct ProgramAttributes {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log: [u32; 4],
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    device: u32,
    attach_type: u32,
}

/// The attached program; dropped, it is gone.
pub(crate) struct Refuser {
    _link: OwnedFd,
}

impl Refuser {
    /// Refuses the connects of the cgroup's processes.
    #[track_caller]
    pub(crate) fn at(cgroup: &Path) -> Self {
        let cgroup = File::open(cgroup).expect("the stage's cgroup");
        let mut attributes = ProgramAttributes {
            kind: CGROUP_SOCK_ADDR,
            instructions: 2,
            code: CODE.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            attach_type: INET4_CONNECT,
            ..ProgramAttributes::default()
        };
        attributes.name[..NAME.len()].copy_from_slice(NAME.as_bytes());
        let program = bpf(BPF_PROG_LOAD, &attributes).expect("a program of two instructions");
        let fds = [program.as_raw_fd(), cgroup.as_raw_fd()].map(libc::c_int::cast_unsigned);
        let link = bpf(BPF_LINK_CREATE, &[fds[0], fds[1], INET4_CONNECT, 0]);
        Self { _link: link.expect("it can be attached") }
    }
}

/// A call that makes a file descriptor.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads size_of::<T>() bytes, and what they point to lives in the caller.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    };
    match libc::c_int::try_from(result) {
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
