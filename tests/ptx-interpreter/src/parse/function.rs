//! Kernels, functions and their statements.

use super::Parser;
use super::error::ParseError;
use super::lexer::Token;
use super::syntax::{Function, Operand, Source, Statement, Variable};
use crate::types::{Space, Type};

impl Parser<'_, '_> {
    /// A kernel or function, after `.entry` or `.func`; none for a declaration without body.
    pub(super) fn function(&mut self, is_kernel: bool) -> Result<Option<Function>, ParseError> {
        let returns = if self.take('(') { self.list(')', Self::parameter)? } else { Vec::new() };
        let name = self.word()?.to_owned();
        let parameters = if self.take('(') { self.list(')', Self::parameter)? } else { Vec::new() };
        let mut function =
            Function { name, is_kernel, returns, parameters, most_threads: None, body: Vec::new() };
        loop {
            if self.take(';') {
                return Ok(None);
            }
            if self.take('{') {
                let body = self.body().map_err(|error| error.in_kernel(&function.name))?;
                function.body = body;
                return Ok(Some(function));
            }
            self.function_directive(&mut function)?;
        }
    }

    /// A parameter, in the list of them.
    fn parameter(&mut self) -> Result<Variable, ParseError> {
        if !self.take_word(".param") {
            return Err(self.error("expected `.param`"));
        }
        let (align, element) = self.variable_type()?;
        self.variable_name(Space::Param, align, element)
    }

    /// What stands between a function's parameters and its body.
    fn function_directive(&mut self, function: &mut Function) -> Result<(), ParseError> {
        match self.word()? {
            ".maxntid" | ".reqntid" => {
                let mut threads = 1;
                loop {
                    let count: u32 =
                        self.word()?.parse().map_err(|_| self.error("expected a number of threads"))?;
                    threads *= count;
                    if !self.take(',') {
                        break;
                    }
                }
                function.most_threads = Some(threads);
            }
            // What the compiler of the machine's code may do with registers and stack.
            ".minnctapersm" | ".maxnctapersm" | ".maxnreg" => {
                self.word()?;
            }
            ".noreturn" => {}
            ".pragma" => self.skip_past(';')?,
            word => return Err(self.error(format!("`{word}` is not known here"))),
        }
        Ok(())
    }

    /// Statements up to the brace that ends the body.
    fn body(&mut self) -> Result<Vec<Statement>, ParseError> {
        let mut body = Vec::new();
        let mut depth = 0;
        loop {
            if self.take('{') {
                depth += 1;
                body.push(Statement::Open);
            } else if self.take('}') {
                if depth == 0 {
                    return Ok(body);
                }
                depth -= 1;
                body.push(Statement::Close);
            } else if !self.take(';') {
                self.statement(&mut body)?;
            }
        }
    }

    fn statement(&mut self, body: &mut Vec<Statement>) -> Result<(), ParseError> {
        if let (Some(Token::Word(name)), Some(Token::Symbol(':'))) = (self.peek(), self.peek_at(1)) {
            self.at += 2;
            body.push(if self.take_word(".branchtargets") {
                let labels = self.list(';', |parser| Ok(parser.word()?.to_owned()))?;
                Statement::BranchTargets { name: name.to_owned(), labels }
            } else {
                Statement::Label(name.to_owned())
            });
            return Ok(());
        }
        match self.peek() {
            Some(Token::Word(directive)) if directive.starts_with('.') => {
                self.at += 1;
                self.body_directive(directive, body)
            }
            _ => {
                body.push(Statement::Instruction(self.instruction()?));
                Ok(())
            }
        }
    }

    fn body_directive(&mut self, directive: &str, body: &mut Vec<Statement>) -> Result<(), ParseError> {
        match directive {
            ".loc" | ".file" => self.skip_line(),
            ".pragma" => self.skip_past(';')?,
            ".reg" => self.registers(body)?,
            ".shared" | ".local" | ".param" => {
                body.extend(self.variables(directive)?.into_iter().map(Statement::Variable));
            }
            _ => {
                self.at -= 1;
                return Err(self.error(format!("`{directive}` is not known here")));
            }
        }
        Ok(())
    }

