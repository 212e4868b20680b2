//! What goes wrong on a device.

use cudarc::driver::result::DriverError;
use cudarc::driver::sys::CUresult;
use std::fmt;

/// What went wrong on a device.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// Memory is used up.
    #[error(
        "out of memory on the CUDA device: {} wanted, {} of {} free; take a smaller batch or smaller tables",
        bytes(*wanted), bytes(*free), bytes(*total)
    )]
    OutOfMemory {
        /// Bytes that were asked for.
        wanted: u64,
        /// Bytes that are free.
        free: u64,
        /// Bytes of the device.
        total: u64,
    },
    /// Memory of the host that a device can read is used up.
    #[error("{} of the host's memory cannot be pinned: {error}", bytes(*wanted))]
    OutOfPinned {
        /// Bytes that were asked for.
        wanted: u64,
        /// What the driver says.
        error: DriverFailure,
    },
    /// A family's PTX does not load.
    #[error("the kernels of `{family}` do not load: {error}{}", on_new_line(log))]
    Module {
        /// The family.
        family: &'static str,
        /// What the driver says.
        error: DriverFailure,
        /// The compiler's own words, if it had any.
        log: String,
    },
    /// A family's PTX lacks a kernel.
    #[error("`{family}` has no kernel `{kernel}` that can be launched")]
    NoKernel {
        /// The family.
        family: &'static str,
        /// The kernel.
        kernel: String,
    },
    /// A launch does not fit its kernel's parameters.
    #[error("{kernel}: its parameters (offset, size) are {wanted:?}, the arguments {given:?}")]
    Arguments {
        /// The kernel.
        kernel: String,
        /// Offset and size of each parameter.
        wanted: Vec<(usize, usize)>,
        /// Offset and size of each argument.
        given: Vec<(usize, usize)>,
    },
    /// The driver refuses a launch.
    #[error(
        "{kernel} cannot be launched with {grid:?} blocks of {threads} threads and {shared} bytes of shared memory: \
         {error}"
    )]
    Launch {
        /// The kernel.
        kernel: String,
        /// Blocks.
        grid: [u32; 3],
        /// Threads of a block.
        threads: u32,
        /// Bytes of dynamic shared memory.
        shared: u32,
        /// What the driver says.
        error: DriverFailure,
    },
    /// A kernel did what is not allowed. The device cannot be used any more by this process.
    #[error(
        "a kernel failed: {error}; last launched was {last}, and one before it may be the culprit: with \
         CUDA_LAUNCH_BLOCKING=1 it is the last"
    )]
    Fault {
        /// What was launched last.
        last: String,
        /// What the driver says.
        error: DriverFailure,
    },
    /// Values do not lie inside of a buffer.
    #[error("values {from}..{to} of a buffer that holds {len}")]
    OutOfBounds {
        /// First value.
        from: usize,
        /// Behind the last value.
        to: usize,
        /// Values of the buffer.
        len: usize,
    },
    /// A stream and a buffer are of different devices.
    #[error("the stream is of another device than the memory")]
    OtherDevice,
    /// Something that cannot be part of a recording was asked of a stream that records.
    #[error("a stream that records cannot {0}")]
    WhileRecording(&'static str),
    /// The driver refuses something else.
    #[error("the CUDA device cannot {doing}: {error}")]
    Driver {
        /// What was being done.
        doing: &'static str,
        /// What the driver says.
        error: DriverFailure,
    },
}

fn on_new_line(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("\n{log}") }
}

/// Bytes as a person reads them.
pub(super) fn bytes(count: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, power)| count >= 1 << power) {
        Some((unit, power)) => format!("{:.1} {unit}", count as f64 / (1u64 << power) as f64),
        None => format!("{count} bytes"),
    }
}

/// An error of the driver: its name and what the driver says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct DriverFailure {
    name: String,
    text: String,
}

impl DriverFailure {
    /// As the driver names it: `CUDA_ERROR_INVALID_VALUE`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for DriverFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.text)
    }
}

impl From<DriverError> for DriverFailure {
    fn from(error: DriverError) -> DriverFailure {
        let text = error.error_string().map_or("the driver does not say why".into(), |t| t.to_string_lossy());
        DriverFailure { name: format!("{:?}", error.0), text: text.into_owned() }
    }
}

/// Whether `error` is what a kernel did, which the device does not get over.
pub(super) fn is_fault(error: DriverError) -> bool {
    matches!(
        error.0,
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
            | CUresult::CUDA_ERROR_ASSERT
            | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
            | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUresult::CUDA_ERROR_INVALID_PC
            | CUresult::CUDA_ERROR_LAUNCH_FAILED
            | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
    )
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_are_written_for_people() {
        assert_eq!(bytes(512), "512 bytes");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
    }
}
