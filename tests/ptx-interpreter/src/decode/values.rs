//! Copies, selections, comparisons and conversions.

use super::Decoder;
use super::arithmetic::{known, rounding};
use super::modifiers::{Modifiers, Problem};
use super::operands::{clock_bits, exactly};
use crate::arithmetic::bits;
use crate::arithmetic::compare::{self, Comparison};
use crate::arithmetic::convert::{Conversion, PackedConversion};
use crate::arithmetic::rounding::Rounding;
use crate::instruction::{Content, Op, Register};
use crate::lane::Function;
use crate::parse::syntax::Operand;
use crate::types::Type;

/// The direction of `.rni` and its like.
fn integral_rounding(name: &str) -> Option<Rounding> {
    name.strip_suffix('i').and_then(rounding)
}

impl Decoder<'_> {
    /// Adds an instruction that chooses, compares or converts values; false if `name` is none.
    pub(super) fn values(
        &mut self,
        name: &str,
        modifiers: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<bool, Problem> {
        match name {
            "selp" => self.select(modifiers, operands)?,
            "slct" => {
                let flush = modifiers.take("ftz");
                let (ty, control) = (modifiers.ty()?, modifiers.ty()?);
                let function = known(compare::select_by_sign(control, flush), control)?;
                self.function(function, ty, &[ty, ty, control], operands)?;
            }
            "setp" | "set" => self.compare(name == "setp", modifiers, operands)?,
            "mov" => self.copy(modifiers, operands)?,
            "cvt" => self.convert(modifiers, operands)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn select(&mut self, modifiers: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), Problem> {
        let ty = modifiers.ty()?;
        let [d, a, b, p] = exactly(operands)?;
        let sources = [self.source(a, ty)?, self.source(b, ty)?];
        let predicate = self.source(p, Type::Pred)?;
        let target = self.target(d, ty)?;
        self.push(Op::Select { target, sources, predicate });
        Ok(())
    }

    /// `setp` and `set`: a comparison, whose result may be combined with a predicate.
    fn compare(
        &mut self,
        to_predicate: bool,
        modifiers: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<(), Problem> {
        let name = modifiers.first()?;
        let comparison = Comparison::parse(name).ok_or_else(|| format!("`{name}` is no comparison"))?;
        let combine = modifiers.find(|name| match name {
            "and" => bits::and(Type::Pred),
            "or" => bits::or(Type::Pred),
            "xor" => bits::xor(Type::Pred),
            _ => None,
        });
        let flush = modifiers.take("ftz");
        let result = if to_predicate { Type::Pred } else { modifiers.ty()? };
        let ty = modifiers.ty()?;
        let function = known(compare::compare(comparison, ty, flush), ty)?;
        let (d, a, b, with) = match (operands, combine) {
            ([d, a, b], None) => (d, a, b, None),
            ([d, a, b, c], Some(combine)) => (d, a, b, Some((combine, self.source(c, Type::Pred)?))),
            _ => {
                return Err(
                    "one operand more is wanted with `.and`, `.or` and `.xor`, and none without".to_owned()
                );
            }
        };
        let sources = [self.source(a, ty)?, self.source(b, ty)?];
        if let (true, None, Operand::Name(_)) = (to_predicate, with, d) {
            let target = self.target(d, Type::Pred)?;
            self.compute(function, target, &sources);
            return Ok(());
        }
        let holds = self.new_register();
        self.compute(function, holds, &sources);
        if to_predicate { self.predicates(d, holds, with) } else { self.truth(d, result, holds, with) }
    }

    /// What `combine` makes of a predicate and another one, or the predicate as it is.
    fn combined(&mut self, predicate: Register, with: Option<(Function, Register)>) -> Register {
        let Some((combine, other)) = with else {
            return predicate;
        };
        let target = self.new_register();
        self.compute(combine, target, &[predicate, other]);
        target
    }

    /// The results of `setp`: of the comparison, and of its opposite.
    fn predicates(
        &mut self,
        targets: &Operand,
        holds: Register,
        with: Option<(Function, Register)>,
    ) -> Result<(), Problem> {
        let (p, q) = self.target_pair(targets, Type::Pred, Type::Pred)?;
        let first = self.combined(holds, with);
        if q != Register::SINK {
            let fails = self.new_register();
            self.compute(known(bits::not(Type::Pred), Type::Pred)?, fails, &[holds]);
            let second = self.combined(fails, with);
            self.push(Op::Move { target: q, source: second });
        }
        self.push(Op::Move { target: p, source: first });
        Ok(())
    }

    /// The result of `set`: all ones, or 1.0, for true.
    fn truth(
        &mut self,
        target: &Operand,
        ty: Type,
        holds: Register,
        with: Option<(Function, Register)>,
    ) -> Result<(), Problem> {
        let truth = match ty {
            Type::F32 => u64::from(1f32.to_bits()),
            Type::U32 | Type::S32 => u64::from(u32::MAX),
            _ => return Err(format!("a result of {ty:?} is not known")),
        };
        let predicate = self.combined(holds, with);
        let target = self.target(target, ty)?;
        let sources = [self.constant(Content::Number(truth)), self.constant(Content::Number(0))];
        self.push(Op::Select { target, sources, predicate });
        Ok(())
    }

    fn copy(&mut self, modifiers: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), Problem> {
        let ty = modifiers.ty()?;
        let [d, a] = exactly(operands)?;
        if let Operand::Name(name) = a
            && let Some(bits) = clock_bits(name)
        {
            if bits != ty.bits() {
                return Err(format!("`{name}` has {bits} bits"));
            }
            let target = self.target(d, ty)?;
            self.push(Op::Clock { target, bits });
            return Ok(());
        }
        let part = |parts: &[Operand]| match (ty.bits() as usize / parts.len().max(1), parts.len()) {
            (32, 2) => Ok(Type::B32),
            (16, 2 | 4) => Ok(Type::B16),
            (8, 2 | 4) => Ok(Type::B8),
            _ => Err("a vector of two or four parts is wanted".to_owned()),
        };
        let op = match (d, a) {
            (Operand::Vector(parts), a) => {
                let part = part(parts)?;
                let source = self.source(a, ty)?;
                let targets: Result<_, Problem> =
                    parts.iter().map(|operand| Ok(self.wide_target(operand, part)?.0)).collect();
                Op::Unpack { targets: targets?, source, bits: part.bits() }
            }
            (d, Operand::Vector(parts)) => {
                let part = part(parts)?;
                let sources: Result<_, Problem> =
                    parts.iter().map(|operand| self.wide_source(operand, part)).collect();
                Op::Pack { target: self.target(d, ty)?, sources: sources?, bits: part.bits() }
            }
            (d, a) => Op::Move { source: self.source(a, ty)?, target: self.target(d, ty)? },
        };
        self.push(op);
        Ok(())
    }

    fn convert(&mut self, modifiers: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), Problem> {
        let integral = modifiers.find(integral_rounding);
        let away = modifiers.take("rna");
        let direction = modifiers.find(rounding);
        let (flush, saturate) = (modifiers.take("ftz"), modifiers.take("sat"));
        let clamp_negative = modifiers.take("relu");
        let (to, from) = (modifiers.ty()?, modifiers.ty()?);
        if away != (to == Type::Tf32) {
            return Err("`.rna` is known to and wanted for `.tf32` alone".to_owned());
        }
        let half = match to {
            Type::F16x2 => Some(Type::F16),
            Type::Bf16x2 => Some(Type::Bf16),
            _ => None,
        };
        // Wider floating-point types, and integers of integers, are exact.
        let is_exact = half.is_none()
            && to.is_float() == from.is_float()
            && (!to.is_float() || to.bytes() >= from.bytes());
        if !is_exact && integral.is_none() && direction.is_none() && !away {
            return Err("expected a rounding".to_owned());
        }
        let conversion = Conversion {
            to: half.unwrap_or(to),
            from,
            rounding: integral.or(direction).unwrap_or_default(),
            to_integral: integral.is_some(),
            flush,
            saturate,
            clamp_negative,
            target_bits: to.bits(),
        };
        if half.is_some() {
            let [d, a, b] = exactly(operands)?;
            let sources = [self.source(a, from)?, self.source(b, from)?];
            let target = self.target(d, to)?;
            self.push(Op::ConvertTwo { conversion: PackedConversion { half: conversion }, target, sources });
            return Ok(());
        }
        let [d, a] = exactly(operands)?;
        let source = self.wide_source(a, from)?;
        let (target, target_bits) = self.wide_target(d, to)?;
        let conversion = Conversion { target_bits, ..conversion };
        match conversion.plain() {
            Some(function) => self.compute(function, target, &[source]),
            None => self.push(Op::Convert { conversion, target, source }),
        }
        Ok(())
    }
}
