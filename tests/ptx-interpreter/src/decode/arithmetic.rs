//! Arithmetic and logic.

use super::Decoder;
use super::modifiers::{Modifiers, Problem};
use super::operands::exactly;
use crate::arithmetic::bits::{self, Permutation};
use crate::arithmetic::float::{self, Float, Operation};
use crate::arithmetic::integer;
use crate::arithmetic::rounding::Rounding;
use crate::instruction::{Content, Op, Register};
use crate::lane::{Function, TwoResults};
use crate::parse::syntax::Operand;
use crate::types::Type;

/// The direction of `.rn` and its like.
pub(super) fn rounding(name: &str) -> Option<Rounding> {
    Some(match name {
        "rn" => Rounding::Nearest,
        "rz" => Rounding::Zero,
        "rm" => Rounding::Down,
        "rp" => Rounding::Up,
        _ => return None,
    })
}

/// A function that exists for the type.
pub(super) fn known(function: Option<Function>, ty: Type) -> Result<Function, Problem> {
    function.ok_or_else(|| format!("not known for {ty:?}"))
}

impl Decoder<'_> {
    /// Adds an arithmetic instruction; false if `name` is none.
    pub(super) fn arithmetic(
        &mut self,
        name: &str,
        modifiers: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<bool, Problem> {
        match name {
            "add" | "sub" | "addc" | "subc" => self.sum(name, modifiers, operands)?,
            "mul" => self.product(modifiers, operands)?,
            "mad" | "madc" => self.product_sum(name, modifiers, operands)?,
            "fma" => self.float(Operation::Fma, modifiers, operands)?,
            "mul24" | "mad24" => self.product24(modifiers, operands)?,
            "div" | "rem" | "min" | "max" | "neg" | "abs" => self.by_kind(name, modifiers, operands)?,
            "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => {
                let operation = match name {
                    "rcp" => Operation::Rcp,
                    "sqrt" => Operation::Sqrt,
                    "rsqrt" => Operation::Rsqrt,
                    "ex2" => Operation::Exp2,
                    "lg2" => Operation::Log2,
                    "sin" => Operation::Sin,
                    "cos" => Operation::Cos,
                    _ => Operation::Tanh,
                };
                self.float(operation, modifiers, operands)?;
            }
            "and" | "or" | "xor" | "not" | "cnot" | "sad" | "copysign" => {
                let ty = modifiers.ty()?;
                let function = match name {
                    "and" => bits::and(ty),
                    "or" => bits::or(ty),
                    "xor" => bits::xor(ty),
                    "not" => bits::not(ty),
                    "cnot" => bits::logical_not(ty),
                    "sad" => integer::sad(ty),
                    _ => float::copy_sign(ty),
                };
                self.function(known(function, ty)?, ty, &[ty, ty, ty], operands)?;
            }
            "shl" | "shr" => {
                let ty = modifiers.ty()?;
                let function = if name == "shl" { bits::shift_left(ty) } else { bits::shift_right(ty) };
                self.function(known(function, ty)?, ty, &[ty, Type::U32], operands)?;
            }
            "shf" => {
                let left = modifiers.take("l");
                let clamp = modifiers.take("clamp");
                if left == modifiers.take("r") || clamp == modifiers.take("wrap") {
                    return Err("expected one of `.l` and `.r`, and one of `.clamp` and `.wrap`".to_owned());
                }
                let ty = modifiers.ty()?;
                self.function(bits::funnel_shift(left, clamp), ty, &[Type::B32; 3], operands)?;
            }
            "popc" | "clz" | "brev" | "bfind" => self.count_bits(name, modifiers, operands)?,
            "bfe" => {
                let ty = modifiers.ty()?;
                self.function(
                    known(bits::extract_field(ty), ty)?,
                    ty,
                    &[ty, Type::U32, Type::U32],
                    operands,
                )?;
            }
            "bfi" => {
                let ty = modifiers.ty()?;
                self.function(
                    known(bits::insert_field(ty), ty)?,
                    ty,
                    &[ty, ty, Type::U32, Type::U32],
                    operands,
                )?;
            }
            "lop3" => {
                let ty = modifiers.ty()?;
                self.function(bits::lookup3(), ty, &[Type::B32; 4], operands)?;
            }
            "prmt" => {
                let ty = modifiers.ty()?;
                let mode = modifiers.find(permutation).unwrap_or(Permutation::Chosen);
                self.function(bits::permute(mode), ty, &[Type::B32; 3], operands)?;
            }
            "testp" => {
                let question = modifiers.first()?;
                let ty = modifiers.ty()?;
                self.function(known(float::test_property(question, ty), ty)?, Type::Pred, &[ty], operands)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// An instruction with a result of type `ty` and operands of `types`; how many, the function says.
    pub(super) fn function(
        &mut self,
        function: Function,
        ty: Type,
        types: &[Type],
        operands: &[Operand],
    ) -> Result<(), Problem> {
        let arity = function.arity();
        if operands.len() != arity + 1 {
            return Err(format!("{} operands wanted, {} given", arity + 1, operands.len()));
        }
        let mut sources = [Register::SINK; 4];
        for (i, operand) in operands[1..].iter().enumerate() {
            sources[i] = self.source(operand, types[i])?;
        }
        let target = self.target(&operands[0], ty)?;
        self.compute(function, target, &sources[..arity]);
        Ok(())
    }

    /// Floating-point arithmetic.
    fn float(
        &mut self,
        operation: Operation,
        modifiers: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<(), Problem> {
        let flush = modifiers.take("ftz");
        let direction = modifiers.find(rounding).unwrap_or_default();
        modifiers.ignore(&["approx", "full"]);
        let saturate = modifiers.take("sat");
        let propagate_nan = modifiers.take("NaN");
        let ty = modifiers.ty()?;
        // Of f64 only approximations know `.ftz`, which says nothing more there.
        let flush = flush && !(ty == Type::F64 && matches!(operation, Operation::Rcp | Operation::Rsqrt));
        if !matches!(ty, Type::F32 | Type::F64) || ty == Type::F64 && (flush || saturate) {
            return Err(format!("not known for {ty:?} with these modifiers"));
        }
        let all = float::Modifiers { rounding: direction, flush, saturate, propagate_nan };
        if let Some(function) = float::plain(operation, ty, all) {
            return self.function(function, ty, &[ty; 3], operands);
        }
        if operands.len() != operation.arity() + 1 {
            return Err(format!("{} operands wanted, {} given", operation.arity() + 1, operands.len()));
        }
        // Operands that are not read repeat the first one, which is initialised if they are.
        let mut sources = [self.source(&operands[1], ty)?; 3];
        for (source, operand) in sources.iter_mut().zip(&operands[1..]) {
            *source = self.source(operand, ty)?;
        }
        let target = self.target(&operands[0], ty)?;
        let float = Float { operation, modifiers: all, double: ty == Type::F64 };
        self.push(Op::Float { float, target, sources });
        Ok(())
    }

    /// Whether the first type among the modifiers is a floating-point one.
    fn is_float(modifiers: &mut Modifiers<'_>) -> Result<bool, Problem> {
        Ok(modifiers.peek_type()?.is_float())
    }

    fn sum(
        &mut self,
        name: &str,
        modifiers: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<(), Problem> {
        let minus = name.starts_with("sub");
        if Self::is_float(modifiers)? {
            return self.float(if minus { Operation::Sub } else { Operation::Add }, modifiers, operands);
        }
        let carries_out = modifiers.take("cc");
        let saturate = modifiers.take("sat");
        let ty = modifiers.ty()?;
        if carries_out || name.ends_with('c') {
            let function = match minus {
                true => integer::sub_with_borrow(ty.bits()),
                false => integer::add_with_carry(ty.bits()),
            };
            let [d, a, b] = exactly(operands)?;
            let zero = Operand::Integer(0);
            return self.with_carry(function, [d, a, b, &zero], ty, name.ends_with('c'), carries_out);
        }
        let function = match (minus, saturate) {
            (false, false) => integer::add(ty),
            (false, true) => integer::add_saturated(ty),
            (true, false) => integer::sub(ty),
            (true, true) => integer::sub_saturated(ty),
        };
        self.function(known(function, ty)?, ty, &[ty, ty], operands)
    }

    /// A sum that takes a carry or leaves one.
    fn with_carry(
        &mut self,
        function: TwoResults,
        [d, a, b, c]: [&Operand; 4],
        ty: Type,
        carry_in: bool,
        carry_out: bool,
    ) -> Result<(), Problem> {
        if ty.bits() < 32 {
            return Err(format!("not known for {ty:?}"));
        }
        let carry = match self.carry {
            Some(carry) => carry,
            None => {
                let register = self.new_register();
                *self.carry.insert(register)
            }
        };
        let carried = if carry_in { carry } else { self.constant(Content::Number(0)) };
        let sources = [self.source(a, ty)?, self.source(b, ty)?, self.source(c, ty)?, carried];
        let targets = [self.target(d, ty)?, if carry_out { carry } else { Register::SINK }];
        self.push(Op::ComputeTwo { function, targets, sources, reads: 4 });
        Ok(())
    }

    fn product(&mut self, modifiers: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), Problem> {
        if Self::is_float(modifiers)? {
            return self.float(Operation::Mul, modifiers, operands);
        }
        let (wide, high) = (modifiers.take("wide"), modifiers.take("hi"));
        if !wide && !high && !modifiers.take("lo") {
            return Err("expected one of `.lo`, `.hi` and `.wide`".to_owned());
        }
        let ty = modifiers.ty()?;
        let (function, result) = match (wide, high) {
            (true, _) => (integer::mul_wide(ty), twice(ty)?),
            (_, true) => (integer::mul_high(ty), ty),
            _ => (integer::mul_low(ty), ty),
        };
        self.function(known(function, ty)?, result, &[ty, ty], operands)
    }

    fn product_sum(
        &mut self,
        name: &str,
        modifiers: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<(), Problem> {
        if Self::is_float(modifiers)? {
            return self.float(Operation::Fma, modifiers, operands);
        }
        let (wide, high) = (modifiers.take("wide"), modifiers.take("hi"));
        if !wide && !high && !modifiers.take("lo") {
            return Err("expected one of `.lo`, `.hi` and `.wide`".to_owned());
        }
        let carry_out = modifiers.take("cc");
        let ty = modifiers.ty()?;
        if carry_out || name == "madc" {
            let function = integer::mad_with_carry(ty, high).filter(|_| !wide);
            let function = function.ok_or_else(|| format!("not known for {ty:?}"))?;
            let [d, a, b, c] = exactly(operands)?;
            return self.with_carry(function, [d, a, b, c], ty, name == "madc", carry_out);
        }
        let (function, result) = match (wide, high) {
            (true, _) => (integer::mad_wide(ty), twice(ty)?),
            (_, true) => (integer::mad_high(ty), ty),
            _ => (integer::mad_low(ty), ty),
        };
        self.function(known(function, ty)?, result, &[ty, ty, result], operands)
    }

    fn product24(&mut self, modifiers: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), Problem> {
        let high = modifiers.take("hi");
        if !high && !modifiers.take("lo") {
            return Err("expected one of `.lo` and `.hi`".to_owned());
        }
        let ty = modifiers.ty()?;
        let mut operands = operands.to_vec();
        if operands.len() == 3 {
            operands.push(Operand::Integer(0));
        }
        self.function(known(integer::mad24(ty, high), ty)?, ty, &[ty; 3], &operands)
    }

    /// What exists for integers and for floating-point numbers.
    fn by_kind(
        &mut self,
        name: &str,
        modifiers: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<(), Problem> {
        if Self::is_float(modifiers)? {
            let operation = match name {
                "div" => Operation::Div,
                "min" => Operation::Min,
                "max" => Operation::Max,
                "neg" => Operation::Neg,
                "abs" => Operation::Abs,
                _ => return Err("not known for floating-point numbers".to_owned()),
            };
            return self.float(operation, modifiers, operands);
        }
        let ty = modifiers.ty()?;
        let function = match name {
            "div" => integer::div(ty),
            "rem" => integer::rem(ty),
            "min" => integer::min(ty),
            "max" => integer::max(ty),
            "neg" => integer::neg(ty),
            _ => integer::abs(ty),
        };
        self.function(known(function, ty)?, ty, &[ty, ty], operands)
    }

    fn count_bits(
        &mut self,
        name: &str,
        modifiers: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<(), Problem> {
        let shift_amount = modifiers.take("shiftamt");
        let ty = modifiers.ty()?;
        let (function, result) = match name {
            "popc" => (bits::population(ty), Type::U32),
            "clz" => (bits::leading_zeros(ty), Type::U32),
            "brev" => (bits::reverse(ty), ty),
            _ => (bits::find_highest(ty, shift_amount), Type::U32),
        };
        self.function(known(function, ty)?, result, &[ty], operands)
    }
}

/// The unsigned type of twice the width.
fn twice(ty: Type) -> Result<Type, Problem> {
    match ty.bits() {
        16 => Ok(Type::B32),
        32 => Ok(Type::B64),
        _ => Err(format!("not known for {ty:?}")),
    }
}

fn permutation(name: &str) -> Option<Permutation> {
    Some(match name {
        "f4e" => Permutation::Forward4,
        "b4e" => Permutation::Backward4,
        "rc8" => Permutation::Replicate8,
        "rc16" => Permutation::Replicate16,
        "ecl" => Permutation::EdgeLeft,
        "ecr" => Permutation::EdgeRight,
        _ => return None,
    })
}
