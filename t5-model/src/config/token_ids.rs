//! Ids of tokens in JSON: none, one or several.

use serde::{Deserialize, Serialize};

/// The tokens that end a text: `null`, a number or a list in JSON, as transformers writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Form", into = "Form")]
pub struct TokenIds(pub Vec<i32>);

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected the id of a token, a list of ids, or null")]
enum Form {
    None,
    One(i32),
    Several(Vec<i32>),
}

impl From<Form> for TokenIds {
    fn from(form: Form) -> Self {
        match form {
            Form::None => TokenIds(Vec::new()),
            Form::One(id) => TokenIds(vec![id]),
            Form::Several(ids) => TokenIds(ids),
        }
    }
}

impl From<TokenIds> for Form {
    fn from(TokenIds(ids): TokenIds) -> Self {
        match ids.as_slice() {
            [] => Form::None,
            [id] => Form::One(*id),
            _ => Form::Several(ids),
        }
    }
}

impl From<i32> for TokenIds {
    fn from(id: i32) -> Self {
        TokenIds(vec![id])
    }
}
