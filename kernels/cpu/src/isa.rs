//! Instruction sets: which exist here, and which one is used.

use std::fmt;
use std::sync::OnceLock;

/// An instruction set that kernels are compiled for, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust, one value at a time: the reference.
    Scalar,
    /// Vectors of four values made of what the target is compiled for: the best set where there is no AVX2, on other
    /// processors too.
    Portable,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 F, VL, BW and DQ.
    Avx512,
}

impl Isa {
    /// Every instruction set, weakest first.
    const ALL: [Isa; 4] = [Isa::Scalar, Isa::Portable, Isa::Avx2, Isa::Avx512];

    /// Every instruction set this machine can run, weakest first.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.exists_here()).collect()
    }

    /// f32 values in a vector.
    pub const fn lanes(self) -> usize {
        match self {
            Isa::Scalar => 1,
            Isa::Portable => 4,
            Isa::Avx2 => 8,
            Isa::Avx512 => 16,
        }
    }

    /// Whether multiply-adds round once, so that kernels which sum in the same order have the same bits as the other
    /// such sets. [`Isa::Portable`] does where the target has the instruction: on 64-bit ARM, and on x86-64 when
    /// compiled for FMA.
    pub const fn is_fused(self) -> bool {
        let compiled_for = cfg!(target_feature = "fma") || cfg!(target_arch = "aarch64");
        !matches!(self, Isa::Portable) || compiled_for
    }

    /// The instruction set that the environment variable `MANYGATE_ISA` names (`scalar`, `portable`, `avx2`,
    /// `avx512`), if it is set.
    ///
    /// # Errors
    /// A message that lists the available ones, when it names a set that is unknown or absent here.
    pub fn requested() -> Result<Option<Isa>, String> {
        match std::env::var("MANYGATE_ISA") {
            Ok(name) => Isa::named(&name).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// The instruction set that `MANYGATE_ISA` names, else the best one of this machine. Chosen once. A name that does
    /// not exist here is as good as none: a library cannot refuse to run for it, a program asks
    /// [`Isa::requested`] first.
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        let strongest = || Isa::available().pop().unwrap_or(Isa::Portable);
        *BEST.get_or_init(|| Isa::requested().ok().flatten().unwrap_or_else(strongest))
    }

    /// The available instruction set called `name`.
    ///
    /// # Errors
    /// A message that lists the available ones.
    pub fn named(name: &str) -> Result<Isa, String> {
        let available = Isa::available();
        available.iter().copied().find(|isa| isa.to_string() == name).ok_or_else(|| {
            let names: Vec<String> = available.iter().map(Isa::to_string).collect();
            format!("`{name}` is not available on this machine; use one of: {}", names.join(", "))
        })
    }

    /// This instruction set if the CPU has it, else the best one below it. The CPU is asked once.
    #[inline]
    pub fn or_below(self) -> Isa {
        static STRONGEST: OnceLock<Isa> = OnceLock::new();
        let strongest = *STRONGEST.get_or_init(|| Isa::available().pop().unwrap_or(Isa::Portable));
        self.min(strongest)
    }

    fn exists_here(self) -> bool {
        match self {
            Isa::Scalar | Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && Isa::Avx2.exists_here()
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Scalar => "scalar",
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        })
    }
}
