//! Finding a device, and saying clearly why there is none.

use super::driver;
use super::error::{DriverFailure, bytes};
use cudarc::driver::CudaContext;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{CUdevice, CUdevice_attribute, CUresult};
use std::fmt;
use std::sync::Arc;

/// The oldest CUDA whose drivers take the kernels' PTX and have every function that is called.
const OLDEST_CUDA: Version = Version { major: 12, minor: 0 };

/// The oldest compute capability that the kernels are compiled for.
const OLDEST_CAPABILITY: Version = Version { major: 8, minor: 0 };

/// A version of CUDA, or a compute capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Before the point.
    pub major: u32,
    /// Behind it.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Why there is no device to compute on, and what to do about it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Unavailable {
    /// The driver's library is not installed.
    #[error(
        "no CUDA driver: the library libcuda.so.1 is not found; it comes with NVIDIA's driver, 525 or newer \
         (in a container, with NVIDIA's container toolkit)"
    )]
    NoDriver,
    /// The driver is older than the kernels.
    #[error("the driver knows CUDA {found}, and {needed} is needed: install NVIDIA's driver 525 or newer")]
    OldDriver {
        /// The newest CUDA that it knows.
        found: Version,
        /// The oldest that would do.
        needed: Version,
    },
    /// The driver does not start.
    #[error("the CUDA driver does not start: {0}; `nvidia-smi` says more")]
    Driver(DriverFailure),
    /// There are fewer devices than asked for.
    #[error(
        "no CUDA device {wanted}: {}; CUDA_VISIBLE_DEVICES may hide some, `nvidia-smi` lists all",
        devices_found(*found)
    )]
    NoDevice {
        /// The number that was asked for, from 0.
        wanted: usize,
        /// How many devices there are.
        found: usize,
    },
    /// The device is older than the kernels.
    #[error(
        "CUDA device {ordinal} ({name}) has compute capability {found}, and {needed} or more is needed: \
         an A100, RTX 30 or newer"
    )]
    OldDevice {
        /// Its number.
        ordinal: usize,
        /// Its name.
        name: String,
        /// What it has.
        found: Version,
        /// What would do.
        needed: Version,
    },
    /// The device cannot be used now.
    #[error("CUDA device {ordinal} ({name}) cannot be used: {error}; `nvidia-smi` shows who else uses it")]
    Refused {
        /// Its number.
        ordinal: usize,
        /// Its name.
        name: String,
        /// What the driver says.
        error: DriverFailure,
    },
}

fn devices_found(found: usize) -> String {
    match found {
        0 => "the driver finds none".to_owned(),
        1 => "the driver finds one, which is device 0".to_owned(),
        _ => format!("the driver finds {found}, numbered from 0"),
    }
}

/// A device, for people to read.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Its number, from 0.
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// What it can do.
    pub compute_capability: Version,
    /// Bytes of its memory.
    pub memory: u64,
    /// Bytes that are free; [`None`] where the device cannot be used now.
    pub free_memory: Option<u64>,
    /// How many multiprocessors it has.
    pub multiprocessors: u32,
    /// The newest CUDA that the driver knows.
    pub driver: Version,
}

impl Description {
    /// Whether the kernels run on it.
    pub fn is_supported(&self) -> bool {
        self.compute_capability >= OLDEST_CAPABILITY
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Description { ordinal, name, compute_capability, memory, free_memory, multiprocessors, driver } =
            self;
        write!(f, "{ordinal}: {name}, compute capability {compute_capability}, {}", bytes(*memory))?;
        match free_memory {
            Some(free) => write!(f, " ({} free)", bytes(*free))?,
            None => write!(f, " (in use by others)")?,
        }
        write!(f, ", {multiprocessors} multiprocessors, driver for CUDA {driver}")?;
        if self.is_supported() { Ok(()) } else { write!(f, ", too old") }
    }
}

/// The driver, started.
pub(super) struct Driver {
    version: Version,
    devices: usize,
}

impl Driver {
    /// Starts the driver, as often as one likes.
    pub(super) fn start() -> Result<Driver, Unavailable> {
        if !driver::is_present() {
            return Err(Unavailable::NoDriver);
        }
        let version = driver::version().map_err(failed)?;
        let version = Version { major: version as u32 / 1000, minor: version as u32 % 1000 / 10 };
        if version < OLDEST_CUDA {
            return Err(Unavailable::OldDriver { found: version, needed: OLDEST_CUDA });
        }
        let devices = match result::init().and_then(|()| result::device::get_count()) {
            Ok(count) => usize::try_from(count).unwrap_or(0),
            Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => 0,
            Err(error) => return Err(failed(error)),
        };
        Ok(Driver { version, devices })
    }

    /// Uses a device.
    pub(super) fn open(&self, ordinal: usize) -> Result<(Arc<CudaContext>, Description), Unavailable> {
        if ordinal >= self.devices {
            return Err(Unavailable::NoDevice { wanted: ordinal, found: self.devices });
        }
        let mut description = self.describe(ordinal)?;
        let name = || description.name.clone();
        if !description.is_supported() {
            let (found, needed) = (description.compute_capability, OLDEST_CAPABILITY);
            return Err(Unavailable::OldDevice { ordinal, name: name(), found, needed });
        }
        let context = driver::use_device(ordinal)
            .and_then(|context| Ok((driver::free_and_total(&context)?.0, context)));
        let (free, context) =
            context.map_err(|error| Unavailable::Refused { ordinal, name: name(), error: error.into() })?;
        description.free_memory = Some(free);
        Ok((context, description))
    }

    /// All devices.
    pub(super) fn list(&self) -> Result<Vec<Description>, Unavailable> {
        let free_memory = |ordinal| driver::free_and_total(&*CudaContext::new(ordinal)?);
        let describe = |ordinal| {
            let description = self.describe(ordinal)?;
            Ok(Description { free_memory: free_memory(ordinal).ok().map(|(free, _)| free), ..description })
        };
        (0..self.devices).map(describe).collect()
    }

    /// A device, without the memory that is free.
    fn describe(&self, ordinal: usize) -> Result<Description, Unavailable> {
        let device: CUdevice = result::device::get(ordinal as i32).map_err(failed)?;
        let attribute = |attribute| driver::attribute(device, attribute).map_err(failed);
        Ok(Description {
            ordinal,
            name: result::device::get_name(device).map_err(failed)?,
            compute_capability: Version {
                major: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                minor: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            },
            memory: driver::total_memory(device).map_err(failed)?,
            free_memory: None,
            multiprocessors: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            driver: self.version,
        })
    }
}

fn failed(error: DriverError) -> Unavailable {
    Unavailable::Driver(error.into())
}
