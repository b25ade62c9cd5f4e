//! A BPF hash by the commands that aya 0.14 lacks: listed in parts, and elements taken out with what they held.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, OwnedFd};
use std::ptr;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{MapData, MapType};

use super::syscall::{self, Element};

/// Elements that are read at once. Grows where a bucket holds more.
const ROOM: u32 = 4096;

/// Commands of the kernel that can be done without.
#[derive(Clone, Copy, Debug)]
pub struct Commands {
    /// `BPF_MAP_LOOKUP_BATCH` (Linux 5.6).
    pub batch: bool,
    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM` of hashes (Linux 5.14).
    pub take: bool,
}

impl Commands {
    /// What a kernel of these days has.
    pub const ALL: Self = Self { batch: true, take: true };
}

/// The elements of a hash whose keys and values are plain data.
#[derive(Debug)]
pub(super) struct Elements<K, V> {
    map: OwnedFd,
    capacity: u32,
    /// Those that the kernel has not refused yet.
    commands: Commands,
    types: PhantomData<(K, V)>,
}

impl<K: Copy, V: Copy> Elements<K, V> {
    /// The elements of a hash; its keys and values must be as large as the types.
    pub(super) fn new(map: &MapData, commands: Commands) -> Result<Self> {
        let info = map.info()?;
        let sizes = (info.key_size() as usize, info.value_size() as usize);
        ensure!(info.map_type().is_ok_and(|kind| kind == MapType::Hash), "not a hash");
        ensure!(
            sizes == (size_of::<K>(), size_of::<V>()),
            "keys and values of {sizes:?} bytes, where {} and {} are expected",
            size_of::<K>(),
            size_of::<V>()
        );
        let capacity = info.max_entries();
        let map = map.fd().as_fd().try_clone_to_owned().context("a second descriptor")?;
        Ok(Self { map, capacity, commands, types: PhantomData })
    }

    /// How many there can be.
    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// All elements. One that comes or goes meanwhile may be among them or not; of the others each is there once.
    pub(super) fn list(&mut self, blank: (K, V)) -> io::Result<Vec<(K, V)>>
    where
        K: Ord,
    {
        if self.commands.batch {
            match self.list_in_parts(blank) {
                Err(error) if syscall::is_missing(&error) => self.commands.batch = false,
                result => return result,
            }
        }
        self.list_by_key(blank)
    }

    /// The value of a key.
    pub(super) fn look_up(&self, key: &K, blank: V) -> io::Result<Option<V>> {
        self.read(Element::LookUp, key, blank)
    }

    /// Takes an element out, and returns the value that it had then. Where the kernel cannot do both at once, a change in
    /// between is lost.
    pub(super) fn take(&mut self, key: &K, blank: V) -> io::Result<Option<V>> {
        if self.commands.take {
            match self.read(Element::Take, key, blank) {
                Err(error) if syscall::is_missing(&error) => self.commands.take = false,
                result => return result,
            }
        }
        let Some(value) = self.look_up(key, blank)? else { return Ok(None) };
        // SAFETY: a key; to delete reads no value.
        let deleted = unsafe {
            let key = ptr::from_ref(key).cast();
            syscall::element(self.map.as_fd(), Element::Delete, key, ptr::null_mut())
        };
        found(deleted.map(|()| value))
    }

    /// Adds an element. That there is one is an error, as that there is no room.
    pub(super) fn add(&self, key: &K, mut value: V) -> io::Result<()> {
        // SAFETY: both are as large as the map's, by `new`.
        unsafe {
            let (key, value) = (ptr::from_ref(key).cast(), (&raw mut value).cast());
            syscall::element(self.map.as_fd(), Element::Add, key, value)
        }
    }

    fn list_in_parts(&self, (key, value): (K, V)) -> io::Result<Vec<(K, V)>> {
        let mut all = Vec::new();
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let (mut room, mut from) = (ROOM, None);
        loop {
            keys.resize(room as usize, key);
            values.resize(room as usize, value);
            // SAFETY: both have room for as many elements, each as large as the map's, by `new`.
            let batch = unsafe {
                let (keys, values) = (keys.as_mut_ptr().cast(), values.as_mut_ptr().cast());
                syscall::look_up_batch(self.map.as_fd(), from, keys, values, room)
            };
            match batch {
                Ok(batch) => {
                    let part = keys.iter().copied().zip(values.iter().copied());
                    all.extend(part.take(batch.count));
                    match batch.next {
                        Some(next) => from = Some(next),
                        None => return Ok(all),
                    }
                }
                // A bucket holds more than that.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => room *= 2,
                Err(error) => return Err(error),
            }
        }
    }

    /// A key that goes while it is the current one makes the kernel begin again, so that keys come twice; more keys than
    /// twice what the map can hold are no listing that ends.
    fn list_by_key(&self, (key, value): (K, V)) -> io::Result<Vec<(K, V)>>
    where
        K: Ord,
    {
        let mut all = Vec::new();
        let mut current: Option<K> = None;
        for _ in 0..=2 * u64::from(self.capacity) {
            let mut next = key;
            // SAFETY: both are keys, or there is none yet.
            let step = unsafe {
                let current = current.as_ref().map_or(ptr::null(), |key| ptr::from_ref(key).cast());
                syscall::element(
                    self.map.as_fd(),
                    Element::NextKey,
                    current,
                    (&raw mut next).cast(),
                )
            };
            if found(step)?.is_none() {
                break;
            }
            all.extend(self.look_up(&next, value)?.map(|value| (next, value)));
            current = Some(next);
        }
        all.sort_unstable_by_key(|(key, _)| *key);
        all.dedup_by_key(|(key, _)| *key);
        Ok(all)
    }

    fn read(&self, command: Element, key: &K, mut value: V) -> io::Result<Option<V>> {
        // SAFETY: both are as large as the map's, by `new`, and plain data, of which every bit pattern is valid.
        let read = unsafe {
            let (key, value) = (ptr::from_ref(key).cast(), (&raw mut value).cast());
            syscall::element(self.map.as_fd(), command, key, value)
        };
        found(read.map(|()| value))
    }
}

/// That there is no such element is no error.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
