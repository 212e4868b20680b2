//! Loads, stores, atomics and copies.

use super::Decoder;
use super::modifiers::{Modifiers, Problem};
use super::operands::exactly;
use crate::instruction::{Atomic, AtomicOperation, Content, CopyAsync, Load, Op, Ordering, Register, Store};
use crate::lane::lanes;
use crate::memory::{LOCAL_WINDOW, SHARED_WINDOW, WINDOW};
use crate::parse::syntax::Operand;
use crate::types::{Space, Type};

/// Hints about caches, and who sees an access in time: blocks run one after the other here.
const HINTS: &[&str] = &[
    "ca",
    "cg",
    "cs",
    "lu",
    "cv",
    "wb",
    "wt",
    "cta",
    "cluster",
    "gpu",
    "sys",
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L1::evict_first",
    "L1::evict_last",
    "L1::no_allocate",
    "L2::64B",
    "L2::128B",
    "L2::256B",
    "L2::evict_first",
    "L2::evict_last",
    "L2::evict_normal",
];

fn ordering(name: &str) -> Option<Ordering> {
    Some(match name {
        "weak" => Ordering::Weak,
        "nc" => Ordering::ReadOnly,
        "volatile" | "relaxed" => Ordering::Relaxed,
        "acquire" => Ordering::Acquire,
        "release" => Ordering::Release,
        "acq_rel" => Ordering::AcquireRelease,
        _ => return None,
    })
}

fn atomic_operation(name: &str) -> Option<AtomicOperation> {
    Some(match name {
        "add" => AtomicOperation::Add,
        "min" => AtomicOperation::Min,
        "max" => AtomicOperation::Max,
        "and" => AtomicOperation::And,
        "or" => AtomicOperation::Or,
        "xor" => AtomicOperation::Xor,
        "exch" => AtomicOperation::Exchange,
        "cas" => AtomicOperation::CompareAndSwap,
        "inc" => AtomicOperation::Increment,
        "dec" => AtomicOperation::Decrement,
        _ => return None,
    })
}

