//! One kernel on one shape in one precision.

use super::mmoe::tolerance;
use super::workbench::Workbench;
use manygate_cuda::device::DeviceError;
use manygate_cuda::{Launch, Precision};
use serde::{Serialize, Serializer};
use std::fmt;

/// Sizes of a case, by name, in the order in which they are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(Vec<(&'static str, u64)>);

impl Shape {
    /// With these sizes.
    pub(super) fn new<N: Into<u64> + Copy>(sizes: &[(&'static str, N)]) -> Shape {
        Shape(sizes.iter().map(|(name, size)| (*name, (*size).into())).collect())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.0.iter().map(|(name, size)| format!("{name} {size}")).collect();
        f.pad(&sizes.join(", "))
    }
}

impl Serialize for Shape {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// What a kernel has to do at the least.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Bytes that must come from or go to memory: each input and each output once.
    pub bytes: f64,
    /// Floating-point operations of products, a multiply-add counted as two.
    pub flops: f64,
}

/// One kernel, or the launches that belong together, on one shape in one precision.
pub struct Case {
    /// Name of the kernel, or of what the launches do.
    pub kernel: &'static str,
    /// The shape.
    pub shape: Shape,
    /// What products multiply in, and elsewhere what values are stored as.
    pub precision: Precision,
    /// What there is to do.
    pub work: Work,
    /// Largest relative error that the precision explains.
    pub tolerance: f64,
    /// Fills memory.
    pub(super) prepare: Box<Prepare>,
}

/// Fills memory of a device with what the launches read, and gives them.
pub(super) type Prepare = dyn Fn(&mut Workbench) -> Result<Prepared, DeviceError>;

/// Launches, and what looks at their results after they have run once: the relative error on a sample.
pub(super) struct Prepared {
    pub(super) launches: Vec<Launch>,
    pub(super) check: Box<Check>,
}

/// Compares results with a reference: the largest relative error.
pub(super) type Check = dyn Fn(&Workbench) -> Result<f64, DeviceError>;

impl Prepared {
    pub(super) fn new(
        launches: Vec<Launch>,
        check: impl Fn(&Workbench) -> Result<f64, DeviceError> + 'static,
    ) -> Result<Prepared, DeviceError> {
        Ok(Prepared { launches, check: Box::new(check) })
    }
}

impl Case {
    /// Of what exists once, in f32, with so many bytes to move.
    pub(super) fn once(
        kernel: &'static str,
        sizes: &[(&'static str, u32)],
        bytes: f64,
        prepare: impl Fn(&mut Workbench) -> Result<Prepared, DeviceError> + 'static,
    ) -> Case {
        Case {
            kernel,
            shape: Shape::new(sizes),
            precision: Precision::F32,
            work: Work { bytes, flops: 0.0 },
            tolerance: tolerance(Precision::F32),
            prepare: Box::new(prepare),
        }
    }

    /// The precision, as it is told.
    pub fn precision_name(&self) -> &'static str {
        match self.precision {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        }
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}; {})", self.kernel, self.shape, self.precision_name())
    }
}
