//! Memory to measure kernels on, and launches on it.

use manygate_cuda::device::{Device, DeviceBuffer, DeviceError, Stream, Value};
use manygate_cuda::peak::{self, fill_ids, fill_random};
use manygate_cuda::{DeviceMat, Element, Launch};
use std::collections::BTreeMap;

/// A device with the memory of a case, which lives as long as this. Launches run on one stream.
pub(super) struct Workbench {
    /// By address; what launches read and write is in these.
    buffers: BTreeMap<u64, DeviceBuffer<u8>>,
    /// Streams of random numbers that were used.
    streams: u32,
    pub(super) stream: Stream,
    pub(super) device: Device,
}

impl Workbench {
    pub(super) fn new(device: &Device) -> Result<Workbench, DeviceError> {
        let stream = device.stream()?;
        Ok(Workbench { buffers: BTreeMap::new(), streams: 0, stream, device: device.clone() })
    }

    /// Address of `bytes` that are not initialised.
    pub(super) fn allocate(&mut self, bytes: u64) -> Result<u64, DeviceError> {
        let buffer = self.device.allocate(bytes as usize)?;
        Ok(self.keep(buffer))
    }

    /// Address of `bytes` zeros.
    pub(super) fn zeros(&mut self, bytes: u64) -> Result<u64, DeviceError> {
        let buffer = self.device.zeros(bytes as usize)?;
        Ok(self.keep(buffer))
    }

    /// Address of a copy of `bytes`.
    pub(super) fn upload(&mut self, bytes: &[u8]) -> Result<u64, DeviceError> {
        let buffer = self.device.upload(bytes)?;
        Ok(self.keep(buffer))
    }

    /// Address of a copy of `values`.
    pub(super) fn upload_f32(&mut self, values: impl IntoIterator<Item = f32>) -> Result<u64, DeviceError> {
        self.upload(&values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>())
    }

    /// Address of a copy of `values`.
    pub(super) fn upload_u32(&mut self, values: impl IntoIterator<Item = u32>) -> Result<u64, DeviceError> {
        self.upload(&values.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>())
    }

    fn keep(&mut self, buffer: DeviceBuffer<u8>) -> u64 {
        let address = buffer.address();
        self.buffers.insert(address, buffer);
        address
    }

    /// A matrix that is not initialised; rows lie as those of a plan do.
    pub(super) fn mat(&mut self, rows: u32, cols: u32, element: Element) -> Result<DeviceMat, DeviceError> {
        let stride = if cols < 16 { cols } else { cols.next_multiple_of(16) };
        self.mat_with(rows, cols, stride, element)
    }

    /// The same, with `stride` values from one row to the next.
    pub(super) fn mat_with(
        &mut self,
        rows: u32,
        cols: u32,
        stride: u32,
        element: Element,
    ) -> Result<DeviceMat, DeviceError> {
        let address = self.allocate(u64::from(rows) * u64::from(stride) * element.bytes())?;
        Ok(DeviceMat { address, live_rows: 0, rows, cols, stride, element })
    }

    /// A matrix of random numbers from `-scale` to `scale`.
    pub(super) fn random(
        &mut self,
        rows: u32,
        cols: u32,
        element: Element,
        scale: f32,
    ) -> Result<Random, DeviceError> {
        let mat = self.mat(rows, cols, element)?;
        self.fill(mat, scale)
    }

    /// The same, for weights and vectors: rows follow one another.
    pub(super) fn random_contiguous(
        &mut self,
        rows: u32,
        cols: u32,
        element: Element,
        scale: f32,
    ) -> Result<Random, DeviceError> {
        let mat = self.mat_with(rows, cols, cols, element)?;
        self.fill(mat, scale)
    }

    /// Fills a matrix with random numbers from `-scale` to `scale`, what lies between its rows too.
    pub(super) fn fill(&mut self, mat: DeviceMat, scale: f32) -> Result<Random, DeviceError> {
        let stream = self.next_stream();
        let count = u64::from(mat.rows) * u64::from(mat.stride);
        self.run(&[fill_random(mat.address, count, mat.element, stream, scale)])?;
        Ok(Random { mat, first: 0, stream, scale })
    }

    /// `count` ids below `below`: their address, and the stream that they are of.
    pub(super) fn ids(&mut self, count: u64, below: u32) -> Result<(u64, peak::Stream), DeviceError> {
        let (address, stream) = (self.allocate(4 * count)?, self.next_stream());
        self.run(&[fill_ids(address, count, stream, below)])?;
        Ok((address, stream))
    }

