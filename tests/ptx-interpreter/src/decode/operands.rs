//! Operands as places of the register file.

use super::Decoder;
use super::modifiers::Problem;
use super::names::Name;
use crate::arithmetic::bits;
use crate::instruction::{Address, Content, Op, Register, Special};
use crate::lane::Function;
use crate::parse::syntax::Operand;
use crate::types::{Space, Type, low_bits};

/// Exactly `N` operands.
pub(super) fn exactly<const N: usize>(operands: &[Operand]) -> Result<&[Operand; N], Problem> {
    operands.try_into().map_err(|_| format!("{N} operands wanted, {} given", operands.len()))
}

/// The special register of a name, and its type.
fn special(name: &str) -> Option<(Special, Type)> {
    let word = |special| Some((special, Type::U32));
    let axis = |name: &str| ["x", "y", "z"].iter().position(|axis| *axis == name);
    match name {
        "%laneid" => return word(Special::Lane),
        "%warpid" => return word(Special::Warp),
        "%nwarpid" => return word(Special::Warps),
        "%lanemask_eq" => return word(Special::MaskEqual),
        "%lanemask_lt" => return word(Special::MaskBelow),
        "%lanemask_le" => return word(Special::MaskUpTo),
        "%lanemask_gt" => return word(Special::MaskAbove),
        "%lanemask_ge" => return word(Special::MaskFrom),
        "%smid" => return word(Special::Zero),
        "%gridid" => return Some((Special::Zero, Type::U64)),
        "%dynamic_smem_size" => return word(Special::DynamicSharedSize),
        "%total_smem_size" => return word(Special::TotalSharedSize),
        _ => {}
    }
    let (name, component) = name.split_once('.')?;
    let axis = axis(component)?;
    match name {
        "%tid" => word(Special::Thread(axis)),
        "%ntid" => word(Special::Threads(axis)),
        "%ctaid" => word(Special::Block(axis)),
        "%nctaid" => word(Special::Blocks(axis)),
        _ => None,
    }
}

/// Bits of the counter that a name stands for.
pub(super) fn clock_bits(name: &str) -> Option<u32> {
    match name {
        "%clock" | "%clock_hi" => Some(32),
        "%clock64" | "%globaltimer" => Some(64),
        _ => None,
    }
}

/// How an operand's register may differ from the instruction's type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Same,
    /// Loads, stores and conversions take wider registers.
    SameOrWider,
}

