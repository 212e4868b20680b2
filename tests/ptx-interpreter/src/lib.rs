//! Runs PTX on the CPU and checks every access: for tests of kernels on machines without a GPU.
//!
//! A [`Module`] is PTX text that was understood in full: what is not known is an error, never left out. A [`Kernel`]
//! runs on a [`Memory`], block after block and warp after warp, and stops at the first thing that a correct kernel
//! never does, a [`Fault`] that names the kernel, the line and the thread. [`FaultKind`] lists what is looked at.
//!
//! Known is what NVRTC 12.0 emits for `compute_80`: PTX ISA 8.0 without textures, surfaces, `wmma` and arithmetic on
//! 16-bit floating-point numbers. Of `sm_90a` the products of warpgroups are known (`wgmma`) whose factors are bf16 in
//! shared memory with the 128-byte swizzle. Functions are inlined where they are called.
//!
//! It is a model, and some things are other than on a device:
//! - A block runs when those before it have ended, a warp until its next barrier: one that waits for a later one in a
//!   loop never ends. [`Launch::seed`] changes the order.
//! - Every access is seen by all at once. That a kernel needs no more than it may is what the check for races is for.
//! - Approximations (`ex2.approx`, `rcp.approx`, ...) are exact to the last bit or nearly, and sums of matrix products
//!   are added one after the other in f32.
//! - Lanes that have gone different ways meet again at the first instruction that all of them come to.
//! - A product of a warpgroup is done at once, by each warp for its own rows. What may not be touched until it is
//!   waited for, is checked.

mod arithmetic;
mod bits;
mod decode;
mod execute;
mod fault;
mod instruction;
mod lane;
mod memory;
mod parse;
mod program;
mod race;
mod region;
mod registers;
mod types;

pub use execute::{Launch, Stats};
pub use fault::{Fault, FaultKind};
pub use memory::Memory;
pub use parse::ParseError;
pub use program::Parameter;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Kernels of one PTX text.
pub struct Module {
    kernels: BTreeMap<String, Kernel>,
}

impl Module {
    /// Reads PTX.
    ///
    /// # Errors
    /// What of it is not known, and where.
    pub fn parse(ptx: &str) -> Result<Module, ParseError> {
        static MODULES: AtomicU64 = AtomicU64::new(0);
        let number = MODULES.fetch_add(1, Ordering::Relaxed);
        let with_text = |error: ParseError| error.with_text(ptx);
        let file = parse::parse(ptx).map_err(with_text)?;
        let (names, variables) = decode::module_variables(&file);
        let source = Arc::new(Source { number, text: ptx.to_owned(), variables });
        let mut kernels = BTreeMap::new();
        for function in file.functions.iter().filter(|function| function.is_kernel) {
            let program = decode::kernel(&names, function).map_err(with_text)?;
            kernels.insert(function.name.clone(), Kernel { program, source: Arc::clone(&source) });
        }
        Ok(Module { kernels })
    }

    /// The kernel of a name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.get(name)
    }

    /// Names of all kernels.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.kernels.keys().map(String::as_str)
    }
}

/// What the kernels of a module share.
struct Source {
    /// Tells modules apart whose variables live in one memory.
    number: u64,
    text: String,
    variables: Vec<decode::ModuleVariable>,
}

/// A kernel.
pub struct Kernel {
    program: program::Program,
    source: Arc<Source>,
}

impl Kernel {
    /// Its parameters, in order.
    pub fn parameters(&self) -> Vec<Parameter> {
        self.program.parameters.clone()
    }

    /// Bytes of shared memory that it declares.
    pub fn shared_bytes(&self) -> usize {
        self.program.shared_bytes()
    }

    /// Runs it.
    ///
    /// # Errors
    /// The first thing that it does wrong. What it has stored before that stays.
    pub fn launch(&self, memory: &mut Memory, launch: &Launch<'_>) -> Result<Stats, Fault> {
        let module = (self.source.number, &self.source.variables[..]);
        execute::launch(&self.program, &self.source.text, module, memory, launch)
    }
}
