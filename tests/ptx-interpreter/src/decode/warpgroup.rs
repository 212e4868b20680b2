//! Products of warpgroups.

use super::Decoder;
use super::modifiers::{Modifiers, Problem};
use super::operands::exactly;
use crate::instruction::{Op, Register, SharedMatrix, WarpgroupMultiply};
use crate::parse::syntax::Operand;
use crate::types::Type;
use std::collections::HashSet;

/// What the instructions are there for.
const TARGET: &str = "sm_90a";

impl Decoder<'_> {
    /// Adds an instruction of a warpgroup; false if `name` is none.
    pub(super) fn warpgroup(
        &mut self,
        name: &str,
        modifiers: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<bool, Problem> {
        if name == "setmaxnreg" {
            self.set_registers(modifiers, operands)?;
            return Ok(true);
        }
        if name != "wgmma" {
            return Ok(false);
        }
        self.expect_target()?;
        let what = modifiers.first()?;
        if !modifiers.take("sync") || !modifiers.take("aligned") {
            return Err("expected `.sync` and `.aligned`".to_owned());
        }
        let op = match what {
            "mma_async" => self.warpgroup_multiply(modifiers, operands)?,
            "wait_group" => match exactly(operands)? {
                [Operand::Integer(groups)] => Op::WaitProducts { groups_left: *groups as u32 },
                _ => return Err("expected a number of groups".to_owned()),
            },
            "fence" => {
                let [] = exactly(operands)?;
                Op::WarpgroupFence
            }
            "commit_group" => {
                let [] = exactly(operands)?;
                Op::CommitProducts
            }
            _ => return Err(format!("`wgmma.{what}` is not known")),
        };
        self.push(op);
        Ok(true)
    }

    /// How many registers a thread has from now on: nothing that an interpreter has few of.
    fn set_registers(&mut self, modifiers: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), Problem> {
        self.expect_target()?;
        let known = (modifiers.take("inc") || modifiers.take("dec"))
            && modifiers.take("sync")
            && modifiers.take("aligned")
            && modifiers.take("u32");
        if !known {
            return Err("expected `.inc` or `.dec`, `.sync`, `.aligned` and `.u32`".to_owned());
        }
        match exactly(operands)? {
            [Operand::Integer(count)] if count % 8 == 0 && (24..=256).contains(count) => {
                self.push(Op::SetRegisters);
                Ok(())
            }
            _ => Err("expected a multiple of 8 from 24 to 256".to_owned()),
        }
    }

    /// That the module may use what only `sm_90a` has.
    pub(super) fn expect_target(&self) -> Result<(), Problem> {
        let target = &self.module.target;
        if *target == TARGET { Ok(()) } else { Err(format!("needs `.target {TARGET}`, which is `{target}`")) }
    }

    fn warpgroup_multiply(
        &mut self,
        modifiers: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<Op, Problem> {
        let shape = modifiers.find(|name| name.starts_with('m').then(|| name.to_owned())).unwrap_or_default();
        let columns = shape.strip_prefix("m64n").and_then(|rest| rest.strip_suffix("k16")?.parse().ok());
        let known = |columns: &usize| columns.is_multiple_of(8) && (8..=256).contains(columns);
        let columns = columns
            .filter(known)
            .ok_or_else(|| format!("a warpgroup's product with shape `{shape}` is not known"))?;
        let types = [modifiers.ty()?, modifiers.ty()?, modifiers.ty()?];
        if types != [Type::F32, Type::Bf16, Type::Bf16] {
            return Err(format!("a warpgroup's product of {types:?} is not known"));
        }
        if matches!(operands.get(1), Some(Operand::Vector(_))) {
            return Err("a first factor in registers is not known".to_owned());
        }
        let [d, a, b, adds, scale_a, scale_b, transposed_a, transposed_b] = exactly(operands)?;
        let accumulators = self.fragment(d, columns / 2)?;
        let distinct: HashSet<Register> = accumulators.iter().copied().collect();
        if distinct.len() != accumulators.len() || distinct.contains(&Register::SINK) {
            return Err("each accumulator must be a register of its own".to_owned());
        }
        let multiply = WarpgroupMultiply {
            columns,
            accumulators,
            a: self.shared_matrix(a, scale_a, transposed_a)?,
            b: self.shared_matrix(b, scale_b, transposed_b)?,
            adds: self.source(adds, Type::Pred)?,
        };
        Ok(Op::WarpgroupMultiply(Box::new(multiply)))
    }

    fn shared_matrix(
        &mut self,
        descriptor: &Operand,
        scale: &Operand,
        transposed: &Operand,
    ) -> Result<SharedMatrix, Problem> {
        let negated = match scale {
            Operand::Integer(1) => false,
            Operand::Integer(-1) => true,
            _ => return Err("a factor is scaled by 1 or -1".to_owned()),
        };
        let transposed = match transposed {
            Operand::Integer(0) => false,
            Operand::Integer(1) => true,
            _ => return Err("a factor is transposed or not: 1 or 0".to_owned()),
        };
        Ok(SharedMatrix { descriptor: self.source(descriptor, Type::B64)?, negated, transposed })
    }

    /// Notes at each instruction which accumulators of products it touches.
    pub(super) fn find_accumulators(&mut self) {
        let products = self.code.iter().filter_map(|instruction| match &instruction.op {
            Op::WarpgroupMultiply(multiply) => Some(multiply.accumulators.iter().copied()),
            _ => None,
        });
        let accumulators: HashSet<Register> = products.flatten().collect();
        if accumulators.is_empty() {
            return;
        }
        for instruction in &mut self.code {
            if !matches!(instruction.op, Op::WarpgroupMultiply(_)) {
                let mut touched = instruction.op.registers();
                touched.retain(|register| accumulators.contains(register));
                instruction.accumulators = touched.into();
            }
        }
    }
}
