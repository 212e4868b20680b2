//! Finds the library beside a test program, and loads it before the driver is looked for.

use libloading::Library;
use std::env::{self, consts};
use std::ffi::c_char;
use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The stand-in, loaded into this process.
///
/// What is here talks to the library by names that no driver has. That a driver is looked for under the name
/// `libcuda.so`, and finds this library, is the work of the system's loader, which takes what is loaded already by that
/// name.
pub struct Standin {
    add_device: unsafe extern "C" fn(u32, u32) -> usize,
    set_seed: unsafe extern "C" fn(usize, u64),
    last_fault: unsafe extern "C" fn(usize, *mut c_char, usize) -> usize,
    live: unsafe extern "C" fn(usize, *mut [u64; 6]),
    downloaded: unsafe extern "C" fn(usize) -> u64,
    /// The functions live as long as their library.
    _library: Library,
}

/// How much there is on a device of what must be given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Pieces of device memory.
    pub allocations: u64,
    /// Pieces of pinned memory.
    pub pinned: u64,
    /// Streams.
    pub streams: u64,
    /// Events.
    pub events: u64,
    /// Modules.
    pub modules: u64,
    /// Graphs, recorded and instantiated.
    pub graphs: u64,
}

/// Loads the stand-in, so that the driver that this process finds is the stand-in, whatever the machine has. To be
/// called before anything asks for a driver; later calls give the same.
///
/// # Errors
/// When the library is not beside the program, or a driver was loaded before.
pub fn install() -> Result<&'static Standin, String> {
    static STANDIN: OnceLock<Result<Standin, String>> = OnceLock::new();
    STANDIN.get_or_init(load).as_ref().map_err(String::clone)
}

/// A folder with the stand-in as `libcuda.so`, for `LD_LIBRARY_PATH` of a program that a test starts. It goes when the
/// value is dropped.
///
/// # Errors
/// When the library is not beside the program, or the folder cannot be made.
pub fn folder() -> io::Result<tempfile::TempDir> {
    let library = library()?;
    let folder = tempfile::Builder::new().prefix("manygate-standin-driver-").tempdir()?;
    let link = folder.path().join(SYSTEM_NAME);
    // Where the two are on one disk nothing is copied.
    if std::fs::hard_link(&library, &link).is_err() {
        std::fs::copy(&library, &link)?;
    }
    Ok(folder)
}

/// What programs ask for.
const SYSTEM_NAME: &str = "libcuda.so";

/// Where Cargo puts the library: among the dependencies of test programs, which are there too.
fn library() -> io::Result<PathBuf> {
    let name = format!("{}manygate_standin_driver{}", consts::DLL_PREFIX, consts::DLL_SUFFIX);
    let program = env::current_exe()?;
    let folders =
        program.ancestors().skip(1).take(2).flat_map(|folder| [folder.to_owned(), folder.join("deps")]);
    let found = folders.map(|folder| folder.join(&name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        let why = format!("{name} is not beside {}: the test must depend on it", program.display());
        io::Error::new(io::ErrorKind::NotFound, why)
    })
}

fn load() -> Result<Standin, String> {
    let path = library().map_err(|error| error.to_string())?;
    let explain = |error: libloading::Error| format!("{}: {error}", path.display());
    // SAFETY: the library does nothing when it is loaded, and is never unloaded, as it is kept in a static.
    let library = unsafe { Library::new(&path) }.map_err(explain)?;
    // SAFETY: as above; what else has that name may be a driver, which is loaded already.
    let found = unsafe { Library::new(SYSTEM_NAME) }.map_err(explain)?;
    // SAFETY: the function has this type in the stand-in, and nothing else has one of this name.
    let is_this = unsafe { found.get::<unsafe extern "C" fn(u32, u32) -> usize>(ADD_DEVICE) }.is_ok();
    if !is_this {
        return Err(format!("{SYSTEM_NAME} is a driver that was loaded before the stand-in"));
    }
    // SAFETY: the functions have these types in `driver/extra.rs`.
    unsafe {
        Ok(Standin {
            add_device: *library.get(ADD_DEVICE).map_err(explain)?,
            set_seed: *library.get(b"manygate_standin_set_seed").map_err(explain)?,
            last_fault: *library.get(b"manygate_standin_last_fault").map_err(explain)?,
            live: *library.get(b"manygate_standin_live").map_err(explain)?,
            downloaded: *library.get(b"manygate_standin_downloaded").map_err(explain)?,
            _library: library,
        })
    }
}

const ADD_DEVICE: &[u8] = b"manygate_standin_add_device";

impl Standin {
    /// Adds a device of a compute capability with memory and faults of its own; gives its number. Tests that run at the
    /// same time have one each.
    pub fn add_device(&self, (major, minor): (u32, u32)) -> usize {
        // SAFETY: the library is loaded.
        unsafe { (self.add_device)(major, minor) }
    }

    /// Sets the order of a device's warps, and of its streams among each other; 0 for one after the other.
    pub fn set_seed(&self, ordinal: usize, seed: u64) {
        // SAFETY: the library is loaded.
        unsafe { (self.set_seed)(ordinal, seed) }
    }

    /// What a kernel did on a device, if one failed.
    pub fn last_fault(&self, ordinal: usize) -> Option<String> {
        // SAFETY: the library is loaded, and nothing is to be written.
        let len = unsafe { (self.last_fault)(ordinal, std::ptr::null_mut(), 0) };
        let mut text = vec![0u8; len];
        // SAFETY: the library is loaded, and `len` bytes are there.
        unsafe { (self.last_fault)(ordinal, text.as_mut_ptr().cast(), len) };
        (len > 0).then(|| String::from_utf8_lossy(&text).into_owned())
    }

    /// Bytes that copies have brought from a device to the host.
    pub fn downloaded(&self, ordinal: usize) -> u64 {
        // SAFETY: the library is loaded.
        unsafe { (self.downloaded)(ordinal) }
    }

    /// How much there is on a device.
    pub fn live(&self, ordinal: usize) -> Live {
        let mut counts = [0; 6];
        // SAFETY: the library is loaded, and there is place.
        unsafe { (self.live)(ordinal, &mut counts) };
        let [allocations, pinned, streams, events, modules, graphs] = counts;
        Live { allocations, pinned, streams, events, modules, graphs }
    }
}
