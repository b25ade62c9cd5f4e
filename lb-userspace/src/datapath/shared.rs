//! A memory-mapped BPF array: entries that the agent reads and writes without a system call.

use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd as _};

use anyhow::{Context as _, Result, ensure};
use memmap2::{MmapOptions, MmapRaw};

/// The entries of an array map, shared with the kernel programs.
#[derive(Debug)]
pub(super) struct Shared<T> {
    memory: MmapRaw,
    length: u32,
    entry: PhantomData<T>,
}

impl<T: Copy> Shared<T> {
    /// The kernel rounds each entry up to eight bytes (`array_map_alloc`, kernel/bpf/arraymap.c).
    const STRIDE: usize = size_of::<T>().next_multiple_of(8);

    /// Maps an array that was made with `BPF_F_MMAPABLE` and has `length` entries of
    /// `value_size` bytes.
    pub(super) fn map(fd: impl AsFd, length: u32, value_size: u32) -> Result<Self> {
        ensure!(
            value_size as usize == size_of::<T>(),
            "entries of {value_size} bytes, where {} are expected",
            size_of::<T>()
        );
        let memory = MmapOptions::new()
            .len(length as usize * Self::STRIDE)
            .map_raw(fd.as_fd().as_raw_fd())
            .context("mapping it into memory")?;
        Ok(Self { memory, length, entry: PhantomData })
    }

    /// Number of entries.
    pub(super) fn len(&self) -> u32 {
        self.length
    }

    /// A copy of an entry. What programs or the agent change word by word may be of different
    /// moments; each word is whole.
    ///
    /// # Panics
    ///
    /// If there is no such entry.
    pub(super) fn get(&self, index: u32) -> T {
        // SAFETY: the entry is inside the mapping and aligned; T is plain data, of which every bit
        // pattern is valid. Volatile, because kernel programs write it, too.
        unsafe { self.entry(index).read_volatile() }
    }

    /// Writes an entry, word by word in no certain order.
    ///
    /// # Panics
    ///
    /// If there is no such entry.
    pub(super) fn set(&mut self, index: u32, value: T) {
        // SAFETY: as for `get`.
        unsafe { self.entry(index).write_volatile(value) };
    }

    /// Writes a part of an entry that no one else writes; the rest may be others'.
    ///
    /// # Panics
    ///
    /// If there is no such entry.
    pub(super) fn set_field<F: Copy>(
        &mut self,
        index: u32,
        part: impl FnOnce(*mut T) -> *mut F,
        value: F,
    ) {
        // SAFETY: as for `get`; `part` points to a part of the entry.
        unsafe { self.field(index, part).write_volatile(value) };
    }

    /// A pointer to a part of an entry, valid while the mapping is.
    pub(super) fn field<F>(&self, index: u32, part: impl FnOnce(*mut T) -> *mut F) -> *mut F {
        part(self.entry(index))
    }

    fn entry(&self, index: u32) -> *mut T {
        assert!(index < self.length, "entry {index} of {}", self.length);
        // SAFETY: index < length, so that the whole entry is inside the mapping.
        unsafe { self.memory.as_mut_ptr().add(index as usize * Self::STRIDE).cast() }
    }
}
