//! A CUDA device: its memory, streams of work, and launches on them.
//!
//! ```no_run
//! use manygate_cuda::device::Device;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::open(0)?;
//! let stream = device.stream()?;
//! let weights = device.zeros::<f32>(1024)?;
//! weights.upload(&stream, 0, &[0.5; 1024])?;
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here panics: a machine without driver or device is an [`Unavailable`], all else is a [`DeviceError`].
//!
//! **Who vouches for what.** Device memory is no memory of this program: what a kernel leaves there is at worst wrong
//! numbers. It is reached by address, though, and an address may be that of anything: of memory that was freed and
//! belongs to another buffer by now, or of pinned memory, which the host reads through references. Nothing can check
//! that in a launch, which is data. So [`Stream::launch`] and [`Recorded::launch`] are `unsafe`, and all else is safe:
//! copies check their bounds, pinned memory waits for its copies before the host gets to see it, and what is dropped
//! waits for the device.

mod driver;
mod error;
mod gate;
mod kernels;
mod memory;
mod open;
mod recorded;
mod stream;

pub use error::{DeviceError, DriverFailure};
pub use memory::{DeviceBuffer, PinnedBuffer, Value};
pub use open::{Description, Unavailable, Version};
pub use recorded::Recorded;
pub use stream::{Event, Stream};

use crate::{Family, Launch};
use cudarc::driver::result::DriverError;
use cudarc::driver::{CudaContext, CudaStream};
use gate::Gate;
use kernels::Families;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The compute capability that [`Launch::on_hopper`] is for.
const HOPPER: Version = Version { major: 9, minor: 0 };

/// A CUDA device in use. A clone is the same device.
#[derive(Clone)]
pub struct Device {
    shared: Arc<Shared>,
}

/// What everything on a device needs.
struct Shared {
    context: Arc<CudaContext>,
    /// Where memory is allocated and freed, so that neither waits for work.
    memory: Arc<CudaStream>,
    description: Description,
    families: Families,
    gate: Gate,
    /// The kernel that was launched last: a fault shows later, when the host waits.
    last: Mutex<Arc<str>>,
}

impl Device {
    /// Uses a device.
    ///
    /// # Errors
    /// When there is no driver, or one older than CUDA 12.0; when the device does not exist, cannot be used, or has a
    /// compute capability below 8.0.
    pub fn open(ordinal: usize) -> Result<Device, Unavailable> {
        let (context, description) = open::Driver::start()?.open(ordinal)?;
        let memory = context.new_stream().map_err(|error| Unavailable::Refused {
            ordinal,
            name: description.name.clone(),
            error: error.into(),
        })?;
        let (families, gate, last) = (Families::default(), Gate::default(), Mutex::new("nothing".into()));
        Ok(Device { shared: Arc::new(Shared { context, memory, description, families, gate, last }) })
    }

    /// All devices, those included that are too old. Each is used for a moment.
    ///
    /// # Errors
    /// When there is no driver, or it does not start. No devices are no error.
    pub fn list() -> Result<Vec<Description>, Unavailable> {
        open::Driver::start()?.list()
    }

    /// The device, as it was when it was opened.
    pub fn description(&self) -> &Description {
        &self.shared.description
    }

    /// Bytes of memory that are free now.
    ///
    /// # Errors
    /// When the driver does not say.
    pub fn free_memory(&self) -> Result<u64, DeviceError> {
        let (free, _) =
            self.shared.check("ask for free memory", driver::free_and_total(&self.shared.context))?;
        Ok(free)
    }

    /// Memory for `len` values, which are not initialised. It can be used on every stream at once.
    ///
    /// # Errors
    /// When memory is used up.
    pub fn allocate<T: Value>(&self, len: usize) -> Result<DeviceBuffer<T>, DeviceError> {
        DeviceBuffer::allocate(&self.shared, len)
    }

    /// Memory for `len` values, all 0.
    ///
    /// # Errors
    /// When memory is used up.
    pub fn zeros<T: Value>(&self, len: usize) -> Result<DeviceBuffer<T>, DeviceError> {
        let (buffer, stream) = (self.allocate(len)?, self.memory_stream());
        buffer.fill_zeros(&stream, 0..len)?;
        stream.synchronize()?;
        Ok(buffer)
    }

    /// Memory with a copy of `values`.
    ///
    /// # Errors
    /// When memory is used up.
    pub fn upload<T: Value>(&self, values: &[T]) -> Result<DeviceBuffer<T>, DeviceError> {
        let buffer = self.allocate(values.len())?;
        buffer.upload(&self.memory_stream(), 0, values)?;
        Ok(buffer)
    }

    /// Memory of the host for `len` values, all 0, that the device reads and writes without detour.
    ///
    /// # Errors
    /// When the system does not pin so much.
    pub fn pinned<T: Value>(&self, len: usize) -> Result<PinnedBuffer<T>, DeviceError> {
        PinnedBuffer::allocate(&self.shared, len)
    }

    /// A new stream: what is put on it runs in order, and beside what is on other streams.
    ///
    /// # Errors
    /// When the driver has none.
    pub fn stream(&self) -> Result<Stream, DeviceError> {
        let stream = self.shared.check("make a stream", self.shared.context.new_stream())?;
        Ok(Stream::new(self.shared.clone(), stream))
    }

    /// A new event.
    ///
    /// # Errors
    /// When the driver has none.
    pub fn event(&self) -> Result<Event, DeviceError> {
        Event::new(self.shared.clone())
    }

    /// Loads the kernels of a family, which its first launch does otherwise: on a new driver that compiles them.
    ///
    /// # Errors
    /// When the PTX does not load or lacks a kernel.
    pub fn load(&self, family: &'static Family) -> Result<(), DeviceError> {
        self.shared.families.get(&self.shared, family).map(drop)
    }

    /// Loads those of what this device runs for a launch, as the launch itself would.
    ///
    /// # Errors
    /// As [`load`](Device::load).
    pub fn load_for(&self, launch: &Launch) -> Result<(), DeviceError> {
        let own = self.shared.own(launch);
        if own.grid.contains(&0) { Ok(()) } else { self.load(own.family) }
    }

    /// Waits until all streams are done.
    ///
    /// # Errors
    /// When a kernel failed.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.shared.check("wait for the device", self.shared.wait())
    }

    fn memory_stream(&self) -> Stream {
        Stream::new(self.shared.clone(), self.shared.memory.clone())
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.shared.description)
    }
}

impl Shared {
    /// What this device runs for a launch.
    fn own<'a>(&self, launch: &'a Launch) -> &'a Launch {
        match &launch.on_hopper {
            Some(own) if self.description.compute_capability == HOPPER => own,
            _ => launch,
        }
    }

    /// Waits for all streams; not while another thread records.
    fn wait(&self) -> Result<(), DriverError> {
        self.gate.wait(|| self.context.synchronize())
    }

    /// What went wrong with what was being done, `doing`.
    fn check<T>(&self, doing: &'static str, result: Result<T, DriverError>) -> Result<T, DeviceError> {
        result.map_err(|error| self.error(doing, error))
    }

    /// The error of what was being done; a kernel's fault, where it shows one.
    fn error(&self, doing: &'static str, error: DriverError) -> DeviceError {
        self.fault(error).unwrap_or_else(|| DeviceError::Driver { doing, error: error.into() })
    }

    /// The fault, where `error` is one.
    fn fault(&self, error: DriverError) -> Option<DeviceError> {
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner).to_string();
        error::is_fault(error).then(|| DeviceError::Fault { last: last(), error: error.into() })
    }

    fn set_last(&self, kernel: &Arc<str>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = kernel.clone();
    }
}
