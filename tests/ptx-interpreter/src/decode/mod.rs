//! From syntax to instructions.

mod arithmetic;
mod control;
mod memory;
mod modifiers;
mod names;
mod operands;
mod values;
mod warp;
mod warpgroup;

use crate::instruction::{Content, Guard, Instruction, Op, Register};
use crate::parse::ParseError;
use crate::parse::syntax::{Function, Source, Statement};
use crate::program::{Parameter, Program, SharedVariable};
use modifiers::{Modifiers, Problem};
use names::{Labels, Module, Name, Scopes};
use std::collections::HashMap;

pub(crate) use names::{ModuleVariable, module_variables};

/// A kernel of `module` as a program.
pub(crate) fn kernel(module: &Module<'_>, function: &Function) -> Result<Program, ParseError> {
    let mut decoder = Decoder::new(module);
    let parameters = decoder.declare_parameters(function);
    decoder.body(&function.body, None).map_err(|error| error.in_kernel(&function.name))?;
    decoder.code.push(Instruction { line: 0, guard: None, op: Op::Exit, accumulators: Box::default() });
    decoder.find_accumulators();
    decoder.resolve_labels().map_err(|problem| ParseError::new(0, problem).in_kernel(&function.name))?;
    Ok(Program {
        name: function.name.clone(),
        most_threads: function.most_threads,
        parameters,
        code: decoder.code,
        registers: decoder.registers,
        shared: decoder.shared,
        dynamic_shared_align: decoder.dynamic_shared_align,
        local_bytes: decoder.local_bytes,
    })
}

/// What a call leaves to the function that it is replaced by.
struct Call {
    /// Where the function goes on after its end.
    end: u32,
    /// The function.
    name: String,
}

/// A kernel that is being decoded.
struct Decoder<'m> {
    module: &'m Module<'m>,
    scopes: Scopes,
    labels: Labels,
    code: Vec<Instruction>,
    registers: Vec<Content>,
    constants: HashMap<Content, Register>,
    shared: Vec<SharedVariable>,
    /// Where shared variables are of the module, and of functions, that the kernel uses.
    module_shared: HashMap<String, u64>,
    dynamic_shared_align: usize,
    local_bytes: usize,
    /// Guard and line of the instruction that is being decoded.
    guard: Option<Guard>,
    line: u32,
    carry: Option<Register>,
    calls: Vec<Call>,
}

impl<'m> Decoder<'m> {
    fn new(module: &'m Module<'m>) -> Decoder<'m> {
        Decoder {
            module,
            scopes: Scopes::default(),
            labels: Labels::default(),
            code: Vec::new(),
            registers: vec![Content::Variable],
            constants: HashMap::new(),
            shared: Vec::new(),
            module_shared: HashMap::new(),
            dynamic_shared_align: 16,
            local_bytes: 0,
            guard: None,
            line: 0,
            carry: None,
            calls: Vec::new(),
        }
    }

    /// The kernel's parameters, laid out one after the other as C does.
    fn declare_parameters(&mut self, function: &Function) -> Vec<Parameter> {
        self.scopes.open();
        let mut end = 0usize;
        let mut parameters = Vec::new();
        for variable in &function.parameters {
            let offset = end.next_multiple_of(variable.align);
            end = offset + variable.bytes();
            parameters.push(Parameter { offset, size: variable.bytes() });
            self.scopes.declare(&variable.name, Name::Parameter(offset as u64));
        }
        parameters
    }

    /// A function's statements. A `ret` in the body of a function that was called jumps to the end of the call.
    fn body(&mut self, statements: &[Statement], call: Option<Call>) -> Result<(), ParseError> {
        let is_call = call.is_some();
        self.calls.extend(call);
        self.scopes.open();
        self.declare_labels(statements);
        for (at, statement) in statements.iter().enumerate() {
            match statement {
                Statement::Open => {
                    self.scopes.open();
                    self.declare_labels(&statements[at + 1..]);
                }
                Statement::Close => self.scopes.close(),
                Statement::Label(name) => {
                    if let Some(Name::Label(label)) = self.scopes.find(name) {
                        self.labels.place(label, self.code.len());
                    }
                }
                Statement::Register { element, name, count } => {
                    self.declare_registers(*element, name, *count)
                }
                Statement::Variable(variable) => self.declare_variable(variable),
                Statement::BranchTargets { .. } => {}
                Statement::Instruction(source) => {
                    self.line = source.line;
                    self.instruction(source).map_err(|problem| ParseError::new(source.line, problem))?;
                }
            }
        }
        self.scopes.close();
        if is_call {
            self.calls.pop();
        }
        Ok(())
    }

    /// Declares the labels of a scope, given what follows its beginning.
    fn declare_labels(&mut self, statements: &[Statement]) {
        let mut depth = 0;
        for statement in statements {
            match statement {
                Statement::Open => depth += 1,
                Statement::Close if depth == 0 => return,
                Statement::Close => depth -= 1,
                Statement::Label(name) if depth == 0 => {
                    let label = self.labels.declare();
                    self.scopes.declare(name, Name::Label(label));
                }
                Statement::BranchTargets { name, labels } if depth == 0 => {
                    self.scopes.declare(name, Name::Table(labels.clone()));
                }
                _ => {}
            }
        }
    }

    /// Adds an instruction, under the guard of the one that is being decoded.
    fn push(&mut self, op: Op) {
        let (line, guard) = (self.line, self.guard);
        self.code.push(Instruction { line, guard, op, accumulators: Box::default() });
    }

    fn instruction(&mut self, source: &Source) -> Result<(), Problem> {
        self.guard = None;
        if let Some((name, negated)) = &source.guard {
            let predicate = self.predicate_named(name)?;
            self.guard = Some(Guard { predicate, negated: *negated });
        }
        let (name, mut modifiers) = Modifiers::of(&source.opcode);
        let operands = &source.operands;
        let known = self.arithmetic(name, &mut modifiers, operands)?
            || self.values(name, &mut modifiers, operands)?
            || self.memory(name, &mut modifiers, operands)?
            || self.warp(name, &mut modifiers, operands)?
            || self.warpgroup(name, &mut modifiers, operands)?
            || self.control(name, &mut modifiers, operands)?;
        if !known {
            return Err(format!("opcode `{name}` is not known"));
        }
        modifiers.finish()
    }

    /// Labels as places in the code.
    fn resolve_labels(&mut self) -> Result<(), Problem> {
        let labels = &self.labels;
        for instruction in &mut self.code {
            match &mut instruction.op {
                Op::Branch { target } => *target = labels.place_of(*target)?,
                Op::BranchTable { targets, .. } => {
                    for target in targets {
                        *target = labels.place_of(*target)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}
