//! Objects by handle.

use crate::refusal::{Answer, refuse};
use cudarc::driver::sys::CUresult;
use std::collections::BTreeMap;

/// What a handle is of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Context,
    Pool,
    Stream,
    Event,
    Module,
    Function,
    Capture,
    Graph,
    Executable,
}

/// A handle: a number that names device, kind and object, so that none passes for another.
pub(crate) fn handle(ordinal: usize, kind: Kind, object: usize) -> usize {
    (ordinal + 1) << 40 | (kind as usize + 1) << 32 | object
}

/// Number of the device that a handle is of.
pub(crate) fn ordinal_of(handle: usize) -> Option<usize> {
    (handle >> 40).checked_sub(1)
}

/// Objects of one kind.
pub(crate) struct Table<T> {
    ordinal: usize,
    kind: Kind,
    made: usize,
    objects: BTreeMap<usize, T>,
}

impl<T> Table<T> {
    pub(crate) fn new(ordinal: usize, kind: Kind) -> Table<T> {
        Table { ordinal, kind, made: 0, objects: BTreeMap::new() }
    }

    /// Takes an object; gives its handle.
    pub(crate) fn insert(&mut self, object: T) -> usize {
        self.made += 1;
        let handle = handle(self.ordinal, self.kind, self.made);
        self.objects.insert(handle, object);
        handle
    }

    pub(crate) fn get(&self, handle: usize) -> Answer<&T> {
        match self.objects.get(&handle) {
            Some(object) => Ok(object),
            None => self.unknown(handle),
        }
    }

    pub(crate) fn get_mut(&mut self, handle: usize) -> Answer<&mut T> {
        if !self.objects.contains_key(&handle) {
            return self.unknown(handle);
        }
        Ok(self.objects.get_mut(&handle).expect("it is there"))
    }

    pub(crate) fn remove(&mut self, handle: usize) -> Answer<T> {
        match self.objects.remove(&handle) {
            Some(object) => Ok(object),
            None => self.unknown(handle),
        }
    }

    fn unknown<R>(&self, handle: usize) -> Answer<R> {
        let why = format!("{handle:#x} is no {:?} of device {}, or none any more", self.kind, self.ordinal);
        refuse(CUresult::CUDA_ERROR_INVALID_HANDLE, why)
    }

    pub(crate) fn handles(&self) -> Vec<usize> {
        self.objects.keys().copied().collect()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.objects.values_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }
}
