//! A module as it is written: variables, functions and their statements, names not yet resolved.

use crate::types::{Space, Type};

/// All of a PTX file that means something.
#[derive(Debug, Default)]
pub(crate) struct File {
    /// What stands behind `.target`, without options.
    pub(crate) target: String,
    pub(crate) variables: Vec<Variable>,
    pub(crate) functions: Vec<Function>,
}

/// A variable of any state space, or a parameter.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) space: Space,
    pub(crate) element: Type,
    pub(crate) align: usize,
    /// Number of elements; none for an array of the size that the launch gives.
    pub(crate) elements: Option<usize>,
    /// Values of the first elements; the others are zero.
    pub(crate) initial: Vec<u64>,
}

impl Variable {
    /// Bytes of all elements.
    pub(crate) fn bytes(&self) -> usize {
        self.elements.unwrap_or(0) * self.element.bytes()
    }
}

/// A kernel (`.entry`) or a function that kernels call (`.func`).
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) is_kernel: bool,
    pub(crate) returns: Vec<Variable>,
    pub(crate) parameters: Vec<Variable>,
    /// Most threads of a block (`.maxntid`, `.reqntid`).
    pub(crate) most_threads: Option<u32>,
    pub(crate) body: Vec<Statement>,
}

/// A statement of a function's body.
#[derive(Debug)]
pub(crate) enum Statement {
    /// `{`: names declared from here on end at the `}`.
    Open,
    /// `}`.
    Close,
    /// A label.
    Label(String),
    /// `.reg`: a register, or several with `count`: `%r<3>` is `%r0`, `%r1`, `%r2`.
    Register { element: Type, name: String, count: Option<u32> },
    /// `.shared`, `.local` or `.param` inside of a body.
    Variable(Variable),
    /// `name: .branchtargets ...`.
    BranchTargets { name: String, labels: Vec<String> },
    /// An instruction.
    Instruction(Source),
}

/// An instruction as it is written.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) line: u32,
    /// The predicate's name, and whether it is negated.
    pub(crate) guard: Option<(String, bool)>,
    /// The name with its modifiers.
    pub(crate) opcode: String,
    pub(crate) operands: Vec<Operand>,
}

/// An operand as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    /// A register, variable, label or function.
    Name(String),
    /// An integer.
    Integer(i128),
    /// The bits of an f32.
    Single(u32),
    /// The bits of an f64.
    Double(u64),
    /// `[base + offset]`.
    Address { base: Box<Operand>, offset: i64 },
    /// `{a, b}`.
    Vector(Vec<Operand>),
    /// `a|b`.
    Pair(String, String),
    /// `!a`.
    Not(String),
    /// `(a, b)`, of a call.
    List(Vec<Operand>),
}