impl Decoder<'_> {
    /// Adds an instruction that reads or writes memory; false if `name` is none.
    pub(super) fn memory(
        &mut self,
        name: &str,
        modifiers: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<bool, Problem> {
        match name {
            "ld" | "ldu" => self.load(modifiers, operands)?,
            "st" => self.store(modifiers, operands)?,
            "atom" | "red" => self.atomic(name == "atom", modifiers, operands)?,
            "cvta" => self.convert_address(modifiers, operands)?,
            "cp" => self.copy_async(modifiers, operands)?,
            "prefetch" | "prefetchu" => {
                modifiers.ignore(&["global", "local", "L1", "L2"]);
                modifiers.ignore(HINTS);
                self.push(Op::Nothing);
            }
            "isspacep" => self.is_in_space(modifiers, operands)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn count(modifiers: &mut Modifiers<'_>) -> usize {
        if modifiers.take("v2") {
            2
        } else if modifiers.take("v4") {
            4
        } else {
            1
        }
    }

    fn load(&mut self, modifiers: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), Problem> {
        let space = modifiers.space();
        let ordering = modifiers.find(ordering).unwrap_or(Ordering::Weak);
        if matches!(ordering, Ordering::Release | Ordering::AcquireRelease) {
            return Err("loads do not release anything".to_owned());
        }
        modifiers.ignore(HINTS);
        let count = Self::count(modifiers);
        let ty = modifiers.ty()?;
        let [d, a] = exactly(operands)?;
        let elements = Self::elements(d);
        check_vector(elements.len(), count, ty)?;
        let mut target_bits = ty.bits();
        let mut targets = Vec::new();
        for element in elements {
            let (target, bits) = self.wide_target(element, ty)?;
            target_bits = target_bits.max(bits);
            targets.push(target);
        }
        let (address, space) = self.address(a, space)?;
        self.push(Op::Load(Load { space, address, ty, ordering, targets: targets.into(), target_bits }));
        Ok(())
    }

    fn store(&mut self, modifiers: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), Problem> {
        let space = modifiers.space();
        let ordering = modifiers.find(ordering).unwrap_or(Ordering::Weak);
        if !matches!(ordering, Ordering::Weak | Ordering::Relaxed | Ordering::Release) {
            return Err("the order is not known to stores".to_owned());
        }
        modifiers.ignore(HINTS);
        let count = Self::count(modifiers);
        let ty = modifiers.ty()?;
        let [a, b] = exactly(operands)?;
        let elements = Self::elements(b);
        check_vector(elements.len(), count, ty)?;
        let sources: Result<_, Problem> =
            elements.iter().map(|element| self.wide_source(element, ty)).collect();
        let (address, space) = self.address(a, space)?;
        if matches!(space, Space::Const | Space::Param) {
            return Err("nothing can be stored there".to_owned());
        }
        self.push(Op::Store(Store { space, address, ty, ordering, sources: sources? }));
        Ok(())
    }

    fn atomic(
        &mut self,
        has_result: bool,
        modifiers: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<(), Problem> {
        let space = modifiers.space();
        let ordering = modifiers.find(ordering).unwrap_or(Ordering::Relaxed);
        modifiers.ignore(HINTS);
        let operation = modifiers.find(atomic_operation).ok_or("the operation is not known")?;
        let ty = modifiers.ty()?;
        check_atomic(operation, ty)?;
        let (target, operands) = match (has_result, operands.split_first()) {
            (true, Some((target, rest))) => (self.target(target, ty)?, rest),
            _ => (Register::SINK, operands),
        };
        let wanted = if operation == AtomicOperation::CompareAndSwap { 3 } else { 2 };
        if operands.len() != wanted {
            return Err(format!("{wanted} operands besides the result wanted, {} given", operands.len()));
        }
        let (address, space) = self.address(&operands[0], space)?;
        let first = self.source(&operands[1], ty)?;
        let second = operands.get(2).map_or(Ok(first), |operand| self.source(operand, ty))?;
        self.push(Op::Atomic(Atomic {
            space,
            address,
            ty,
            ordering,
            operation,
            target,
            operands: [first, second],
        }));
        Ok(())
    }

    /// A generic address of an address in a space, or the other way round. Device memory and the module's variables
    /// are where their generic addresses say.
    fn convert_address(
        &mut self,
        modifiers: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<(), Problem> {
        let from_generic = modifiers.take("to");
        let space = modifiers.space();
        let ty = modifiers.ty()?;
        let [d, a] = exactly(operands)?;
        let source = self.source(a, ty)?;
        let target = self.target(d, ty)?;
        let window = match space {
            Space::Shared => SHARED_WINDOW,
            Space::Local => LOCAL_WINDOW,
            Space::Global | Space::Const => {
                self.push(Op::Move { target, source });
                return Ok(());
            }
            Space::Generic | Space::Param => return Err("the space is not known here".to_owned()),
        };
        let added = if from_generic { window.wrapping_neg() } else { window };
        let window = self.constant(Content::Number(added));
        self.compute(lanes!(|a: u64, b: u64| a.wrapping_add(b)), target, &[source, window]);
        Ok(())
    }

    /// Whether a generic address is in a space.
    fn is_in_space(&mut self, modifiers: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), Problem> {
        const SHARED_END: u64 = SHARED_WINDOW + WINDOW;
        const LOCAL_END: u64 = LOCAL_WINDOW + WINDOW;
        let function = match modifiers.space() {
            Space::Shared => lanes!(|a: u64| (SHARED_WINDOW..SHARED_END).contains(&a)),
            Space::Local => lanes!(|a: u64| (LOCAL_WINDOW..LOCAL_END).contains(&a)),
            Space::Global => {
                lanes!(|a: u64| !(SHARED_WINDOW..SHARED_END).contains(&a)
                    && !(LOCAL_WINDOW..LOCAL_END).contains(&a))
            }
            Space::Generic | Space::Const | Space::Param => {
                return Err("the space is not known here".to_owned());
            }
        };
        self.function(function, Type::Pred, &[Type::B64], operands)
    }

    fn copy_async(&mut self, modifiers: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), Problem> {
        if !modifiers.take("async") || modifiers.take("bulk") {
            return Err("of copies, `cp.async` alone is known".to_owned());
        }
        if modifiers.take("commit_group") {
            self.push(Op::CommitCopies);
        } else if modifiers.take("wait_all") {
            self.push(Op::WaitCopies { groups_left: None });
        } else if modifiers.take("wait_group") {
            let [Operand::Integer(groups)] = exactly(operands)? else {
                return Err("expected a number of groups".to_owned());
            };
            self.push(Op::WaitCopies { groups_left: Some(*groups as u32) });
        } else {
            self.start_copy(modifiers, operands)?;
        }
        Ok(())
    }

    fn start_copy(&mut self, modifiers: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), Problem> {
        let sixteen_only = modifiers.take("cg");
        if sixteen_only == modifiers.take("ca") || !modifiers.take("shared") || !modifiers.take("global") {
            return Err("expected `.ca` or `.cg`, `.shared` and `.global`".to_owned());
        }
        modifiers.ignore(HINTS);
        let (Some(target), Some(source), Some(Operand::Integer(bytes))) =
            (operands.first(), operands.get(1), operands.get(2))
        else {
            return Err("expected two addresses and a number of bytes".to_owned());
        };
        let bytes = *bytes as u32;
        if !matches!(bytes, 4 | 8 | 16) || sixteen_only && bytes != 16 {
            return Err("4, 8 or 16 bytes are copied, with `.cg` 16".to_owned());
        }
        let (target, _) = self.address(target, Space::Shared)?;
        let (source, _) = self.address(source, Space::Global)?;
        let (mut source_bytes, mut ignore_source) = (None, None);
        match operands.get(3) {
            None => {}
            Some(Operand::Name(name)) if self.predicate_named(name).is_ok() => {
                ignore_source = Some(self.predicate_named(name)?);
            }
            Some(operand) => source_bytes = Some(self.source(operand, Type::U32)?),
        }
        if operands.len() > 4 {
            return Err("more operands than are known".to_owned());
        }
        self.push(Op::CopyAsync(CopyAsync { target, source, bytes, source_bytes, ignore_source }));
        Ok(())
    }
}

/// That a load or store of `count` values of a type has as many registers, and is not too large.
fn check_vector(registers: usize, count: usize, ty: Type) -> Result<(), Problem> {
    if registers != count || ty == Type::Pred {
        return Err(format!("{count} registers are wanted"));
    }
    if count * ty.bytes() > 16 {
        return Err("16 bytes are accessed at most".to_owned());
    }
    Ok(())
}

/// Whether the device has the operation for the type.
fn check_atomic(operation: AtomicOperation, ty: Type) -> Result<(), Problem> {
    use AtomicOperation::{Add, And, CompareAndSwap, Decrement, Exchange, Increment, Max, Min, Or, Xor};
    let known = match operation {
        Add => matches!(ty, Type::U32 | Type::S32 | Type::U64 | Type::F32 | Type::F64),
        Min | Max => matches!(ty, Type::U32 | Type::S32 | Type::U64 | Type::S64),
        And | Or | Xor => matches!(ty, Type::B32 | Type::B64),
        Exchange | CompareAndSwap => matches!(ty, Type::B32 | Type::B64 | Type::U32 | Type::U64 | Type::S32),
        Increment | Decrement => ty == Type::U32,
    };
    if known { Ok(()) } else { Err(format!("{operation:?} is not known for {ty:?}")) }
}
