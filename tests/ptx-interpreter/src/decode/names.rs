//! What names mean: registers, variables, labels.

use super::Decoder;
use super::modifiers::Problem;
use crate::instruction::{Content, Register};
use crate::parse::syntax::{File, Function, Variable};
use crate::program::{SHARED_GAP, SharedVariable};
use crate::types::{Space, Type};
use std::collections::HashMap;

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Name {
    Register {
        register: Register,
        ty: Type,
    },
    /// Offset among the kernel's parameters.
    Parameter(u64),
    /// Offset in the thread's memory.
    Local(u64),
    /// Offset in the block's memory.
    Shared(u64),
    DynamicShared,
    Label(u32),
    /// Labels of a table of branches.
    Table(Vec<String>),
}

/// Names by scope, the innermost one last.
#[derive(Default)]
pub(super) struct Scopes {
    scopes: Vec<HashMap<String, Name>>,
}

impl Scopes {
    pub(super) fn open(&mut self) {
        self.scopes.push(HashMap::new());
    }

    pub(super) fn close(&mut self) {
        self.scopes.pop();
    }

    pub(super) fn declare(&mut self, name: &str, meaning: Name) {
        self.scopes.last_mut().expect("a scope is open").insert(name.to_owned(), meaning);
    }

    pub(super) fn find(&self, name: &str) -> Option<Name> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name)).cloned()
    }

    /// Takes all names away, until [`Scopes::restore`] brings them back: a function that is called does not see its
    /// caller's.
    pub(super) fn hide(&mut self) -> Scopes {
        std::mem::take(self)
    }

    pub(super) fn restore(&mut self, hidden: Scopes) {
        *self = hidden;
    }
}

/// Labels, each a number, and where they stand.
#[derive(Default)]
pub(super) struct Labels {
    places: Vec<Option<u32>>,
}

impl Labels {
    pub(super) fn declare(&mut self) -> u32 {
        self.places.push(None);
        self.places.len() as u32 - 1
    }

    pub(super) fn place(&mut self, label: u32, at: usize) {
        self.places[label as usize] = Some(at as u32);
    }

    pub(super) fn place_of(&self, label: u32) -> Result<u32, Problem> {
        self.places[label as usize].ok_or_else(|| "a label has no place".to_owned())
    }
}

/// A module's variables and functions, by name.
pub(crate) struct Module<'f> {
    /// The devices that the module is for, as `.target` says.
    pub(super) target: &'f str,
    /// Offsets of variables in device memory, from the first one's place.
    pub(super) variables: HashMap<&'f str, u64>,
    pub(super) shared: HashMap<&'f str, &'f Variable>,
    pub(super) functions: HashMap<&'f str, &'f Function>,
}

/// A module's variables in device memory, as bytes to begin with.
pub(crate) fn module_variables(file: &File) -> (Module<'_>, Vec<ModuleVariable>) {
    let mut module = Module {
        target: &file.target,
        variables: HashMap::new(),
        shared: HashMap::new(),
        functions: HashMap::new(),
    };
    let mut variables: Vec<ModuleVariable> = Vec::new();
    let mut end = 0usize;
    for variable in &file.variables {
        if variable.space == Space::Shared {
            module.shared.insert(&variable.name, variable);
            continue;
        }
        // Space between variables, so that what leaves one does not come into the next.
        let offset = (end + 16).next_multiple_of(variable.align.max(16));
        end = offset + variable.bytes();
        module.variables.insert(&variable.name, offset as u64);
        variables.push(ModuleVariable {
            offset: offset as u64,
            bytes: initial_bytes(variable),
            constant: variable.space == Space::Const,
        });
    }
    module.functions.extend(file.functions.iter().filter(|f| !f.is_kernel).map(|f| (f.name.as_str(), f)));
    (module, variables)
}

/// A variable of a module.
#[derive(Clone, Debug)]
pub(crate) struct ModuleVariable {
    /// From where the module's variables begin.
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) constant: bool,
}

fn initial_bytes(variable: &Variable) -> Vec<u8> {
    let size = variable.element.bytes();
    let mut bytes: Vec<u8> =
        variable.initial.iter().flat_map(|value| value.to_le_bytes().into_iter().take(size)).collect();
    bytes.resize(variable.bytes(), 0);
    bytes
}

impl Decoder<'_> {
    pub(super) fn declare_registers(&mut self, ty: Type, name: &str, count: Option<u32>) {
        let mut declare = |name: &str| {
            let register = self.new_register();
            self.scopes.declare(name, Name::Register { register, ty });
        };
        match count {
            None => declare(name),
            Some(count) => (0..count).for_each(|i| declare(&format!("{name}{i}"))),
        }
    }

    pub(super) fn new_register(&mut self) -> Register {
        self.registers.push(Content::Variable);
        Register(self.registers.len() as u32 - 1)
    }

    pub(super) fn declare_variable(&mut self, variable: &Variable) {
        let meaning = match variable.space {
            // The same one wherever the function is called from.
            Space::Shared if !self.calls.is_empty() => self.shared_once(variable),
            Space::Shared => self.place_shared(variable),
            _ => self.place_local(variable),
        };
        self.scopes.declare(&variable.name, meaning);
    }

    /// A place in the thread's memory.
    pub(super) fn place_local(&mut self, variable: &Variable) -> Name {
        let offset = self.local_bytes.next_multiple_of(variable.align);
        self.local_bytes = offset + variable.bytes();
        Name::Local(offset as u64)
    }

    /// A place in the block's memory.
    fn place_shared(&mut self, variable: &Variable) -> Name {
        if variable.elements.is_none() {
            self.dynamic_shared_align = self.dynamic_shared_align.max(variable.align);
            return Name::DynamicShared;
        }
        let end = self.shared.last().map_or(0, |last| last.end() + SHARED_GAP);
        let offset = end.next_multiple_of(variable.align);
        self.shared.push(SharedVariable { offset, bytes: variable.bytes(), align: variable.align });
        Name::Shared(offset as u64)
    }

    /// What `name` means inside of the function, or in the module.
    pub(super) fn meaning(&mut self, name: &str) -> Option<Name> {
        if let Some(meaning) = self.scopes.find(name) {
            return Some(meaning);
        }
        let variable = *self.module.shared.get(name)?;
        Some(self.shared_once(variable))
    }

    /// The place in the block's memory of a variable that may have one already.
    fn shared_once(&mut self, variable: &Variable) -> Name {
        if let Some(offset) = self.module_shared.get(&variable.name) {
            return Name::Shared(*offset);
        }
        let meaning = self.place_shared(variable);
        if let Name::Shared(offset) = meaning {
            self.module_shared.insert(variable.name.clone(), offset);
        }
        meaning
    }
}
