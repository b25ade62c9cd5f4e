//! The `bpf(2)` commands that aya 0.14 does not offer: for links, for a device by its index, and for maps.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// `enum bpf_cmd`, include/uapi/linux/bpf.h.
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;

/// The part of `union bpf_attr` that commands for one element of a map read.
#[repr(C)]
struct ElementAttributes {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part of `union bpf_attr` that `BPF_MAP_LOOKUP_BATCH` reads and, of the count, writes.
#[repr(C)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The part of `union bpf_attr` that `BPF_OBJ_PIN` and `BPF_OBJ_GET` read.
#[repr(C)]
struct ObjectAttributes {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The part of `union bpf_attr` that `BPF_OBJ_GET_INFO_BY_FD` reads.
#[repr(C)]
struct InfoAttributes {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The part of `union bpf_attr` that `BPF_PROG_QUERY` reads and, of the count, writes.
#[repr(C)]
struct QueryAttributes {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    reserved: u32,
}

/// `BPF_F_QUERY_EFFECTIVE`: with the programs of the cgroups above.
const EFFECTIVE: u32 = 1;

/// The part of `union bpf_attr` that `BPF_LINK_CREATE` reads.
#[repr(C)]
struct LinkCreateAttributes {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that `BPF_LINK_UPDATE` reads.
#[repr(C)]
struct LinkUpdateAttributes {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// The part of `union bpf_attr` that `BPF_LINK_CREATE` reads for a TCX link.
#[repr(C)]
struct TcxLinkAttributes {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    expected_revision: u64,
}

/// `enum bpf_attach_type`: a device's way in.
pub(super) const BPF_TCX_INGRESS: u32 = 46;
/// A device's way out.
pub(super) const BPF_TCX_EGRESS: u32 = 47;

/// `BPF_F_BEFORE`: with no program named, before all others.
const BEFORE: u32 = 1 << 3;

/// `struct bpf_link_info` of a cgroup's or a TCX link.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LinkInfo {
    kind: u32,
    id: u32,
    /// The program that it holds.
    pub(super) program: u32,
    padding: u32,
    /// Of a cgroup's link, the first half of the cgroup's id; of a TCX link, the device.
    first: u32,
    second: u32,
    /// Of a cgroup's link, the hook, as `enum bpf_attach_type` numbers them.
    pub(super) attach_type: u32,
    padding2: u32,
}

impl LinkInfo {
    /// The index of a TCX link's device; 0 if the device is gone.
    pub(super) fn device(&self) -> u32 {
        self.first
    }
}

/// Reads what a socket storage map, whose values have as many bytes as `value`, holds of a socket.
pub(super) fn look_up(
    storage: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    value: &mut [u8],
) -> io::Result<()> {
    let key = socket.as_raw_fd();
    let attributes = ElementAttributes {
        map_fd: number(storage)?,
        padding: 0,
        key: &raw const key as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    bpf(BPF_MAP_LOOKUP_ELEM, &attributes).map(drop)
}

/// What to do with one element of a map.
#[derive(Clone, Copy, Debug)]
pub(super) enum Element {
    /// Read its value.
    LookUp,
    /// Read its value and take it out, in one step. Of hashes since Linux 5.14.
    Take,
    /// Add it; that there is one is an error.
    Add,
    /// Write it, whether or not there is one.
    Update,
    /// Take it out.
    Delete,
    /// Write the key after this one to where the value is. The first one, if `key` is null.
    NextKey,
}

/// One command for one element of a map.
///
/// # Safety
///
/// `key` is null where the command allows that, or is valid for reads of as many bytes as the map's keys have. `value` is
/// valid for reads (to add, to update) or writes (others, but to delete) of as many as its values, or for the next key
/// its keys, have.
pub(super) unsafe fn element(
    map: BorrowedFd<'_>,
    command: Element,
    key: *const libc::c_void,
    value: *mut libc::c_void,
) -> io::Result<()> {
    /// `BPF_NOEXIST`
    const NEW_ONLY: u64 = 1;
    let (command, flags) = match command {
        Element::LookUp => (BPF_MAP_LOOKUP_ELEM, 0),
        Element::Take => (BPF_MAP_LOOKUP_AND_DELETE_ELEM, 0),
        Element::Add => (BPF_MAP_UPDATE_ELEM, NEW_ONLY),
        Element::Update => (BPF_MAP_UPDATE_ELEM, 0),
        Element::Delete => (BPF_MAP_DELETE_ELEM, 0),
        Element::NextKey => (BPF_MAP_GET_NEXT_KEY, 0),
    };
    let attributes = ElementAttributes {
        map_fd: number(map)?,
        padding: 0,
        key: key as u64,
        value: value as u64,
        flags,
    };
    bpf(command, &attributes).map(drop)
}

/// Where a listing in parts stands. Of a hash it is the number of a bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(u64);

/// What [`look_up_batch`] found.
#[derive(Debug)]
pub(super) struct Batch {
    /// How many elements it has written.
    pub(super) count: usize,
    /// Where the next part begins; `None` if this was the last.
    pub(super) next: Option<Place>,
}

/// Reads the next part of a map, at most `room` elements. `StorageFull` if no part is that small.
///
/// # Safety
///
/// `keys` and `values` are valid for writes of `room` keys and values of the map's sizes, one after the other. A place is
/// one of a hash.
pub(super) unsafe fn look_up_batch(
    map: BorrowedFd<'_>,
    from: Option<Place>,
    keys: *mut libc::c_void,
    values: *mut libc::c_void,
    room: u32,
) -> io::Result<Batch> {
    let mut next = Place(0);
    let mut attributes = BatchAttributes {
        in_batch: from.as_ref().map_or(0, |place| &raw const place.0 as u64),
        out_batch: &raw mut next.0 as u64,
        keys: keys as u64,
        values: values as u64,
        count: room,
        map_fd: number(map)?,
        elem_flags: 0,
        flags: 0,
    };
    let size = size_of::<BatchAttributes>();
    let result = call(BPF_MAP_LOOKUP_BATCH, (&raw mut attributes).cast(), size);
    let count = attributes.count.min(room) as usize;
    match result {
        Ok(_) => Ok(Batch { count, next: Some(next) }),
        // The end; what comes with it counts.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Batch { count, next: None }),
        Err(error) => Err(error),
    }
}

/// Whether an error says that the kernel has no such command, or not for this kind of map.
pub(super) fn is_missing(error: &io::Error) -> bool {
    /// Of the kernel's own, which reaches us all the same.
    const ENOTSUPP: i32 = 524;
    matches!(error.raw_os_error(), Some(ENOTSUPP | libc::EOPNOTSUPP | libc::EINVAL))
}

/// Opens what is pinned at `path`.
pub(super) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = ObjectAttributes { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    descriptor(bpf(BPF_OBJ_GET, &attributes)?)
}

/// Pins a program, map or link at `path`.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes =
        ObjectAttributes { pathname: path.as_ptr() as u64, bpf_fd: number(object)?, file_flags: 0 };
    bpf(BPF_OBJ_PIN, &attributes).map(drop)
}

/// What the kernel knows of a link.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let attributes = InfoAttributes {
        bpf_fd: number(link)?,
        info_len: u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?,
        info: &raw mut info as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &attributes)?;
    Ok(info)
}

/// The ids of the programs that decide at this hook for the processes of a cgroup.
pub(super) fn effective_programs(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
    // A cgroup can have 64 (`BPF_CGROUP_MAX_PROGS`), and so can each one above.
    let mut ids = vec![0_u32; 1024];
    let mut attributes = QueryAttributes {
        target_fd: number(cgroup)?,
        attach_type,
        query_flags: EFFECTIVE,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 1024,
        reserved: 0,
    };
    call(BPF_PROG_QUERY, (&raw mut attributes).cast(), size_of::<QueryAttributes>())?;
    ids.truncate(attributes.prog_cnt as usize);
    Ok(ids)
}

/// Attaches `program` to a cgroup, after those that are attached to it.
pub(super) fn create_link(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let attributes = LinkCreateAttributes {
        prog_fd: number(program)?,
        target_fd: number(cgroup)?,
        attach_type,
        flags: 0,
    };
    descriptor(bpf(BPF_LINK_CREATE, &attributes)?)
}

/// Attaches `program` to a device, before those that are attached to it.
pub(super) fn create_tcx_link(
    program: BorrowedFd<'_>,
    device: u32,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let attributes = TcxLinkAttributes {
        prog_fd: number(program)?,
        target_ifindex: device,
        attach_type,
        flags: BEFORE,
        relative: 0,
        padding: 0,
        expected_revision: 0,
    };
    descriptor(bpf(BPF_LINK_CREATE, &attributes)?)
}

/// Puts `program` in the place of the one that `link` holds, atomically: every event sees one of
/// the two.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = LinkUpdateAttributes {
        link_fd: number(link)?,
        new_prog_fd: number(program)?,
        flags: 0,
        old_prog_fd: 0,
    };
    bpf(BPF_LINK_UPDATE, &attributes).map(drop)
}

fn number(fd: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)
}

#[expect(clippy::unnecessary_wraps, reason = "the last step of functions that can fail")]
fn descriptor(fd: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One `bpf(2)` call that writes no attributes. Fields that `attributes` leaves out are zero to the
/// kernel.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    call(command, std::ptr::from_ref(attributes).cast_mut().cast(), size_of::<T>())
}

fn call(
    command: libc::c_int,
    attributes: *mut libc::c_void,
    size: usize,
) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads `size` bytes, writes them for commands that say so, for which the
    // caller's pointer is mutable; and what they point to lives in the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size) };
    match libc::c_int::try_from(result) {
        Ok(value) if value >= 0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}