    fn next_stream(&mut self) -> peak::Stream {
        self.streams += 1;
        peak::Stream(self.streams)
    }

    /// Runs launches on this memory, and waits for them.
    pub(super) fn run(&self, launches: &[Launch]) -> Result<(), DeviceError> {
        self.put(&self.stream, launches)?;
        self.stream.synchronize()
    }

    /// Puts launches on this memory on the stream.
    pub(super) fn put(&self, stream: &Stream, launches: &[Launch]) -> Result<(), DeviceError> {
        launches.iter().try_for_each(|launch| {
            // SAFETY: cases are made in this module, of buffers that they get from here and that live as long as `self`,
            // each as large as the shapes of its launches say; all work on them is on this one stream.
            unsafe { stream.launch(launch) }
        })
    }

    /// Puts a copy by the driver on the stream, from the beginning of one buffer to that of another.
    pub(super) fn copy(&self, stream: &Stream, from: u64, to: u64, bytes: u64) -> Result<(), DeviceError> {
        match (self.buffers.get(&from), self.buffers.get(&to)) {
            (Some(from), Some(to)) => to.copy_from(stream, 0, from, 0..bytes as usize),
            _ => Err(DeviceError::OutOfBounds { from: 0, to: bytes as usize, len: 0 }),
        }
    }

    /// The buffer that holds `address`, and how far in.
    fn buffer(&self, address: u64) -> Option<(&DeviceBuffer<u8>, usize)> {
        let (start, buffer) = self.buffers.range(..=address).next_back()?;
        Some((buffer, (address - start) as usize))
    }

    /// `count` values from `address` on.
    fn bytes(&self, address: u64, count: usize) -> Result<Vec<u8>, DeviceError> {
        let mut bytes = vec![0; count];
        match self.buffer(address) {
            Some((buffer, from)) => buffer.download(&self.stream, from, &mut bytes)?,
            None => return Err(DeviceError::OutOfBounds { from: 0, to: count, len: 0 }),
        }
        Ok(bytes)
    }

    /// `count` values of f32, f64 or u32 from `address` on.
    pub(super) fn download<T: Value + FromBytes>(
        &self,
        address: u64,
        count: usize,
    ) -> Result<Vec<T>, DeviceError> {
        let bytes = self.bytes(address, count * size_of::<T>())?;
        Ok(bytes.chunks_exact(size_of::<T>()).map(T::from_bytes).collect())
    }

    /// A row of a matrix.
    pub(super) fn row(&self, mat: DeviceMat, row: u32) -> Result<Vec<f64>, DeviceError> {
        let at = mat.address + u64::from(row) * u64::from(mat.stride) * mat.element.bytes();
        let count = mat.cols as usize;
        Ok(match mat.element {
            Element::F32 => self.download::<f32>(at, count)?.into_iter().map(f64::from).collect(),
            Element::Bf16 => {
                let bits = self.download::<u16>(at, count)?;
                bits.into_iter().map(|bits| f32::from_bits(u32::from(bits) << 16).into()).collect()
            }
        })
    }
}

/// A value of bytes in the order of the device.
pub(super) trait FromBytes {
    fn from_bytes(bytes: &[u8]) -> Self;
}

macro_rules! from_bytes {
    ($($t:ty),*) => {
        $(impl FromBytes for $t {
            fn from_bytes(bytes: &[u8]) -> $t {
                let mut own = [0; size_of::<$t>()];
                own.copy_from_slice(bytes);
                <$t>::from_le_bytes(own)
            }
        })*
    };
}
from_bytes!(u16, u32, f32, f64);

/// A matrix of random numbers, whose values the host knows too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Random {
    pub(super) mat: DeviceMat,
    /// Number of its first value in the stream.
    first: u64,
    stream: peak::Stream,
    scale: f32,
}

impl Random {
    /// A value, as it is stored.
    pub(super) fn at(&self, row: u32, col: u32) -> f32 {
        let index = self.first + u64::from(row) * u64::from(self.mat.stride) + u64::from(col);
        let value = self.stream.number(index) * self.scale;
        match self.mat.element {
            Element::F32 => value,
            Element::Bf16 => {
                let bits = value.to_bits();
                f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
            }
        }
    }

    /// A row.
    pub(super) fn row(&self, row: u32) -> Vec<f64> {
        (0..self.mat.cols).map(|col| self.at(row, col).into()).collect()
    }

    /// Columns `from .. from + count`.
    pub(super) fn columns(&self, from: u32, count: u32) -> Random {
        Random { mat: self.mat.columns(from, count), first: self.first + u64::from(from), ..*self }
    }
}