    /// Registers of one `.reg`, up to the semicolon.
    fn registers(&mut self, body: &mut Vec<Statement>) -> Result<(), ParseError> {
        let word = self.word()?;
        let element = Type::parse(&word[1..]).ok_or_else(|| self.error(format!("`{word}` is not a type")))?;
        let declared = self.list(';', |parser| {
            let name = parser.word()?.to_owned();
            let mut count = None;
            if parser.take('<') {
                let number = parser.word()?;
                count = Some(number.parse().map_err(|_| parser.error("expected a number of registers"))?);
                parser.expect('>')?;
            }
            Ok(Statement::Register { element, name, count })
        })?;
        body.extend(declared);
        Ok(())
    }

    /// An instruction with its guard, up to the semicolon.
    fn instruction(&mut self) -> Result<Source, ParseError> {
        let line = self.line();
        let mut guard = None;
        if self.take('@') {
            let negated = self.take('!');
            guard = Some((self.word()?.to_owned(), negated));
        }
        let opcode = self.word()?.to_owned();
        let operands = self.list(';', Self::operand)?;
        Ok(Source { line, guard, opcode, operands })
    }

    pub(super) fn operand(&mut self) -> Result<Operand, ParseError> {
        if self.take('[') {
            return self.address();
        }
        if self.take('{') {
            return Ok(Operand::Vector(self.list('}', Self::operand)?));
        }
        if self.take('(') {
            return Ok(Operand::List(self.list(')', Self::operand)?));
        }
        if self.take('!') {
            return Ok(Operand::Not(self.word()?.to_owned()));
        }
        let negative = self.take('-');
        let word = self.word()?;
        if let Some(number) = number(word) {
            return match number {
                Operand::Integer(value) if negative => Ok(Operand::Integer(-value)),
                _ if negative => Err(self.error("expected an integer")),
                number => Ok(number),
            };
        }
        if negative || word.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.error(format!("`{word}` is not a number")));
        }
        if self.take('|') {
            return Ok(Operand::Pair(word.to_owned(), self.word()?.to_owned()));
        }
        Ok(Operand::Name(word.to_owned()))
    }

    /// The rest of an address, after its bracket.
    fn address(&mut self) -> Result<Operand, ParseError> {
        let base = Box::new(self.operand()?);
        let mut offset = 0;
        if self.take('+') {
            let Operand::Integer(value) = self.operand()? else {
                return Err(self.error("expected a number of bytes"));
            };
            offset = value as i64;
        }
        self.expect(']')?;
        Ok(Operand::Address { base, offset })
    }
}

/// The number that `word` is, if it is one.
fn number(word: &str) -> Option<Operand> {
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    if let Some(digits) = word.strip_prefix("0f").or(word.strip_prefix("0F")) {
        return hex(digits).filter(|_| digits.len() == 8).map(|bits| Operand::Single(bits as u32));
    }
    if let Some(digits) = word.strip_prefix("0d").or(word.strip_prefix("0D")) {
        return hex(digits).filter(|_| digits.len() == 16).map(Operand::Double);
    }
    let digits = word.strip_suffix('U').unwrap_or(word);
    let value = if let Some(digits) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        hex(digits)
    } else if let Some(digits) = digits.strip_prefix("0b").or(digits.strip_prefix("0B")) {
        u64::from_str_radix(digits, 2).ok()
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(digits, 8).ok()
    } else {
        digits.parse().ok()
    };
    value.map(|value| Operand::Integer(i128::from(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number("0f3F800000"), Some(Operand::Single(0x3f80_0000)));
        assert_eq!(number("0d3FF0000000000000"), Some(Operand::Double(0x3ff0_0000_0000_0000)));
        assert_eq!(number("0x1fU"), Some(Operand::Integer(31)));
        assert_eq!(number("017"), Some(Operand::Integer(15)));
        assert_eq!(number("0b101"), Some(Operand::Integer(5)));
        assert_eq!(number("18446744073709551615"), Some(Operand::Integer(u64::MAX.into())));
        assert_eq!(number("0f12"), None);
        assert_eq!(number("%r1"), None);
    }
}
