//! Memory of the host that copies read and write later.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::with_exposed_provenance_mut;

/// It begins at a page.
const PAGE: usize = 4096;

/// What it begins as.
const RUBBISH: u8 = 0xCB;

/// A piece of it, freed when dropped.
pub(crate) struct Pinned {
    address: usize,
    layout: Layout,
}

impl Pinned {
    /// `bytes` bytes, if there are so many, and at least one.
    pub(crate) fn allocate(bytes: usize) -> Option<Pinned> {
        let layout = Layout::from_size_align(bytes, PAGE).ok().filter(|layout| layout.size() > 0)?;
        // SAFETY: the size is above 0.
        let memory = unsafe { alloc(layout) };
        if memory.is_null() {
            return None;
        }
        // SAFETY: so many bytes were just allocated.
        unsafe { memory.write_bytes(RUBBISH, bytes) };
        Some(Pinned { address: memory.expose_provenance(), layout })
    }

    pub(crate) fn address(&self) -> usize {
        self.address
    }

    pub(crate) fn bytes(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: allocated in `allocate` with this layout.
        unsafe { dealloc(with_exposed_provenance_mut(self.address), self.layout) };
    }
}
