//! Colours for TOML.

use serde::Serialize;
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

/// A piece of a text, and what it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Piece {
    /// `table`, `key`, `string`, `value`, `comment`, or nothing.
    pub class: &'static str,
    pub text: String,
}

/// The pieces of a TOML text, or of one that is meant to be: together they are the text.
pub fn pieces(text: &str) -> Vec<Piece> {
    let tokens: Vec<(TokenKind, &str)> = Source::new(text)
        .lex()
        .filter_map(|token| Some((token.kind(), text.get(token.span().start()..token.span().end())?)))
        .collect();
    let mut pieces: Vec<Piece> = Vec::new();
    let (mut line_start, mut in_header, mut in_value, mut depth) = (true, false, false, 0usize);
    for (at, (kind, part)) in tokens.iter().enumerate() {
        // A key of an inline table stands inside a value.
        let names_something = || {
            let mut next = tokens.iter().skip(at + 1).map(|(kind, _)| kind);
            next.find(|kind| !matches!(kind, TokenKind::Whitespace)) == Some(&TokenKind::Equals)
        };
        let class = match kind {
            TokenKind::Comment => "comment",
            TokenKind::LeftSquareBracket if line_start && depth == 0 => {
                in_header = true;
                "table"
            }
            _ if in_header && *kind != TokenKind::Newline => "table",
            TokenKind::Equals => {
                in_value = true;
                ""
            }
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => {
                depth += 1;
                ""
            }
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                depth = depth.saturating_sub(1);
                ""
            }
            TokenKind::LiteralString
            | TokenKind::BasicString
            | TokenKind::MlLiteralString
            | TokenKind::MlBasicString => {
                if in_value && !names_something() {
                    "string"
                } else {
                    "key"
                }
            }
            TokenKind::Atom if in_value && !names_something() => "value",
            TokenKind::Atom => "key",
            TokenKind::Dot if in_value => "value",
            _ => "",
        };
        if *kind == TokenKind::Newline {
            (line_start, in_header) = (true, false);
            in_value &= depth > 0;
        } else if *kind != TokenKind::Whitespace {
            line_start = false;
        }
        match pieces.last_mut() {
            Some(last) if last.class == class => last.text += part,
            _ => pieces.push(Piece { class, text: (*part).to_owned() }),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn a_recipe_in_colours() {
        let text = "# why\n[stages.a]  # here\nkind = \"fuse\"\nparents = [\"a\", 'b']\nx.y = { z = 1.5, w = true }\n[[t]]\n";
        let pieces = pieces(text);
        assert_eq!(pieces.iter().map(|piece| piece.text.as_str()).collect::<String>(), text);
        let of = |class: &str| -> Vec<&str> {
            pieces.iter().filter(|piece| piece.class == class).map(|piece| piece.text.as_str()).collect()
        };
        assert_eq!(of("comment"), ["# why", "# here"]);
        assert_eq!(of("string"), ["\"fuse\"", "\"a\"", "'b'"]);
        assert_eq!(of("value"), ["1.5", "true"]);
        assert_eq!(of("key"), ["kind", "parents", "x", "y", "z", "w"]);
    }

    #[test]
    fn what_is_no_toml_stays_as_it_is() {
        for text in ["", "\u{0}", "a = \"", "[[[", "}}}\n=]", "</pre><script>", "größe = 'ß"] {
            assert_eq!(pieces(text).iter().map(|piece| piece.text.as_str()).collect::<String>(), text);
        }
    }
}
