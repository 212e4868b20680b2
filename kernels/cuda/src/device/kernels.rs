//! Kernels that are loaded.

use super::Shared;
use super::driver::{Function, Module};
use super::error::DeviceError;
use crate::signature::parameters;
use crate::{Family, Launch};
use cudarc::driver::result::DriverError;
use cudarc::driver::sys::CUresult;
use std::collections::HashMap;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

/// The families that were used so far, by where they lie: two of one name may differ.
#[derive(Default)]
pub(super) struct Families(Mutex<HashMap<usize, Arc<Kernels>>>);

type Kernels = HashMap<&'static str, Arc<Kernel>>;

/// A kernel that can be launched.
pub(super) struct Kernel {
    /// Family and kernel, for messages.
    pub(super) name: Arc<str>,
    pub(super) function: Function,
    parameters: Vec<(usize, usize)>,
    /// Dynamic shared memory that a launch may have so far, in bytes.
    shared: Mutex<u32>,
}

impl Families {
    /// The kernels of a family, loaded where they are not.
    pub(super) fn get(&self, device: &Shared, family: &'static Family) -> Result<Arc<Kernels>, DeviceError> {
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = ptr::from_ref(family).addr();
        if let Some(kernels) = families.get(&place) {
            return Ok(kernels.clone());
        }
        let kernels = Arc::new(load(device, family)?);
        families.insert(place, kernels.clone());
        Ok(kernels)
    }

    /// The kernel of a launch.
    pub(super) fn kernel(&self, device: &Shared, launch: &Launch) -> Result<Arc<Kernel>, DeviceError> {
        let kernels = self.get(device, launch.family)?;
        kernels.get(launch.kernel).cloned().ok_or_else(|| no_kernel(launch.family, launch.kernel))
    }
}

fn load(device: &Shared, family: &'static Family) -> Result<Kernels, DeviceError> {
    let fails = |error: DriverError, log| {
        let fails = || DeviceError::Module { family: family.name, error: error.into(), log };
        device.fault(error).unwrap_or_else(fails)
    };
    let module = Module::load(&device.context, family.ptx).map_err(|(error, log)| fails(error, log))?;
    let module = Arc::new(module);
    let kernel = |name: &&'static str| {
        let (function, shared) = module.function(name).map_err(|error| match error.0 {
            CUresult::CUDA_ERROR_NOT_FOUND => no_kernel(family, name),
            // A driver may compile a module when the first of its kernels is asked for.
            _ => fails(error, String::new()),
        })?;
        let parameters = parameters(family.ptx, name).ok_or_else(|| no_kernel(family, name))?;
        let full_name = format!("{}/{name}", family.name).into();
        let kernel = Kernel { name: full_name, function, parameters, shared: Mutex::new(shared) };
        Ok((*name, Arc::new(kernel)))
    };
    family.kernels.iter().map(kernel).collect()
}

fn no_kernel(family: &'static Family, kernel: &str) -> DeviceError {
    DeviceError::NoKernel { family: family.name, kernel: kernel.to_owned() }
}

impl Kernel {
    /// Checks that the arguments of a launch are as many and as large as the kernel reads.
    pub(super) fn check_arguments(&self, launch: &Launch) -> Result<(), DeviceError> {
        let given = launch.arguments.places();
        if given == self.parameters {
            return Ok(());
        }
        let (kernel, wanted) = (self.name.to_string(), self.parameters.clone());
        Err(DeviceError::Arguments { kernel, wanted, given: given.to_vec() })
    }

    /// Lets launches have so much dynamic shared memory.
    pub(super) fn allow_shared(&self, bytes: u32) -> Result<(), DriverError> {
        let mut allowed = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > *allowed {
            self.function.allow_shared(bytes)?;
            *allowed = bytes;
        }
        Ok(())
    }
}
