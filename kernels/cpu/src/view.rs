//! Row-major matrix views with a row stride.
//!
//! A view may be a range of columns of a wider buffer (one expert of a bank, the gates of a fused product), so two
//! disjoint views can interleave in memory. That cannot be said with slices; hence raw pointers inside and a safe
//! surface outside: rows come out as ordinary slices, and every constructor but [`Mat::from_raw`] and
//! [`MatMut::from_raw`] checks its lengths.

use std::marker::PhantomData;

/// A read-only view `[rows, cols]`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    ptr: *const f32,
    rows: usize,
    cols: usize,
    stride: usize,
    life: PhantomData<&'a [f32]>,
}

/// A writable view `[rows, cols]`. No two live writable views share an element.
#[derive(Debug)]
pub struct MatMut<'a> {
    ptr: *mut f32,
    rows: usize,
    cols: usize,
    stride: usize,
    life: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `Mat` is a shared borrow of f32 values, which are Sync.
unsafe impl Send for Mat<'_> {}
// SAFETY: as above.
unsafe impl Sync for Mat<'_> {}
// SAFETY: a `MatMut` is an exclusive borrow of f32 values, which are Send.
unsafe impl Send for MatMut<'_> {}

fn check(len: usize, rows: usize, cols: usize, stride: usize) {
    assert!(cols <= stride || rows <= 1, "view: {cols} columns do not fit a stride of {stride}");
    let needed = if rows == 0 || cols == 0 { 0 } else { (rows - 1) * stride + cols };
    assert!(
        needed <= len,
        "view: [{rows}, {cols}] with stride {stride} needs {needed} values, the slice has {len}"
    );
}

impl<'a> Mat<'a> {
    /// A dense view of `data` as `[rows, cols]`.
    ///
    /// # Panics
    /// When `data` is shorter than `rows * cols`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A view `[rows, cols]` whose rows start `stride` values apart.
    ///
    /// # Panics
    /// When `data` is too short, or `cols > stride`.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        check(data.len(), rows, cols, stride);
        Self { ptr: data.as_ptr(), rows, cols, stride, life: PhantomData }
    }

    /// A view over raw memory.
    ///
    /// # Safety
    /// For `'a`, every element `ptr[r * stride + c]` with `r < rows`, `c < cols` is initialised, inside one
    /// allocation, and not written through any other pointer.
    pub unsafe fn from_raw(ptr: *const f32, rows: usize, cols: usize, stride: usize) -> Self {
        debug_assert!(cols <= stride || rows <= 1);
        Self { ptr, rows, cols, stride, life: PhantomData }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Distance between the starts of two rows, in values.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Pointer to the first element, for kernels.
    pub fn as_ptr(&self) -> *const f32 {
        self.ptr
    }

    /// Row `r` as a slice of `cols` values.
    ///
    /// # Panics
    /// When `r >= rows`.
    #[inline(always)]
    pub fn row(&self, r: usize) -> &'a [f32] {
        assert!(r < self.rows, "row {r} of a view with {} rows", self.rows);
        // SAFETY: the constructor's contract covers `cols` values from the start of each row.
        unsafe { std::slice::from_raw_parts(self.ptr.add(r * self.stride), self.cols) }
    }

    /// All values as one slice.
    ///
    /// # Panics
    /// When rows are not adjacent in memory.
    pub fn contiguous(&self) -> &'a [f32] {
        assert!(
            self.stride == self.cols || self.rows <= 1,
            "rows are {} apart, not {}",
            self.stride,
            self.cols
        );
        if self.rows == 0 || self.cols == 0 {
            return &[];
        }
        // SAFETY: the constructor's contract covers every row, and the rows leave no gaps.
        unsafe { std::slice::from_raw_parts(self.ptr, self.rows * self.cols) }
    }

    /// Columns `from .. from + count`.
    ///
    /// # Panics
    /// When they are out of range.
    pub fn columns(&self, from: usize, count: usize) -> Mat<'a> {
        assert!(from + count <= self.cols, "columns {from}+{count} of a view with {} columns", self.cols);
        // SAFETY: a sub-rectangle of a valid view; an offset at the end is used only for zero columns.
        unsafe { Mat::from_raw(self.ptr.add(from), self.rows, count, self.stride) }
    }

    /// Rows `from .. from + count`.
    ///
    /// # Panics
    /// When they are out of range.
    pub fn row_range(&self, from: usize, count: usize) -> Mat<'a> {
        assert!(from + count <= self.rows, "rows {from}+{count} of a view with {} rows", self.rows);
        if count == 0 {
            return Mat { rows: 0, ..*self };
        }
        // SAFETY: a sub-rectangle of a valid view; `from` is below `rows` here.
        unsafe { Mat::from_raw(self.ptr.add(from * self.stride), count, self.cols, self.stride) }
    }
}

