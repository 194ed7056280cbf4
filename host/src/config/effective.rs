//! The configuration in force, written down: as TOML that can be loaded again, or as JSON.
//!
//! Takes a checked `Config` and gives text with the names and units of the TOML. The field names stand
//! beside the fields in `mod.rs`; what is here is how a value is written. Never changes a value.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::{
    Alone, Backup, Config, LogFormat, LogLevel, OnFailure, Output, Overflow, Place, PluginSource,
    Scope, Tier, Wasi, values,
};

/// The prefix of a source that is shipped inside the binary.
pub(super) const BUILTIN_PREFIX: &str = "builtin:";

impl Config {
    /// The configuration as TOML. Loaded again, it gives the same configuration.
    pub fn to_toml(&self) -> String {
        toml::to_string(self)
            .expect("every path, name and number of a checked configuration fits TOML")
    }

    /// The configuration as a JSON object with the names of the TOML.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a checked configuration holds only JSON values")
    }
}

pub(super) fn duration<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&values::duration_text(*value))
}

pub(super) fn size<T: Copy + TryInto<u64>, S: Serializer>(
    value: &T,
    to: S,
) -> Result<S::Ok, S::Error> {
    let bytes = (*value).try_into().unwrap_or(u64::MAX);
    to.serialize_str(&values::size_text(bytes))
}

/// Types that stand as one word in the TOML.
macro_rules! serialize_as_word {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.name())
            }
        }
    )*};
}

serialize_as_word!(Alone, Backup, Scope, Tier, LogLevel, LogFormat, OnFailure, Overflow, Wasi);

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.text())
    }
}

impl Serialize for PluginSource {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            PluginSource::Builtin(name) => to.collect_str(&format_args!("{BUILTIN_PREFIX}{name}")),
            PluginSource::File(path) => path.serialize(to),
            PluginSource::Registry(reference) => to.collect_str(reference),
        }
    }
}

impl Serialize for Output {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let path = |key: &str, path: &PathBuf, to: S| {
            let mut map = to.serialize_map(Some(1))?;
            map.serialize_entry(key, path)?;
            map.end()
        };
        match self {
            Output::File(file) => path("file", file, to),
            Output::Lines(file) => path("lines", file, to),
            Output::Stdout => {
                let mut map = to.serialize_map(Some(1))?;
                map.serialize_entry("stdout", &true)?;
                map.end()
            }
            Output::Http(http) => http.serialize(to),
        }
    }
}
