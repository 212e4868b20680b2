//! An opcode's modifiers, taken one after the other. Those that nobody takes are errors.

use crate::types::{Space, Type};

/// Why an instruction is not understood.
pub(crate) type Problem = String;

/// What stands between the points of an opcode, the name in front taken away.
pub(crate) struct Modifiers<'s> {
    rest: Vec<&'s str>,
}

impl<'s> Modifiers<'s> {
    /// Name and modifiers of an opcode.
    pub(crate) fn of(opcode: &'s str) -> (&'s str, Modifiers<'s>) {
        let mut parts = opcode.split('.');
        (parts.next().unwrap_or_default(), Modifiers { rest: parts.collect() })
    }

    /// Whether `name` is among them; it is taken.
    pub(crate) fn take(&mut self, name: &str) -> bool {
        let found = self.rest.iter().position(|modifier| *modifier == name);
        found.map(|at| self.rest.remove(at)).is_some()
    }

    /// Takes all of `names` that there are: hints that change nothing here.
    pub(crate) fn ignore(&mut self, names: &[&str]) {
        self.rest.retain(|modifier| !names.contains(modifier));
    }

    /// The first one that `read` knows; it is taken.
    pub(crate) fn find<T>(&mut self, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let (at, value) =
            self.rest.iter().enumerate().find_map(|(at, modifier)| Some((at, read(modifier)?)))?;
        self.rest.remove(at);
        Some(value)
    }

    /// The one that comes first.
    pub(crate) fn first(&mut self) -> Result<&'s str, Problem> {
        if self.rest.is_empty() {
            return Err("a modifier is missing".to_owned());
        }
        Ok(self.rest.remove(0))
    }

    /// The first type.
    pub(crate) fn ty(&mut self) -> Result<Type, Problem> {
        self.find(Type::parse).ok_or_else(|| "expected a type".to_owned())
    }

    /// The first type, left where it is.
    pub(crate) fn peek_type(&self) -> Result<Type, Problem> {
        self.rest.iter().find_map(|name| Type::parse(name)).ok_or_else(|| "expected a type".to_owned())
    }

    /// The first state space, generic without one.
    pub(crate) fn space(&mut self) -> Space {
        self.find(Space::parse).unwrap_or(Space::Generic)
    }

    /// That all of them were taken.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        match self.rest.first() {
            None => Ok(()),
            Some(modifier) => Err(format!("modifier `.{modifier}` is not known here")),
        }
    }
}
