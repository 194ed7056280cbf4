//! Drops events about files whose names end as nobody wants to see them.

use whodunit_sdk::{Context, Event, Filter, Verdict, export_filter};

/// The plugin's own table of the TOML.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What ends with one of these is dropped.
    pub endings: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config { endings: vec![".pyc".to_owned()] }
    }
}

/// The filter: what it was told.
pub struct NoBytecode(Config);

impl Filter for NoBytecode {
    type Config = Config;

    fn start(_: &Context, config: Config) -> Result<NoBytecode, String> {
        if config.endings.iter().any(String::is_empty) {
            return Err("an empty text in `config.endings` would drop everything".to_owned());
        }
        Ok(NoBytecode(config))
    }

    fn judge(&mut self, event: &Event<'_>) -> Verdict {
        // Paths are bytes.
        let ends_with = |ending: &String| event.path().ends_with(ending.as_bytes());
        if self.0.endings.iter().any(ends_with) { Verdict::Drop } else { Verdict::Keep }
    }
}

export_filter!(NoBytecode);
