//! A device to test kernels on.
//!
//! It is the stand-in driver over the PTX interpreter, a device for each [`Gpu`], so that tests run beside each other
//! and the fault of one is not that of another. With `MANYGATE_TEST_DEVICE=cuda` it is the machine's first CUDA device.

pub mod lists;
pub mod values;

pub use lists::Sampled;
pub use values::{Window, first_difference, values};

use manygate_cuda::device::{Device, DeviceBuffer, DeviceError, Stream};
use manygate_cuda::{DeviceMat, Element, Launch};
use manygate_standin_driver::{Standin, install};
use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

/// Names the device to test on.
const DEVICE: &str = "MANYGATE_TEST_DEVICE";

/// The project's root, with golden cases, configurations and data: where the tests were built, or what
/// `MANYGATE_ROOT` names, as on a machine that they were carried to.
pub fn project_root() -> PathBuf {
    env::var_os("MANYGATE_ROOT")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), PathBuf::from)
}

/// A device with a memory, on which launches run one after the other.
pub struct Gpu {
    /// Addresses that tests hold are of these.
    buffers: BTreeMap<u64, DeviceBuffer<u8>>,
    stream: Stream,
    device: Device,
    /// The stand-in and the number of its device; [`None`] on a real one.
    standin: Option<(&'static Standin, usize)>,
    /// Order in which warps run, 0 for the plain one; a real device has its own.
    pub seed: u64,
}

impl Default for Gpu {
    fn default() -> Gpu {
        Gpu::new()
    }
}

impl Gpu {
    /// A device, of the oldest kind that the kernels run on.
    ///
    /// # Panics
    /// When there is none.
    pub fn new() -> Gpu {
        Gpu::of_capability((8, 0))
    }

    /// A device of a compute capability; a real one has its own.
    ///
    /// # Panics
    /// When there is none.
    pub fn of_capability(capability: (u32, u32)) -> Gpu {
        let (ordinal, standin) = match env::var(DEVICE).as_deref() {
            Ok("cuda") => (0, None),
            Ok("standin") | Err(_) => {
                let standin = install().expect("the stand-in driver");
                let ordinal = standin.add_device(capability);
                (ordinal, Some((standin, ordinal)))
            }
            Ok(other) => panic!("{DEVICE}={other}: it is `cuda` or `standin`"),
        };
        let device = Device::open(ordinal).unwrap_or_else(|why| panic!("{why}"));
        let stream = device.stream().expect("a stream");
        Gpu { buffers: BTreeMap::new(), stream, device, standin, seed: 0 }
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The stream that launches run on.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The stand-in and the number of its device; [`None`] on a real one.
    pub fn standin(&self) -> Option<(&'static Standin, usize)> {
        self.standin
    }

    /// A device whose warps run in the order `seed`.
    pub fn with_order(seed: u64) -> Gpu {
        Gpu { seed, ..Gpu::new() }
    }

    /// Address of a copy of `values`.
    pub fn upload<T: Value>(&mut self, values: &[T]) -> u64 {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_bytes()).collect();
        let buffer = self.device.upload(&bytes).expect("memory");
        self.keep(buffer)
    }

    /// `count` values from `address` on.
    pub fn download<T: Value>(&mut self, address: u64, count: usize) -> Vec<T> {
        let (start, buffer) = self.buffers.range(..=address).next_back().expect("an address of this device");
        let mut bytes = vec![0; count * size_of::<T>()];
        buffer.download(&self.stream, (address - start) as usize, &mut bytes).expect("allocated");
        bytes.chunks_exact(size_of::<T>()).map(T::from_bytes).collect()
    }

    /// Address of `count` values that are not initialised.
    pub fn allocate<T: Value>(&mut self, count: usize) -> u64 {
        let buffer = self.device.allocate(count * size_of::<T>()).expect("memory");
        self.keep(buffer)
    }

    /// Frees all memory: addresses so far are none of this device any more.
    pub fn free_all(&mut self) {
        self.buffers.clear();
    }

    fn keep(&mut self, buffer: DeviceBuffer<u8>) -> u64 {
        let address = buffer.address();
        self.buffers.insert(address, buffer);
        address
    }

    /// A matrix with a copy of `values`, `rows` rows of `stride` values of which `cols` count.
    pub fn upload_mat(&mut self, values: &[f32], rows: usize, cols: usize, stride: usize) -> DeviceMat {
        assert_eq!(values.len(), rows * stride);
        let address = self.upload(values);
        let (rows, cols, stride) = (rows as u32, cols as u32, stride as u32);
        DeviceMat { address, live_rows: 0, rows, cols, stride, element: Element::F32 }
    }

    /// All values of a matrix, what lies between its rows included, `rows * stride`.
    pub fn download_mat(&mut self, mat: DeviceMat) -> Vec<f32> {
        self.download(mat.address, (mat.rows * mat.stride) as usize)
    }

    /// Runs `launch`.
    ///
    /// # Panics
    /// When it does something that is not allowed.
    pub fn launch(&mut self, launch: &Launch) {
        self.try_launch(launch).unwrap_or_else(|fault| panic!("{}: {fault}", launch.kernel));
    }

    /// Runs `launch`. A device on which a kernel did something that is not allowed cannot be used any more.
    ///
    /// # Errors
    /// What it does that is not allowed.
    pub fn try_launch(&mut self, launch: &Launch) -> Result<(), String> {
        if let Some((standin, ordinal)) = self.standin {
            standin.set_seed(ordinal, self.seed);
        }
        self.run(launch).map_err(|error| error.to_string())
    }

    fn run(&self, launch: &Launch) -> Result<(), DeviceError> {
        // SAFETY: the memory that a test can name is that of its buffers, which live as long as this, and nothing runs
        // beside the launch. The stand-in finds other addresses; before it has run a kernel, no test runs it elsewhere.
        unsafe { self.stream.launch(launch) }?;
        self.stream.synchronize()
    }
}

/// A value that device memory holds.
pub trait Value: Copy {
    /// Its bytes.
    fn to_bytes(self) -> Vec<u8>;
    /// The value of its bytes.
    fn from_bytes(bytes: &[u8]) -> Self;
}

macro_rules! values {
    ($($t:ty),*) => {
        $(impl Value for $t {
            fn to_bytes(self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
            fn from_bytes(bytes: &[u8]) -> $t {
                <$t>::from_le_bytes(bytes.try_into().expect("as many bytes as the value has"))
            }
        })*
    };
}
values!(u8, u16, u32, u64, f32, f64);
