//! From PTX text to its syntax.

mod error;
mod function;
mod lexer;
pub(crate) mod syntax;

pub use error::ParseError;
pub(crate) use error::line_of;

use crate::types::{Space, Type};
use lexer::{Lexeme, Token};
use syntax::{File, Operand, Variable};

/// The syntax of `source`.
pub(crate) fn parse(source: &str) -> Result<File, ParseError> {
    let lexemes = lexer::tokens(source)?;
    let mut parser = Parser { lexemes: &lexemes, at: 0 };
    let mut file = File::default();
    while parser.peek().is_some() {
        parser.module_item(&mut file)?;
    }
    Ok(file)
}

/// The tokens and how far they are read.
struct Parser<'t, 's> {
    lexemes: &'t [Lexeme<'s>],
    at: usize,
}

/// Reading tokens.
impl<'s> Parser<'_, 's> {
    fn peek(&self) -> Option<Token<'s>> {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> Option<Token<'s>> {
        self.lexemes.get(self.at + ahead).map(|lexeme| lexeme.token)
    }

    /// The line of the next token, or of the last one.
    fn line(&self) -> u32 {
        self.lexemes.get(self.at).or(self.lexemes.last()).map_or(0, |lexeme| lexeme.line)
    }

    fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError::new(self.line(), message)
    }

    fn next(&mut self) -> Result<Token<'s>, ParseError> {
        let token = self.peek().ok_or_else(|| self.error("the text ends too early"))?;
        self.at += 1;
        Ok(token)
    }

    /// Passes `symbol` if it comes next.
    fn take(&mut self, symbol: char) -> bool {
        let found = self.peek() == Some(Token::Symbol(symbol));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: char) -> Result<(), ParseError> {
        if self.take(symbol) { Ok(()) } else { Err(self.error(format!("expected `{symbol}`"))) }
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(Token::Word(word));
        self.at += usize::from(found);
        found
    }

    fn word(&mut self) -> Result<&'s str, ParseError> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            Some(_) => Err(self.error("expected a name")),
            None => Err(self.error("the text ends too early")),
        }
    }

    /// Passes the rest of the line that the token before stands in.
    fn skip_line(&mut self) {
        let line = self.lexemes[self.at - 1].line;
        while self.lexemes.get(self.at).is_some_and(|lexeme| lexeme.line == line) {
            self.at += 1;
        }
    }

    /// Passes everything up to `symbol`, and that.
    fn skip_past(&mut self, symbol: char) -> Result<(), ParseError> {
        while self.next()? != Token::Symbol(symbol) {}
        Ok(())
    }

    /// Items with commas between them, up to `end`, which is passed too.
    fn list<T>(
        &mut self,
        end: char,
        mut item: impl FnMut(&mut Self) -> Result<T, ParseError>,
    ) -> Result<Vec<T>, ParseError> {
        let mut items = Vec::new();
        while !self.take(end) {
            if !items.is_empty() {
                self.expect(',')?;
            }
            items.push(item(self)?);
        }
        Ok(items)
    }
}

/// What stands outside of functions.
impl Parser<'_, '_> {
    fn module_item(&mut self, file: &mut File) -> Result<(), ParseError> {
        let word = self.word()?;
        match word {
            ".target" => {
                file.target = self.word()?.to_owned();
                self.skip_line();
            }
            ".version" | ".address_size" | ".file" | ".loc" => self.skip_line(),
            ".visible" | ".extern" | ".weak" | ".common" => {}
            ".pragma" => self.skip_past(';')?,
            // Debug information: nothing in it changes what runs.
            ".section" => {
                self.skip_past('{')?;
                self.skip_past('}')?;
            }
            ".entry" | ".func" => {
                if let Some(function) = self.function(word == ".entry")? {
                    file.functions.push(function);
                }
            }
            ".global" | ".const" | ".shared" => file.variables.extend(self.variables(word)?),
            _ => {
                self.at -= 1;
                return Err(self.error(format!("`{word}` is not known")));
            }
        }
        Ok(())
    }

    /// Variables of one declaration, after the `space` that it begins with, and the semicolon.
    fn variables(&mut self, space: &str) -> Result<Vec<Variable>, ParseError> {
        let space = Space::parse(&space[1..]).ok_or_else(|| self.error("expected a state space"))?;
        let mut variables = Vec::new();
        let (align, element) = self.variable_type()?;
        loop {
            let mut variable = self.variable_name(space, align, element)?;
            if self.take('=') {
                self.initial_values(&mut variable.initial, element)?;
                if variable.initial.len() > variable.elements.unwrap_or(0) {
                    return Err(self.error("more values than elements"));
                }
            }
            variables.push(variable);
            if !self.take(',') {
                self.expect(';')?;
                return Ok(variables);
            }
        }
    }

    /// Alignment and type of a variable. A pointer's hints (`.ptr .global .align 8`) say nothing that is checked.
    fn variable_type(&mut self) -> Result<(usize, Type), ParseError> {
        let mut align = None;
        let mut element = None;
        while let Some(Token::Word(word)) =
            self.peek().filter(|t| matches!(t, Token::Word(w) if w.starts_with('.')))
        {
            self.at += 1;
            match word {
                ".align" => {
                    let bytes = self.word()?;
                    align.get_or_insert(bytes.parse().map_err(|_| self.error("expected a number of bytes"))?);
                }
                ".ptr" => {
                    while self.peek() != Some(Token::Word(".align")) {
                        self.at += 1;
                    }
                    self.at += 2;
                }
                _ => {
                    let known = Type::parse(&word[1..]).filter(|t| *t != Type::Pred);
                    element = Some(known.ok_or_else(|| self.error(format!("`{word}` is not a type")))?);
                }
            }
        }
        let element = element.ok_or_else(|| self.error("expected a type"))?;
        Ok((align.unwrap_or(element.bytes()), element))
    }

    fn variable_name(&mut self, space: Space, align: usize, element: Type) -> Result<Variable, ParseError> {
        let name = self.word()?.to_owned();
        let mut elements = Some(1);
        while self.take('[') {
            if self.take(']') {
                elements = None;
            } else {
                let dimension = self.word()?;
                let count: usize =
                    dimension.parse().map_err(|_| self.error("expected a number of elements"))?;
                elements = elements.map(|e| e * count);
                self.expect(']')?;
            }
        }
        Ok(Variable { name, space, element, align, elements, initial: Vec::new() })
    }

    /// Values of an initialiser, nested braces flattened: only full rows are written by the compiler.
    fn initial_values(&mut self, values: &mut Vec<u64>, element: Type) -> Result<(), ParseError> {
        if self.take('{') {
            self.list('}', |parser| parser.initial_values(values, element))?;
            return Ok(());
        }
        let value = match self.operand()? {
            Operand::Integer(value) if !element.is_float() => value as u64,
            Operand::Single(bits) if element.bytes() == 4 => u64::from(bits),
            Operand::Double(bits) if element.bytes() == 8 => bits,
            _ => return Err(self.error("only numbers of the variable's type are known as initial values")),
        };
        values.push(value);
        Ok(())
    }
}
