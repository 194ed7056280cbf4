//! Counts the files that were opened below each top folder.

use std::collections::BTreeMap;

use whodunit_sdk::{
    Batch, Context, Event, Kind, Outcome, Reporter, Tick, documents, export_reporter,
};

/// The plugin's own table of the TOML.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folders with fewer files are left out.
    pub at_least: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config { at_least: 1 }
    }
}

/// How many files were opened, by top folder.
pub struct TopFolders(Config, BTreeMap<String, u64>);

impl Reporter for TopFolders {
    type Config = Config;

    fn start(_: &Context, config: Config) -> Result<TopFolders, String> {
        Ok(TopFolders(config, BTreeMap::new()))
    }

    fn on_batch(&mut self, batch: &Batch) {
        let opened =
            |event: &Event<'_>| event.kind() == Kind::Open && event.outcome() == Outcome::Used;
        for event in batch.events().filter(opened) {
            let folder = event.path_text().split('/').nth(1).unwrap_or_default().to_owned();
            *self.1.entry(format!("/{folder}")).or_default() += 1;
        }
    }

    fn on_tick(&mut self, _: &Tick) -> Result<(), String> {
        let shown = self.1.iter().filter(|(_, files)| **files >= self.0.at_least);
        Ok(documents::emit_json("report", &shown.collect::<BTreeMap<_, _>>())?)
    }
}

export_reporter!(TopFolders);
