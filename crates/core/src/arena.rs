//! Aligned memory for numbers, and views into it.

use manygate_kernels::{Mat, MatMut};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Bytes to which a [`Buffer`] is aligned: one cache line, one AVX-512 vector.
pub const ALIGNMENT: usize = 64;

/// A zero-initialised block of f32 values, aligned to a cache line.
///
/// It behaves as a slice. Beside that it hands out views of disjoint regions, which a plan checks once
/// ([`Buffer::view`], [`Buffer::view_mut`]).
pub struct Buffer {
    ptr: NonNull<f32>,
    len: usize,
}

// SAFETY: a `Buffer` owns its memory, as a `Vec<f32>` does.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        if len == 0 {
            return Buffer { ptr: NonNull::dangling(), len: 0 };
        }
        let layout = Self::layout(len);
        // SAFETY: the layout has a size above zero.
        let ptr = unsafe { alloc_zeroed(layout) };
        let Some(ptr) = NonNull::new(ptr.cast::<f32>()) else { handle_alloc_error(layout) };
        Buffer { ptr, len }
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len * size_of::<f32>(), ALIGNMENT).expect("a buffer's size overflows")
    }

    /// A view `[rows, cols]` from `offset`, for reading.
    ///
    /// # Safety
    /// No writable view of any of its elements is alive.
    ///
    /// # Panics
    /// When the region is out of bounds.
    pub unsafe fn view(&self, offset: usize, rows: usize, cols: usize, stride: usize) -> Mat<'_> {
        self.check(offset, rows, cols, stride);
        // SAFETY: in bounds by the check, initialised at creation, not written by the caller's contract.
        unsafe { Mat::from_raw(self.ptr.as_ptr().add(offset), rows, cols, stride) }
    }

    /// A view `[rows, cols]` from `offset`, for writing, through a shared reference: the caller divides the buffer.
    ///
    /// # Safety
    /// No other view of any of its elements is alive, on any thread.
    ///
    /// # Panics
    /// When the region is out of bounds.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn view_mut(&self, offset: usize, rows: usize, cols: usize, stride: usize) -> MatMut<'_> {
        self.check(offset, rows, cols, stride);
        // SAFETY: in bounds by the check, exclusive by the caller's contract.
        unsafe { MatMut::from_raw(self.ptr.as_ptr().add(offset), rows, cols, stride) }
    }

    /// The values `offset .. offset + len` for writing, through a shared reference: the caller divides the buffer.
    ///
    /// # Safety
    /// No other view of any of its elements is alive, on any thread.
    ///
    /// # Panics
    /// When the region is out of bounds.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice_mut(&self, offset: usize, len: usize) -> &mut [f32] {
        self.check(offset, 1, len, len);
        // SAFETY: in bounds by the check, exclusive by the caller's contract.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr().add(offset), len) }
    }

    /// Address of the first value, through which disjoint parts may be written while the buffer is only borrowed;
    /// dereferencing it is the caller's promise that they are disjoint.
    pub fn shared_ptr(&self) -> *mut f32 {
        self.ptr.as_ptr()
    }

    fn check(&self, offset: usize, rows: usize, cols: usize, stride: usize) {
        let span = if rows == 0 || cols == 0 { 0 } else { (rows - 1) * stride + cols };
        assert!(
            offset + span <= self.len,
            "a view [{rows}, {cols}] at {offset} with stride {stride} leaves a buffer of {} values",
            self.len
        );
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated in `zeroed` with this layout.
            unsafe { dealloc(self.ptr.as_ptr().cast(), Self::layout(self.len)) }
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `len` initialised values at `ptr`, or none.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as `deref`, with `self` borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = Buffer::zeroed(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} values)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_zeroed_and_divisible() {
        let mut buffer = Buffer::zeroed(100);
        assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
        assert!(buffer.iter().all(|&v| v == 0.0));
        {
            // SAFETY: the two views share no element.
            let (mut left, mut right) =
                unsafe { (buffer.view_mut(0, 4, 3, 10), buffer.view_mut(3, 4, 7, 10)) };
            left.fill(1.0);
            right.fill(2.0);
        }
        assert_eq!(&buffer[8..15], &[2.0, 2.0, 1.0, 1.0, 1.0, 2.0, 2.0]);
        buffer[0] = 5.0;
        assert_eq!(buffer.clone()[0], 5.0);
        assert_eq!(Buffer::zeroed(0).len(), 0);
    }

    #[test]
    #[should_panic(expected = "leaves a buffer")]
    fn a_view_outside_is_refused() {
        let buffer = Buffer::zeroed(10);
        // SAFETY: no other view is alive; the bounds are what is tested.
        let _ = unsafe { buffer.view(8, 1, 3, 3) };
    }
}
