//! The device layer, on the stand-in driver or on a device.

mod buffers;
mod kernels;
mod launches;
mod recordings;
mod streams;
mod unavailable;
