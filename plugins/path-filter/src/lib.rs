//! A filter by paths and containers.
//!
//! Takes events before the daemon's dedup; gives each the verdict of the first rule that is about it, or
//! the default. A rule is about an event when its path and its container match. The path is the one that
//! the kernel resolved, or the requested one where it did not resolve any. See `docs/path-filter.md`.

mod rule;

use std::collections::HashMap;

use serde::Deserialize;
use whodunit_sdk::{Context, Event, Filter, Verdict, directory};

use rule::{Rule, RuleTable};

/// The plugin's table of the TOML.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    default: Otherwise,
    rules: Vec<RuleTable>,
}

/// What becomes of an event that no rule is about.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Otherwise {
    #[default]
    Keep,
    Drop,
}

/// The state of the plugin.
pub struct PathFilter {
    default: Verdict,
    rules: Vec<Rule>,
    /// For each container of the running batch, which rules are about its events: indices, in order.
    applicable: HashMap<u32, Vec<usize>>,
}

impl PathFilter {
    /// The rules for a container. One that is not known has no name: only rules for every container are
    /// about it.
    fn rules_for(&mut self, container: u32) -> impl Iterator<Item = &Rule> {
        let PathFilter { rules, applicable, .. } = self;
        let indices = applicable.entry(container).or_insert_with(|| {
            let name = directory::container(container).map(|known| known.name);
            let about = |rule: &Rule| rule.is_about_container(name.as_deref());
            rules
                .iter()
                .enumerate()
                .filter(|(_, rule)| about(rule))
                .map(|(index, _)| index)
                .collect()
        });
        indices.iter().map(|index| &rules[*index])
    }
}

impl Filter for PathFilter {
    type Config = Config;

    fn start(_: &Context, config: Config) -> Result<PathFilter, String> {
        if config.rules.is_empty() {
            return Err("it has no rules: add `[[plugin.config.rules]]` tables, such as \
                        `prefix = \"/proc\"` with `action = \"drop\"`"
                .to_owned());
        }
        let numbered = config.rules.into_iter().enumerate();
        let rules = numbered.map(|(index, table)| {
            Rule::new(table)
                .map_err(|error| format!("rule {} of `config.rules`: {error}", index + 1))
        });
        Ok(PathFilter {
            default: match config.default {
                Otherwise::Keep => Verdict::Keep,
                Otherwise::Drop => Verdict::Drop,
            },
            rules: rules.collect::<Result<_, _>>()?,
            applicable: HashMap::new(),
        })
    }

    fn on_batch(&mut self) {
        // A container that had only an id may have a name by now.
        self.applicable.clear();
    }

    fn judge(&mut self, event: &Event<'_>) -> Verdict {
        let path = match event.path() {
            b"" => event.requested(),
            resolved => resolved,
        };
        let decides = self.rules_for(event.container()).find(|rule| rule.is_about_path(path));
        match decides.map(Rule::verdict) {
            Some(verdict) => verdict,
            None => self.default,
        }
    }
}

whodunit_sdk::export_filter!(PathFilter);
