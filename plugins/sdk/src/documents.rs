//! Documents: what a plugin makes. The plugin names an output; the daemon's TOML says where it goes.

use std::fmt;

use serde::Serialize;

pub use crate::bindings::whodunit::plugin::documents::Refusal;

use crate::imports;

/// Hands over a whole document, which replaces the one before it.
pub fn emit(output: &str, body: &[u8]) -> Result<(), Refusal> {
    imports::emit(output, body)
}

/// Hands over a value as a JSON document.
pub fn emit_json<T: Serialize + ?Sized>(output: &str, value: &T) -> Result<(), Refusal> {
    let body = serde_json::to_vec(value)
        .map_err(|error| Refusal::Other(format!("it is not possible as JSON: {error}")))?;
    emit(output, &body)
}

/// The document that the output holds now, of this run of the daemon or of one before it.
pub fn previous(output: &str) -> Option<Vec<u8>> {
    imports::previous(output)
}

/// A sentence, for the error of `on_tick`.
impl From<Refusal> for String {
    fn from(refusal: Refusal) -> String {
        Sentence(&refusal).to_string()
    }
}

struct Sentence<'a>(&'a Refusal);

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Refusal::UnknownOutput(known) => {
                write!(f, "the document was not taken: its output is not in the TOML ({known})")
            }
            Refusal::TooLarge(limit) => {
                write!(f, "the document was not taken: it is larger than {limit} bytes")
            }
            Refusal::Other(why) => write!(f, "the document was not taken: {why}"),
        }
    }
}
