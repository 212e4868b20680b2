//! A CUDA driver for machines without a GPU: a `libcuda.so` whose devices are the PTX interpreter. Tests alone use it.
//!
//! It has the functions that the engine's device layer calls (`src/driver/`), and is as strict as a driver where a
//! driver is, and stricter where that finds mistakes that a GPU would hide:
//! - Handles, contexts, sizes of launches, parameters, shared memory and addresses of copies are checked. The text that
//!   `cuGetErrorString` gives ends with what was wrong.
//! - Memory is bounds-checked, never used twice, and begins as rubbish. What a kernel does wrong is a fault, which
//!   every call after it returns; its text is printed on stderr too.
//! - Work on a stream runs as late as it may: when the host waits for it, or another stream that is waited for does. A
//!   missing event, or a look at pinned memory that comes too soon, meets old values. What is freed, in contrast, is
//!   gone at once: a launch before it that was not waited for fails.
//! - While a stream records, what CUDA forbids then is an error and spoils the recording: waiting, allocating and
//!   freeing (of any kind), loading modules, the legacy stream, copies of memory that is not pinned.
//!
//! Test programs load it with [`install`](fn@install), and give a program that they start [`folder`] in
//! `LD_LIBRARY_PATH`. The environment says what devices there are:
//!
//! | variable | what | without it |
//! |---|---|---|
//! | `MANYGATE_STANDIN_DEVICES` | how many devices | 1 |
//! | `MANYGATE_STANDIN_CAPABILITY` | their compute capability | 8.0 |
//! | `MANYGATE_STANDIN_MEMORY` | bytes of memory of each | 4 GiB |
//! | `MANYGATE_STANDIN_POOLS` | 0 for devices without memory pools | 1 |
//! | `MANYGATE_STANDIN_DRIVER` | the newest CUDA that the driver knows | 12.0 |
//! | `MANYGATE_STANDIN_SEED` | order of warps, and of streams among each other; 0 for the plain order | 0 |
//!
//! Not modelled: time, caches, what several blocks see of each other's writes before a kernel ends, registers.

mod capture;
mod device;
mod driver;
mod install;
mod kernel;
mod knobs;
mod pinned;
mod process;
mod refusal;
mod table;
mod work;

pub use install::{Live, Standin, folder, install};
