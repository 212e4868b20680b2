//! What threads do together: barriers, exchanges between lanes, matrices.

use super::Decoder;
use super::modifiers::{Modifiers, Problem};
use super::operands::exactly;
use crate::instruction::{
    Barrier, BarrierReduction, Format, Multiply, Op, Reduction, Register, Shuffle, ShuffleMode, Vote,
};
use crate::parse::syntax::Operand;
use crate::types::{Space, Type};

impl Decoder<'_> {
    /// Adds an instruction that threads execute together; false if `name` is none.
    pub(super) fn warp(
        &mut self,
        name: &str,
        modifiers: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<bool, Problem> {
        match name {
            "bar" | "barrier" => self.barrier(modifiers, operands)?,
            "fence" if modifiers.take("proxy") => {
                self.expect_target()?;
                if !modifiers.take("async") {
                    return Err("of fences between proxies, `.async` alone is known".to_owned());
                }
                modifiers.ignore(&["shared::cta"]);
                let [] = exactly(operands)?;
                self.push(Op::ProxyFence);
            }
            "membar" | "fence" => {
                let device = modifiers.take("gl") | modifiers.take("gpu") | modifiers.take("sys");
                modifiers.ignore(&["cta", "sc", "acq_rel"]);
                self.push(Op::Fence { device });
            }
            "activemask" => {
                let ty = modifiers.ty()?;
                let [d] = exactly(operands)?;
                let target = self.target(d, ty)?;
                self.push(Op::ActiveMask { target });
            }
            "shfl" => self.shuffle(modifiers, operands)?,
            "vote" => self.vote(modifiers, operands)?,
            "match" => self.matching(modifiers, operands)?,
            "redux" => self.reduction(modifiers, operands)?,
            "ldmatrix" => self.load_matrix(modifiers, operands)?,
            "mma" => self.multiply(modifiers, operands)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn barrier(&mut self, modifiers: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), Problem> {
        if modifiers.take("warp") {
            let [mask] = exactly(operands)?;
            if !modifiers.take("sync") {
                return Err("expected `.sync`".to_owned());
            }
            let mask = self.source(mask, Type::B32)?;
            self.push(Op::WarpBarrier { mask });
            return Ok(());
        }
        modifiers.ignore(&["cta"]);
        modifiers.ignore(&["aligned"]);
        if modifiers.take("red") {
            return self.barrier_reduction(modifiers, operands);
        }
        let arrives = modifiers.take("arrive");
        if !arrives && !modifiers.take("sync") {
            return Err("expected `.sync`, `.arrive` or `.red`".to_owned());
        }
        let (id, threads) = match operands {
            [id] if !arrives => (id, None),
            [id, threads] => (id, Some(self.source(threads, Type::U32)?)),
            _ => return Err("expected a barrier and a number of threads".to_owned()),
        };
        let id = self.source(id, Type::U32)?;
        self.push(Op::Barrier(Barrier { id, threads, waits: !arrives, reduction: None }));
        Ok(())
    }

    /// `bar.red`: a barrier that tells how many threads' predicates are true.
    fn barrier_reduction(
        &mut self,
        modifiers: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<(), Problem> {
        let reduction = modifiers
            .find(|name| match name {
                "popc" => Some(BarrierReduction::Count),
                "and" => Some(BarrierReduction::And),
                "or" => Some(BarrierReduction::Or),
                _ => None,
            })
            .ok_or("expected `.popc`, `.and` or `.or`")?;
        let ty = modifiers.ty()?;
        let (d, id, threads, predicate) = match operands {
            [d, id, predicate] => (d, id, None, predicate),
            [d, id, threads, predicate] => (d, id, Some(self.source(threads, Type::U32)?), predicate),
            _ => return Err("expected a result, a barrier and a predicate".to_owned()),
        };
        let predicate = self.source(predicate, Type::Pred)?;
        let id = self.source(id, Type::U32)?;
        let reduction = Some((reduction, self.target(d, ty)?, predicate));
        self.push(Op::Barrier(Barrier { id, threads, waits: true, reduction }));
        Ok(())
    }

    fn sync(modifiers: &mut Modifiers<'_>) -> Result<(), Problem> {
        if modifiers.take("sync") { Ok(()) } else { Err("the form without `.sync` is not known".to_owned()) }
    }

    fn shuffle(&mut self, modifiers: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), Problem> {
        Self::sync(modifiers)?;
        let mode = modifiers.find(|name| {
            Some(match name {
                "up" => ShuffleMode::Up,
                "down" => ShuffleMode::Down,
                "bfly" => ShuffleMode::Butterfly,
                "idx" => ShuffleMode::Index,
                _ => return None,
            })
        });
        let mode = mode.ok_or("expected `.up`, `.down`, `.bfly` or `.idx`")?;
        let ty = modifiers.ty()?;
        let [d, value, distance, clamp, mask] = exactly(operands)?;
        let (target, in_range) = self.target_pair(d, ty, Type::Pred)?;
        let value = self.source(value, ty)?;
        let [distance, clamp, mask] = [distance, clamp, mask].map(|operand| self.source(operand, Type::B32));
        self.push(Op::Shuffle(Shuffle {
            mode,
            target,
            in_range,
            value,
            distance: distance?,
            clamp: clamp?,
            mask: mask?,
        }));
        Ok(())
    }

    fn vote(&mut self, modifiers: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), Problem> {
        Self::sync(modifiers)?;
        let vote = modifiers.find(|name| {
            Some(match name {
                "all" => Vote::All,
                "any" => Vote::Any,
                "uni" => Vote::Uniform,
                "ballot" => Vote::Ballot,
                _ => return None,
            })
        });
        let vote = vote.ok_or("expected `.all`, `.any`, `.uni` or `.ballot`")?;
        let ty = modifiers.ty()?;
        let [d, predicate, mask] = exactly(operands)?;
        let predicate = self.source(predicate, Type::Pred)?;
        let mask = self.source(mask, Type::B32)?;
        let target = self.target(d, ty)?;
        self.push(Op::Vote { vote, target, predicate, mask });
        Ok(())
    }

    fn matching(&mut self, modifiers: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), Problem> {
        Self::sync(modifiers)?;
        let all = modifiers.take("all");
        if !all && !modifiers.take("any") {
            return Err("expected `.any` or `.all`".to_owned());
        }
        let ty = modifiers.ty()?;
        let [d, value, mask] = exactly(operands)?;
        let (first, second) = self.target_pair(d, Type::B32, Type::Pred)?;
        let value = self.source(value, ty)?;
        let mask = self.source(mask, Type::B32)?;
        self.push(Op::Match { all, targets: [first, second], value, mask });
        Ok(())
    }

    fn reduction(&mut self, modifiers: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), Problem> {
        Self::sync(modifiers)?;
        let operation = modifiers.first()?;
        let ty = modifiers.ty()?;
        let reduction = match (operation, ty) {
            ("add", Type::U32 | Type::S32) => Reduction::Add,
            ("min", Type::U32) => Reduction::MinUnsigned,
            ("max", Type::U32) => Reduction::MaxUnsigned,
            ("min", Type::S32) => Reduction::MinSigned,
            ("max", Type::S32) => Reduction::MaxSigned,
            ("and", Type::B32) => Reduction::And,
            ("or", Type::B32) => Reduction::Or,
            ("xor", Type::B32) => Reduction::Xor,
            _ => return Err(format!("`{operation}` is not known for {ty:?}")),
        };
        let [d, value, mask] = exactly(operands)?;
        let value = self.source(value, ty)?;
        let mask = self.source(mask, Type::B32)?;
        let target = self.target(d, ty)?;
        self.push(Op::Reduce { reduction, target, value, mask });
        Ok(())
    }

    fn load_matrix(&mut self, modifiers: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), Problem> {
        Self::sync(modifiers)?;
        if !modifiers.take("aligned") || !modifiers.take("m8n8") {
            return Err("expected `.aligned` and `.m8n8`".to_owned());
        }
        let count = modifiers.find(|name| match name {
            "x1" => Some(1),
            "x2" => Some(2),
            "x4" => Some(4),
            _ => None,
        });
        let count = count.ok_or("expected `.x1`, `.x2` or `.x4`")?;
        let transposed = modifiers.take("trans");
        if modifiers.space() != Space::Shared || modifiers.ty()? != Type::B16 {
            return Err("matrices of `.b16` in `.shared` alone are known".to_owned());
        }
        let [d, address] = exactly(operands)?;
        let targets = self.fragment(d, count)?;
        let (address, _) = self.address(address, Space::Shared)?;
        self.push(Op::LoadMatrix { targets, address, transposed });
        Ok(())
    }

    /// Registers of 32 bits that results go to.
    pub(super) fn fragment(&mut self, operand: &Operand, count: usize) -> Result<Box<[Register]>, Problem> {
        let elements = Self::elements(operand);
        if elements.len() != count {
            return Err(format!("{count} registers wanted, {} given", elements.len()));
        }
        elements.iter().map(|element| self.target(element, Type::B32)).collect()
    }

    fn source_fragment(&mut self, operand: &Operand, count: usize) -> Result<Box<[Register]>, Problem> {
        let elements = Self::elements(operand);
        if elements.len() != count {
            return Err(format!("{count} registers wanted, {} given", elements.len()));
        }
        elements.iter().map(|element| self.source(element, Type::B32)).collect()
    }

    fn multiply(&mut self, modifiers: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), Problem> {
        Self::sync(modifiers)?;
        let shape = modifiers.find(|name| name.starts_with('m').then(|| name.to_owned())).unwrap_or_default();
        if !modifiers.take("aligned") || !modifiers.take("row") || !modifiers.take("col") {
            return Err("expected `.aligned`, `.row` and `.col`".to_owned());
        }
        let types = [modifiers.ty()?, modifiers.ty()?, modifiers.ty()?, modifiers.ty()?];
        let format = match types {
            [Type::F32, Type::F16, Type::F16, Type::F32] => Format::F16,
            [Type::F32, Type::Bf16, Type::Bf16, Type::F32] => Format::Bf16,
            [Type::F32, Type::Tf32, Type::Tf32, Type::F32] => Format::Tf32,
            _ => return Err(format!("a product of {types:?} is not known")),
        };
        let depth = match (shape.as_str(), format) {
            ("m16n8k16", Format::F16 | Format::Bf16) => 16,
            ("m16n8k8", _) => 8,
            ("m16n8k4", Format::Tf32) => 4,
            _ => return Err(format!("a product of {format:?} with shape `{shape}` is not known")),
        };
        let values = if format == Format::Tf32 { 1 } else { 2 };
        let [d, a, b, c] = exactly(operands)?;
        let multiply = Multiply {
            format,
            depth,
            d: self.fragment(d, 4)?,
            a: self.source_fragment(a, 16 * depth / 32 / values)?,
            b: self.source_fragment(b, 8 * depth / 32 / values)?,
            c: self.source_fragment(c, 4)?,
        };
        self.push(Op::Multiply(Box::new(multiply)));
        Ok(())
    }
}
