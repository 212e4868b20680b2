//! Modules, kernels, and what a launch must be like.

use crate::device::Device;
use crate::knobs::Knobs;
use crate::refusal::{Answer, Refusal, invalid, refuse};
use cudarc::driver::sys::CUresult;
use manygate_ptx_interpreter::{self as ptx, FaultKind, Kernel, Memory, Module};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

/// Most threads of a block, and shared memory that a block gets without asking.
const MAX_THREADS: u32 = 1024;
const SHARED: usize = 48 << 10;

/// Most bytes of parameters.
const MAX_PARAMETERS: usize = 4096;

/// Most modules that are kept parsed: the engine has fewer.
const MAX_PARSED: usize = 32;

/// A module, parsed.
pub(crate) struct Loaded {
    module: Module,
    text: String,
}

/// A kernel of a module.
#[derive(Clone)]
pub(crate) struct Function {
    module: Arc<Loaded>,
    name: String,
    /// Most bytes of dynamic shared memory.
    max_shared: usize,
}

/// A launch that was checked.
#[derive(Clone)]
pub(crate) struct Launch {
    function: Function,
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared: usize,
    parameters: Vec<u8>,
}

impl Loaded {
    /// Parses PTX for a device of a compute capability; the texts that were seen last are kept.
    pub(crate) fn parse(text: &str, capability: (u32, u32)) -> Answer<Arc<Loaded>> {
        static PARSED: Mutex<VecDeque<Arc<Loaded>>> = Mutex::new(VecDeque::new());
        check_version(text)?;
        check_target(text, capability)?;
        let mut parsed = PARSED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = parsed.iter().find(|module| module.text == text) {
            return Ok(known.clone());
        }
        let module = match Module::parse(text) {
            Ok(module) => Arc::new(Loaded { module, text: text.to_owned() }),
            Err(error) => return refuse(CUresult::CUDA_ERROR_INVALID_PTX, error.to_string()),
        };
        parsed.truncate(MAX_PARSED - 1);
        parsed.push_front(module.clone());
        Ok(module)
    }

    pub(crate) fn function(self: &Arc<Loaded>, name: &str) -> Answer<Function> {
        let Some(kernel) = self.module.kernel(name) else {
            return refuse(CUresult::CUDA_ERROR_NOT_FOUND, format!("no kernel {name}"));
        };
        if parameter_bytes(kernel) > MAX_PARAMETERS {
            let why = format!("{name} has more than {MAX_PARAMETERS} bytes of parameters");
            return refuse(CUresult::CUDA_ERROR_INVALID_PTX, why);
        }
        let max_shared = SHARED.saturating_sub(kernel.shared_bytes());
        Ok(Function { module: self.clone(), name: name.to_owned(), max_shared })
    }
}

/// What stands behind `directive` in the head of a PTX text.
fn head<'a>(text: &'a str, directive: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.trim().strip_prefix(directive)).map(str::trim)
}

/// CUDA 12.0 takes PTX of version 8.0, and every later one a later version.
fn check_version(text: &str) -> Answer {
    let (major, minor) = Knobs::get().driver;
    let known = (major - 4, minor);
    let version = head(text, ".version").and_then(|version| version.split_once('.'));
    let version = version.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    match version {
        Some(version) if version <= known => Ok(()),
        Some(version) => refuse(
            CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
            format!("PTX {version:?}, and the driver knows {known:?}"),
        ),
        None => refuse(CUresult::CUDA_ERROR_INVALID_PTX, "PTX without .version"),
    }
}

/// PTX runs on what it was compiled for and on what is newer; on nothing newer where it says so by an `a`.
fn check_target(text: &str, (major, minor): (u32, u32)) -> Answer {
    let has = major * 10 + minor;
    let target = head(text, ".target").and_then(|target| target.split(',').next()?.strip_prefix("sm_"));
    let Some(target) = target else {
        return refuse(CUresult::CUDA_ERROR_INVALID_PTX, "PTX without .target");
    };
    let wants = target.trim_end_matches('a').parse::<u32>();
    match wants {
        Ok(wants) if wants == has || wants < has && !target.ends_with('a') => Ok(()),
        _ => refuse(CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU, format!("PTX for sm_{target} on sm_{has}")),
    }
}

fn parameter_bytes(kernel: &Kernel) -> usize {
    kernel.parameters().last().map_or(0, |last| last.offset + last.size)
}

impl Function {
    fn kernel(&self) -> Answer<&Kernel> {
        match self.module.module.kernel(&self.name) {
            Some(kernel) => Ok(kernel),
            None => refuse(CUresult::CUDA_ERROR_NOT_FOUND, &*self.name),
        }
    }

