//! PTX text as tokens.

use super::error::ParseError;

/// A piece of PTX text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'s> {
    /// A name, number, directive, or opcode with its modifiers: `%r1`, `0f3F800000`, `.reg`, `ld.global.L2::128B.u32`.
    Word(&'s str),
    /// What stands between quotes.
    Text,
    /// Punctuation.
    Symbol(char),
}

/// A token and the line that it stands in, counted from one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lexeme<'s> {
    pub(crate) token: Token<'s>,
    pub(crate) line: u32,
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.')
}

/// Length of the word that `text` begins with. Two colons belong to it, as in `L1::no_allocate`; one ends a label.
fn word_length(text: &str) -> usize {
    let mut length = 0;
    loop {
        let rest = &text[length..];
        if rest.starts_with("::") {
            length += 2;
        } else if rest.starts_with(is_word) {
            length += 1;
        } else {
            return length;
        }
    }
}

/// The tokens of `source`; comments and spaces are left out.
pub(crate) fn tokens(source: &str) -> Result<Vec<Lexeme<'_>>, ParseError> {
    let mut lexemes = Vec::new();
    let (mut rest, mut line) = (source, 1);
    while let Some(c) = rest.chars().next() {
        let (length, token) = if let Some(comment) = rest.strip_prefix("//") {
            (2 + comment.find('\n').unwrap_or(comment.len()), None)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            let end = comment.find("*/").ok_or_else(|| ParseError::new(line, "comment without end"))?;
            (end + 4, None)
        } else if let Some(text) = rest.strip_prefix('"') {
            let end = text.find('"').ok_or_else(|| ParseError::new(line, "text without end"))?;
            (end + 2, Some(Token::Text))
        } else if c.is_whitespace() {
            (c.len_utf8(), None)
        } else if is_word(c) {
            let length = word_length(rest);
            (length, Some(Token::Word(&rest[..length])))
        } else {
            (c.len_utf8(), Some(Token::Symbol(c)))
        };
        lexemes.extend(token.map(|token| Lexeme { token, line }));
        line += rest[..length].matches('\n').count() as u32;
        rest = &rest[length..];
    }
    Ok(lexemes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_symbols_and_lines() {
        let source = "$L1: // x\n/* y\n */ @!%p ld.L1::hint [%rd+-4], \"a;b\";";
        let found: Vec<_> = tokens(source).expect("tokens").iter().map(|l| (l.token, l.line)).collect();
        let word = |w| Token::Word(w);
        let symbol = Token::Symbol;
        let wanted = [
            (word("$L1"), 1),
            (symbol(':'), 1),
            (symbol('@'), 3),
            (symbol('!'), 3),
            (word("%p"), 3),
            (word("ld.L1::hint"), 3),
            (symbol('['), 3),
            (word("%rd"), 3),
            (symbol('+'), 3),
            (symbol('-'), 3),
            (word("4"), 3),
            (symbol(']'), 3),
            (symbol(','), 3),
            (Token::Text, 3),
            (symbol(';'), 3),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_has_no_end_is_refused() {
        assert!(tokens("/* x").is_err());
        assert!(tokens("\"x").is_err());
    }
}
