//! Branches, calls and ends.

use super::modifiers::{Modifiers, Problem};
use super::names::Name;
use super::operands::exactly;
use super::{Call, Decoder};
use crate::instruction::Op;
use crate::parse::syntax::{Function, Operand};
use crate::types::Type;

impl Decoder<'_> {
    /// Adds an instruction after which another one than the next may run; false if `name` is none.
    pub(super) fn control(
        &mut self,
        name: &str,
        modifiers: &mut Modifiers<'_>,
        operands: &[Operand],
    ) -> Result<bool, Problem> {
        match name {
            "bra" => {
                modifiers.ignore(&["uni"]);
                let [Operand::Name(label)] = exactly(operands)? else {
                    return Err("expected a label".to_owned());
                };
                let target = self.label(label)?;
                self.push(Op::Branch { target });
            }
            "brx" => {
                modifiers.ignore(&["uni"]);
                self.branch_table(modifiers, operands)?;
            }
            "ret" => {
                modifiers.ignore(&["uni"]);
                match self.calls.last() {
                    Some(call) => {
                        let target = call.end;
                        self.push(Op::Branch { target });
                    }
                    None => self.push(Op::Exit),
                }
            }
            "exit" => self.push(Op::Exit),
            "trap" => self.push(Op::Trap),
            "call" => {
                modifiers.ignore(&["uni"]);
                self.call(operands)?;
            }
            "nop" | "nanosleep" | "pmevent" => {
                modifiers.ignore(&["u32"]);
                self.push(Op::Nothing);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn label(&mut self, name: &str) -> Result<u32, Problem> {
        match self.meaning(name) {
            Some(Name::Label(label)) => Ok(label),
            _ => Err(format!("`{name}` is no label")),
        }
    }

    fn branch_table(&mut self, modifiers: &mut Modifiers<'_>, operands: &[Operand]) -> Result<(), Problem> {
        let [index, Operand::Name(table)] = exactly(operands)? else {
            return Err("expected a register and a table".to_owned());
        };
        if !modifiers.take("idx") {
            return Err("expected `.idx`".to_owned());
        }
        let Some(Name::Table(labels)) = self.meaning(table) else {
            return Err(format!("`{table}` is no table of labels"));
        };
        let index = self.source(index, Type::U32)?;
        let targets: Result<_, Problem> = labels.iter().map(|label| self.label(label)).collect();
        self.push(Op::BranchTable { index, targets: targets? });
        Ok(())
    }

    /// A call is replaced by the function's body, whose parameters are the variables that the call names.
    fn call(&mut self, operands: &[Operand]) -> Result<(), Problem> {
        let (results, name, arguments) = match operands {
            [Operand::Name(name)] => (&[][..], name, &[][..]),
            [Operand::Name(name), Operand::List(arguments)] => (&[][..], name, &arguments[..]),
            [Operand::List(results), Operand::Name(name)] => (&results[..], name, &[][..]),
            [Operand::List(results), Operand::Name(name), Operand::List(arguments)] => {
                (&results[..], name, &arguments[..])
            }
            _ => return Err("calls through pointers are not known".to_owned()),
        };
        let module = self.module;
        let function: &Function = module
            .functions
            .get(name.as_str())
            .ok_or_else(|| format!("no function `{name}` in the module"))?;
        if self.calls.iter().any(|call| call.name == *name) {
            return Err(format!("`{name}` calls itself"));
        }
        if results.len() != function.returns.len() || arguments.len() != function.parameters.len() {
            return Err(format!(
                "`{name}` takes {} and gives {}",
                function.parameters.len(),
                function.returns.len()
            ));
        }
        let mut places = Vec::new();
        let given = results.iter().chain(arguments);
        for (operand, variable) in given.zip(function.returns.iter().chain(&function.parameters)) {
            let Operand::Name(given) = operand else {
                return Err("arguments of calls are `.param` variables here".to_owned());
            };
            match self.meaning(given) {
                Some(place @ Name::Local(_)) => places.push((variable.name.clone(), place)),
                _ => return Err(format!("`{given}` is no `.param` variable")),
            }
        }
        self.inline(function, places)
    }

    fn inline(&mut self, function: &Function, places: Vec<(String, Name)>) -> Result<(), Problem> {
        let end = self.labels.declare();
        let over = self.guard.map(|guard| (guard, self.labels.declare()));
        if let Some((guard, over)) = over {
            self.guard = Some(crate::instruction::Guard { negated: !guard.negated, ..guard });
            self.push(Op::Branch { target: over });
            self.guard = None;
        }
        let hidden = self.scopes.hide();
        self.scopes.open();
        for (name, place) in places {
            self.scopes.declare(&name, place);
        }
        let line = self.line;
        self.body(&function.body, Some(Call { end, name: function.name.clone() }))
            .map_err(|error| error.in_kernel(&function.name).to_string())?;
        self.line = line;
        self.scopes.restore(hidden);
        self.labels.place(end, self.code.len());
        if let Some((_, over)) = over {
            self.labels.place(over, self.code.len());
        }
        Ok(())
    }
}