    /// Offset and size of each parameter.
    pub(crate) fn parameters(&self) -> Answer<Vec<(usize, usize)>> {
        Ok(self.kernel()?.parameters().iter().map(|parameter| (parameter.offset, parameter.size)).collect())
    }

    pub(crate) fn static_shared(&self) -> Answer<usize> {
        self.kernel().map(Kernel::shared_bytes)
    }

    pub(crate) fn max_shared(&self) -> usize {
        self.max_shared
    }

    /// Most threads of a block: what the kernel was compiled for, if it says so.
    pub(crate) fn max_threads(&self) -> u32 {
        let own = self.module.text.split(".entry").skip(1).find_map(|entry| {
            let rest = entry.trim_start().strip_prefix(&*self.name)?;
            rest.trim_start().starts_with(['(', '{', '.']).then_some(rest)
        });
        let head = own.and_then(|entry| entry.split('{').next()).unwrap_or_default();
        let Some((_, sizes)) = head.split_once(".maxntid") else { return MAX_THREADS };
        let sizes = sizes.split('.').next().unwrap_or_default().split(',');
        sizes.filter_map(|size| size.trim().parse::<u32>().ok()).product()
    }

    /// Asks for shared memory, on a device of a compute capability.
    pub(crate) fn allow_shared(&mut self, bytes: usize, capability: (u32, u32)) -> Answer {
        let most = max_shared_of_block(capability);
        if bytes + self.static_shared()? > most {
            return invalid(format!("{bytes} bytes of dynamic shared memory, and a block has {most} in all"));
        }
        self.max_shared = bytes;
        Ok(())
    }
}

/// Most shared memory of a block on a device of a compute capability, in bytes.
pub(crate) fn max_shared_of_block(capability: (u32, u32)) -> usize {
    let kibibytes = match capability {
        (8, 0 | 7) => 163,
        (8, _) | (12, _) => 99,
        (9.., _) => 227,
        _ => 96,
    };
    kibibytes << 10
}

impl Device {
    /// Checks a launch as a driver does before it takes one.
    pub(crate) fn check_launch(
        &self,
        function: usize,
        grid: [u32; 3],
        block: [u32; 3],
        dynamic_shared: usize,
        parameters: Vec<u8>,
    ) -> Answer<Launch> {
        let function = self.functions.get(function)?.clone();
        let Function { name, max_shared, .. } = &function;
        if grid.contains(&0) || grid[0] > i32::MAX as u32 || grid[1] > 65535 || grid[2] > 65535 {
            return invalid(format!("{name}: a grid of {grid:?} blocks"));
        }
        let threads = block.iter().map(|size| u64::from(*size)).product::<u64>();
        let most = u64::from(function.max_threads().min(MAX_THREADS));
        if threads == 0 || threads > most || block[2] > 64 {
            return invalid(format!("{name}: blocks of {block:?} threads, and it has at most {most}"));
        }
        if dynamic_shared > *max_shared {
            let why =
                format!("{name}: {dynamic_shared} bytes of dynamic shared memory, {max_shared} allowed");
            return invalid(why);
        }
        Ok(Launch { function, grid, block, dynamic_shared, parameters })
    }
}

impl Launch {
    /// Runs it.
    pub(crate) fn run(&self, memory: &mut Memory, seed: u64) -> Answer {
        let Launch { function, grid, block, dynamic_shared, parameters } = self;
        let kernel = function.kernel()?;
        let (grid, block, dynamic_shared) = (*grid, *block, *dynamic_shared);
        let launch = ptx::Launch { grid, block, dynamic_shared, parameters, seed };
        let run = catch_unwind(AssertUnwindSafe(|| kernel.launch(memory, &launch)));
        let (code, why) = match run {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(fault)) => (code_of(fault.kind()), fault.to_string()),
            Err(_) => {
                (CUresult::CUDA_ERROR_LAUNCH_FAILED, format!("{}: the interpreter panicked", function.name))
            }
        };
        Err(Refusal { code, why })
    }
}

/// What a driver says of a fault, where a device notices it.
fn code_of(fault: FaultKind) -> CUresult {
    match fault {
        FaultKind::OutOfBounds | FaultKind::UseAfterFree | FaultKind::ReadOnly => {
            CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
        }
        FaultKind::Misaligned => CUresult::CUDA_ERROR_MISALIGNED_ADDRESS,
        FaultKind::EndlessLoop | FaultKind::Deadlock => CUresult::CUDA_ERROR_LAUNCH_TIMEOUT,
        _ => CUresult::CUDA_ERROR_LAUNCH_FAILED,
    }
}