impl Decoder<'_> {
    /// The place of something that does not change during a launch.
    pub(super) fn constant(&mut self, content: Content) -> Register {
        if let Some(register) = self.constants.get(&content) {
            return *register;
        }
        self.registers.push(content);
        let register = Register(self.registers.len() as u32 - 1);
        self.constants.insert(content, register);
        register
    }

    fn declared(&mut self, name: &str, ty: Type, width: Width) -> Result<(Register, u32), Problem> {
        let Some(Name::Register { register, ty: declared }) = self.meaning(name) else {
            return Err(format!("`{name}` is no register"));
        };
        let predicates = (ty == Type::Pred, declared == Type::Pred);
        let fits = match width {
            Width::Same => declared.bits() == ty.bits(),
            Width::SameOrWider => declared.bits() >= ty.bits(),
        };
        if !fits || predicates.0 != predicates.1 {
            return Err(format!("`{name}` has {} bits, {} are wanted", declared.bits(), ty.bits()));
        }
        Ok((register, declared.bits()))
    }

    /// Where a result goes.
    pub(super) fn target(&mut self, operand: &Operand, ty: Type) -> Result<Register, Problem> {
        match operand {
            Operand::Name(name) if name == "_" => Ok(Register::SINK),
            Operand::Name(name) => Ok(self.declared(name, ty, Width::Same)?.0),
            _ => Err("expected a register for the result".to_owned()),
        }
    }

    /// Where two results go, or the first one alone: `a|b` or `a`.
    pub(super) fn target_pair(
        &mut self,
        operand: &Operand,
        first: Type,
        second: Type,
    ) -> Result<(Register, Register), Problem> {
        match operand {
            Operand::Pair(a, b) => Ok((
                self.target(&Operand::Name(a.clone()), first)?,
                self.target(&Operand::Name(b.clone()), second)?,
            )),
            single => Ok((self.target(single, first)?, Register::SINK)),
        }
    }

    /// Where a result goes that may be narrower than its register, and the register's bits.
    pub(super) fn wide_target(&mut self, operand: &Operand, ty: Type) -> Result<(Register, u32), Problem> {
        match operand {
            Operand::Name(name) if name == "_" => Ok((Register::SINK, ty.bits())),
            Operand::Name(name) => self.declared(name, ty, Width::SameOrWider),
            _ => Err("expected a register for the result".to_owned()),
        }
    }

    /// A value of `ty`.
    pub(super) fn source(&mut self, operand: &Operand, ty: Type) -> Result<Register, Problem> {
        self.value(operand, ty, Width::Same)
    }

    /// A value of `ty` in the lowest bits of a register.
    pub(super) fn wide_source(&mut self, operand: &Operand, ty: Type) -> Result<Register, Problem> {
        self.value(operand, ty, Width::SameOrWider)
    }

    fn value(&mut self, operand: &Operand, ty: Type, width: Width) -> Result<Register, Problem> {
        let mask = low_bits(ty.bits());
        let number = match operand {
            Operand::Name(name) => return self.named_value(name, ty, width),
            Operand::Not(name) if ty == Type::Pred => return self.inverted(name),
            Operand::Integer(value) if ty == Type::Pred => u64::from(*value != 0),
            Operand::Integer(value) if !ty.is_float() => *value as u64 & mask,
            Operand::Single(bits) if matches!(ty, Type::F32 | Type::B32) => u64::from(*bits),
            Operand::Double(bits) if matches!(ty, Type::F64 | Type::B64) => *bits,
            _ => return Err("expected a register or a number of the instruction's type".to_owned()),
        };
        Ok(self.constant(Content::Number(number)))
    }

    fn named_value(&mut self, name: &str, ty: Type, width: Width) -> Result<Register, Problem> {
        if let Some((special, special_type)) = special(name) {
            if special_type.bits() != ty.bits() {
                return Err(format!("`{name}` has {} bits", special_type.bits()));
            }
            return Ok(self.constant(Content::Special(special)));
        }
        if name == "WARP_SZ" {
            return Ok(self.constant(Content::Number(32)));
        }
        let content = match self.meaning(name) {
            Some(Name::Register { .. }) => return Ok(self.declared(name, ty, width)?.0),
            Some(Name::Parameter(offset) | Name::Local(offset) | Name::Shared(offset)) => {
                Content::Number(offset)
            }
            Some(Name::DynamicShared) => Content::DynamicShared,
            Some(Name::Label(_) | Name::Table(_)) => return Err(format!("`{name}` is a label")),
            None => match self.module.variables.get(name) {
                Some(offset) => Content::ModuleVariable(*offset),
                None => return Err(format!("`{name}` is not declared")),
            },
        };
        Ok(self.constant(content))
    }

    pub(super) fn predicate_named(&mut self, name: &str) -> Result<Register, Problem> {
        Ok(self.declared(name, Type::Pred, Width::Same)?.0)
    }

    /// `!predicate`, computed by an instruction in front.
    fn inverted(&mut self, name: &str) -> Result<Register, Problem> {
        let predicate = self.predicate_named(name)?;
        let target = self.new_register();
        let function = bits::not(Type::Pred).expect("predicates have an inverse");
        self.compute(function, target, &[predicate]);
        Ok(target)
    }

    /// Adds an instruction that computes `function`.
    pub(super) fn compute(&mut self, function: Function, target: Register, operands: &[Register]) {
        debug_assert_eq!(function.arity(), operands.len());
        let mut sources = [Register::SINK; 4];
        sources[..operands.len()].copy_from_slice(operands);
        self.push(Op::Compute { function, target, sources });
    }

    /// The elements of a vector, or the one that stands without braces.
    pub(super) fn elements(operand: &Operand) -> &[Operand] {
        match operand {
            Operand::Vector(elements) => elements,
            single => std::slice::from_ref(single),
        }
    }

    /// An address, and the space that it is in by the variable that it names.
    pub(super) fn address(&mut self, operand: &Operand, space: Space) -> Result<(Address, Space), Problem> {
        let Operand::Address { base, offset } = operand else {
            return Err("expected an address".to_owned());
        };
        let mut space = space;
        let base = match &**base {
            Operand::Name(name) => {
                match self.meaning(name) {
                    // Parameters of calls live in the thread's memory.
                    Some(Name::Local(_)) if space == Space::Param => space = Space::Local,
                    Some(Name::Register { .. }) if space == Space::Param && !self.calls.is_empty() => {
                        space = Space::Local;
                    }
                    _ => {}
                }
                let register = self.declared(name, Type::B64, Width::Same).or(self.declared(
                    name,
                    Type::B32,
                    Width::Same,
                ));
                match register {
                    Ok((register, _)) => register,
                    Err(_) => self.named_value(name, Type::B64, Width::Same)?,
                }
            }
            Operand::Integer(address) => self.constant(Content::Number(*address as u64)),
            _ => return Err("expected a register, a variable or a number as address".to_owned()),
        };
        Ok((Address { base, offset: *offset }, space))
    }
}
