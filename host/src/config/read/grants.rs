//! The capabilities that a plugin is given, one by one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::not_toml;
use super::section::{Entry, Reader, Section, did_you_mean, path_text, shown_text, without_dots};
use crate::config::keys;
use crate::config::values::{Mismatch, quoted};
use crate::config::{Grants, Wasi};

/// Reads grants that stand by themselves: an inline table, or the lines of a table.
pub(in crate::config) fn grants(text: &str) -> Result<Grants, String> {
    // What is read is a table of the one key.
    let whole = match text.trim_start().starts_with('{') {
        true => format!("grants = {text}"),
        false => format!("[grants]\n{text}"),
    };
    let (document, errors) = DeTable::parse_recoverable(&whole);
    let mut reader = Reader { folder: Path::new("/"), problems: Vec::new() };
    if errors.is_empty() {
        let table = Some(document.get_ref());
        let of = std::slice::from_ref(keys::key("plugin.grants"));
        let section = reader.open(String::new(), of, table, 0..0);
        let grants = reader.table(&section, "grants");
        let grants = reader.grants(&grants);
        if reader.problems.is_empty() {
            return Ok(grants);
        }
    } else {
        reader.problems = errors.iter().map(|error| not_toml(&whole, error)).collect();
    }
    let problems: Vec<String> = reader.problems.iter().map(ToString::to_string).collect();
    Err(problems.join("; "))
}

impl Reader<'_> {
    /// The grants of a plugin, which mean something only with `wasi = "p2"`.
    pub(super) fn grants_of(&mut self, plugin: &Section<'_>, wasi: Wasi) -> Grants {
        let grants = self.table(plugin, "grants");
        if grants.table.is_some() && wasi != Wasi::P2 {
            self.problem(
                grants.span.clone(),
                format!("`{}` is for a plugin with `wasi = \"p2\"`", grants.path),
                None,
                Some(format!("write that beside it: `wasi` is \"{}\"", wasi.name())),
            );
        }
        self.grants(&grants)
    }

    fn grants(&mut self, section: &Section<'_>) -> Grants {
        Grants {
            clocks: self.boolean(section, "clocks").unwrap_or_default(),
            random: self.boolean(section, "random").unwrap_or_default(),
            output: self.boolean(section, "output").unwrap_or_default(),
            environment: self.list(section, "environment", variable).unwrap_or_default(),
            folders: self.folders(section),
        }
    }

    fn folders(&mut self, section: &Section<'_>) -> BTreeMap<String, PathBuf> {
        let mut folders = BTreeMap::new();
        let Some(Entry { path, key, value, span }) = section.entry("folders") else {
            return folders;
        };
        let DeValue::Table(table) = value else {
            self.mismatch(&path, span, value, Mismatch::expected(key.shape.expected()));
            return folders;
        };
        for (place, value) in table {
            let place_text = place.get_ref().as_ref();
            if let Err(mismatch) = place_in_a_plugin(place_text) {
                self.problem(
                    place.span(),
                    format!("`{path}` has {}", shown_text(place_text)),
                    Some(mismatch.expected),
                    mismatch.meant.map(did_you_mean),
                );
            }
            let folder = value
                .get_ref()
                .as_str()
                .filter(|text| path_text(text).is_ok_and(|text| Path::new(text).is_absolute()));
            match folder {
                Some(folder) => {
                    folders.insert(place_text.to_owned(), PathBuf::from(folder));
                }
                None => {
                    let path = format!("{path}.{}", place_text.escape_debug());
                    let mismatch = Mismatch::expected("the absolute path of a folder");
                    self.mismatch(&path, value.span(), value.get_ref(), mismatch);
                }
            }
        }
        folders
    }
}

fn variable(text: &str) -> Result<(), Mismatch> {
    if text.is_empty() || text.contains(['=', '\0']) {
        return Err(Mismatch::expected("the name of an environment variable"));
    }
    Ok(())
}

/// Where a plugin finds a folder: written in one way only, so that no two are the same place.
fn place_in_a_plugin(text: &str) -> Result<(), Mismatch> {
    let clean = without_dots(&Path::new("/").join(text));
    let clean = clean.to_str().filter(|clean| !clean.contains('\0')).unwrap_or("/");
    if clean == text {
        return Ok(());
    }
    Err(Mismatch {
        expected: String::from("an absolute path, at which the plugin finds a folder"),
        meant: Some(quoted(clean)),
    })
}
