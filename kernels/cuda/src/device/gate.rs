//! Keeps those apart who record and those who wait for the whole device.
//!
//! CUDA forbids to wait for a device while any of its streams records, and spoils the recording. So whoever waits, to
//! free memory for one, waits until other threads have recorded, and recordings begin when nobody waits.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{self, ThreadId};

#[derive(Default)]
pub(super) struct Gate {
    /// The threads that record, once for each recording.
    recording: Mutex<Vec<ThreadId>>,
    ended: Condvar,
}

/// The right to record, until it is dropped.
pub(super) struct Recording<'a>(&'a Gate);

impl Gate {
    pub(super) fn record(&self) -> Recording<'_> {
        let mut recording = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        recording.push(thread::current().id());
        Recording(self)
    }

    /// Waits for the device by `wait`, once no other thread records. A thread that records itself is told by the
    /// driver.
    pub(super) fn wait<T>(&self, wait: impl FnOnce() -> T) -> T {
        let here = thread::current().id();
        let recording = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        let others = |recording: &mut Vec<ThreadId>| recording.iter().any(|thread| *thread != here);
        let _nobody_begins = self.ended.wait_while(recording, others).unwrap_or_else(PoisonError::into_inner);
        wait()
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        let mut recording = self.0.recording.lock().unwrap_or_else(PoisonError::into_inner);
        let here = thread::current().id();
        if let Some(own) = recording.iter().position(|thread| *thread == here) {
            recording.swap_remove(own);
        }
        self.0.ended.notify_all();
    }
}