impl<'a> MatMut<'a> {
    /// A dense view of `data` as `[rows, cols]`.
    ///
    /// # Panics
    /// When `data` is shorter than `rows * cols`.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A view `[rows, cols]` whose rows start `stride` values apart.
    ///
    /// # Panics
    /// When `data` is too short, or `cols > stride`.
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, stride: usize) -> Self {
        check(data.len(), rows, cols, stride);
        Self { ptr: data.as_mut_ptr(), rows, cols, stride, life: PhantomData }
    }

    /// A view over raw memory.
    ///
    /// # Safety
    /// For `'a`, every element `ptr[r * stride + c]` with `r < rows`, `c < cols` is initialised, inside one
    /// allocation, and neither read nor written through any other pointer.
    pub unsafe fn from_raw(ptr: *mut f32, rows: usize, cols: usize, stride: usize) -> Self {
        debug_assert!(cols <= stride || rows <= 1);
        Self { ptr, rows, cols, stride, life: PhantomData }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Distance between the starts of two rows, in values.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Pointer to the first element, for kernels.
    pub fn as_mut_ptr(&mut self) -> *mut f32 {
        self.ptr
    }

    /// Row `r` as a slice of `cols` values.
    ///
    /// # Panics
    /// When `r >= rows`.
    #[inline(always)]
    pub fn row(&self, r: usize) -> &[f32] {
        assert!(r < self.rows, "row {r} of a view with {} rows", self.rows);
        // SAFETY: the constructor's contract covers `cols` values from the start of each row.
        unsafe { std::slice::from_raw_parts(self.ptr.add(r * self.stride), self.cols) }
    }

    /// Row `r` as a writable slice of `cols` values.
    ///
    /// # Panics
    /// When `r >= rows`.
    #[inline(always)]
    pub fn row_mut(&mut self, r: usize) -> &mut [f32] {
        assert!(r < self.rows, "row {r} of a view with {} rows", self.rows);
        // SAFETY: as `row`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(r * self.stride), self.cols) }
    }

    /// All values as one slice.
    ///
    /// # Panics
    /// When rows are not adjacent in memory.
    pub fn into_contiguous(self) -> &'a mut [f32] {
        assert!(
            self.stride == self.cols || self.rows <= 1,
            "rows are {} apart, not {}",
            self.stride,
            self.cols
        );
        if self.rows == 0 || self.cols == 0 {
            return &mut [];
        }
        // SAFETY: the constructor's contract covers every row, and the rows leave no gaps; the view is consumed.
        unsafe { std::slice::from_raw_parts_mut(self.ptr, self.rows * self.cols) }
    }

    /// Rows `from .. from + count`, for as long as the whole view.
    ///
    /// # Panics
    /// When they are out of range.
    pub fn into_row_range(self, from: usize, count: usize) -> MatMut<'a> {
        assert!(from + count <= self.rows, "rows {from}+{count} of a view with {} rows", self.rows);
        if count == 0 {
            return MatMut { rows: 0, ..self };
        }
        // SAFETY: a sub-rectangle of a valid view, which is consumed; `from` is below `rows` here.
        unsafe { MatMut::from_raw(self.ptr.add(from * self.stride), count, self.cols, self.stride) }
    }

    /// The same elements for reading.
    pub fn as_mat(&self) -> Mat<'_> {
        // SAFETY: same elements; the borrow of `self` keeps writers out.
        unsafe { Mat::from_raw(self.ptr, self.rows, self.cols, self.stride) }
    }

    /// The same elements for a shorter time.
    pub fn reborrow(&mut self) -> MatMut<'_> {
        MatMut { ptr: self.ptr, rows: self.rows, cols: self.cols, stride: self.stride, life: PhantomData }
    }

    /// Columns `from .. from + count`.
    ///
    /// # Panics
    /// When they are out of range.
    pub fn columns(&mut self, from: usize, count: usize) -> MatMut<'_> {
        assert!(from + count <= self.cols, "columns {from}+{count} of a view with {} columns", self.cols);
        // SAFETY: a sub-rectangle of a valid view, borrowed exclusively.
        unsafe { MatMut::from_raw(self.ptr.add(from), self.rows, count, self.stride) }
    }

    /// Rows `from .. from + count`.
    ///
    /// # Panics
    /// When they are out of range.
    pub fn row_range(&mut self, from: usize, count: usize) -> MatMut<'_> {
        assert!(from + count <= self.rows, "rows {from}+{count} of a view with {} rows", self.rows);
        if count == 0 {
            return MatMut { rows: 0, ..self.reborrow() };
        }
        // SAFETY: a sub-rectangle of a valid view, borrowed exclusively; `from` is below `rows` here.
        unsafe { MatMut::from_raw(self.ptr.add(from * self.stride), count, self.cols, self.stride) }
    }

    /// Sets every element.
    pub fn fill(&mut self, value: f32) {
        for r in 0..self.rows {
            self.row_mut(r).fill(value);
        }
    }
}
