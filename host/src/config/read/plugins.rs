//! The `[[plugin]]` tables: sources that exist, outputs that go somewhere, settings as JSON.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde_json::Value as Json;
use toml::de::{DeInteger, DeValue};

use super::section::{Entry, Reader, Section, did_you_mean, path_text, shown_text, without_dots};
use super::{Places, pattern};
use crate::config::effective::BUILTIN_PREFIX;
use crate::config::keys::{Key, NAME_RULE};
use crate::config::values::{Mismatch, nearest, quoted};
use crate::config::{
    BUILTINS, Builtin, Limits, OnFailure, Output, Overflow, Plugin, PluginSource, Wasi,
};
use crate::kinds::Kinds;
use crate::registry::{EXPECTED, PREFIX, Reference};

impl Reader<'_> {
    pub(super) fn plugins(
        &mut self,
        root: &Section<'_>,
        places: &mut Places,
    ) -> Option<Vec<Plugin>> {
        let Entry { path, key, value, span } = root.entry("plugin")?;
        let Some(keys) = key.shape.keys() else { panic!("`plugin` is a list of tables") };
        let tables = match value {
            DeValue::Array(tables) if tables.is_empty() => {
                self.problem(
                    span,
                    String::from("the list `plugin` is empty"),
                    Some(String::from("at least one plugin")),
                    Some(String::from("leave `plugin` out to get the JSON report alone")),
                );
                return None;
            }
            DeValue::Array(tables) => tables,
            DeValue::Table(_) => {
                self.problem(
                    span,
                    String::from("`plugin` is one table"),
                    Some(key.shape.expected()),
                    Some(String::from("write `[[plugin]]` with two brackets")),
                );
                return None;
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {
                self.mismatch(&path, span, value, Mismatch::expected(key.shape.expected()));
                return None;
            }
        };
        let mut plugins: Vec<Plugin> = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            let DeValue::Table(inner) = table.get_ref() else {
                let mismatch = Mismatch::expected("a table");
                self.mismatch(&path, table.span(), table.get_ref(), mismatch);
                continue;
            };
            let section = self.open(path.clone(), keys, Some(inner), table.span());
            let plugin = self.plugin(&section, index, places);
            if let Some(span) = section.span_of("name")
                && plugins.iter().any(|other| other.name == plugin.name)
            {
                self.problem(
                    span,
                    format!("`plugin.name` is {} a second time", shown_text(&plugin.name)),
                    Some(String::from("a name of its own for each plugin")),
                    None,
                );
            }
            plugins.push(plugin);
        }
        Some(plugins)
    }

    fn plugin(&mut self, section: &Section<'_>, index: usize, places: &mut Places) -> Plugin {
        let name = self.take(section, "name", |_, text| name(text).map(str::to_owned));
        let folder = self.folder;
        let source = self.take(section, "source", |key, text| source(key, text, folder));
        let limits = self.table(section, "limits");
        let limits = self.limits(&limits);
        let outputs = self.outputs(section, index, places);
        if let Some(PluginSource::Builtin(name)) = &source {
            let builtin = BUILTINS.iter().find(|builtin| builtin.name == name.as_str());
            let builtin = builtin.expect("`source` gives only builtins that exist");
            self.outputs_of_builtin(section, builtin, index, places);
        }
        let moving_tag = self.boolean_true(section, "moving_tag").is_some();
        if let Some(PluginSource::Registry(reference)) = &source
            && reference.digest.is_none()
            && !moving_tag
            && let Some(span) = section.span_of("source")
        {
            self.problem(
                span,
                String::from("`plugin.source` has no digest, and what its tag leads to may change"),
                Some(String::from("`@sha256:...` behind it, as `whodunit plugin inspect` prints it, or `moving_tag = true`")),
                None,
            );
        }
        let wasi = self.word(section, "wasi", &Wasi::ALL, Wasi::name).unwrap_or(Wasi::None);
        let grants = self.grants_of(section, wasi);
        let source = source.unwrap_or(PluginSource::Builtin(String::new()));
        let default = Plugin::new(name.unwrap_or_default(), source);
        Plugin {
            moving_tag,
            sha256: self.take(section, "sha256", sha256),
            events: self.list(section, "events", event_kind).unwrap_or_default(),
            containers: self.list(section, "containers", pattern).unwrap_or_default(),
            on_failure: self
                .word(section, "on_failure", &OnFailure::ALL, OnFailure::name)
                .unwrap_or(default.on_failure),
            overflow: self
                .word(section, "overflow", &Overflow::ALL, Overflow::name)
                .unwrap_or(default.overflow),
            wasi,
            grants,
            limits,
            outputs,
            config: self.free(section, "config"),
            ..default
        }
    }

    fn limits(&mut self, section: &Section<'_>) -> Limits {
        let default = Limits::default();
        Limits {
            call: self.duration(section, "call").unwrap_or(default.call),
            memory_bytes: self.size(section, "memory").unwrap_or(default.memory_bytes),
            queue_events: self.count(section, "queue").unwrap_or(default.queue_events),
            output_bytes: self.size(section, "output").unwrap_or(default.output_bytes),
            log_per_second: self.count(section, "log_per_second").unwrap_or(default.log_per_second),
            instances: self.count(section, "instances").unwrap_or(default.instances),
        }
    }

    fn outputs(
        &mut self,
        section: &Section<'_>,
        index: usize,
        places: &mut Places,
    ) -> BTreeMap<String, Output> {
        let mut outputs = BTreeMap::new();
        let Some(Entry { path, key, value, span }) = section.entry("outputs") else {
            return outputs;
        };
        let DeValue::Table(table) = value else {
            self.mismatch(&path, span, value, Mismatch::expected(key.shape.expected()));
            return outputs;
        };
        let Some(keys) = key.shape.keys() else { panic!("`{path}` holds outputs") };
        for (output_name, value) in table {
            let spelt = output_name.get_ref();
            if let Err(mismatch) = name(spelt) {
                self.problem(
                    output_name.span(),
                    format!("{} is no name of an output", shown_text(spelt)),
                    Some(mismatch.expected),
                    mismatch.meant.map(did_you_mean),
                );
            }
            places.outputs.insert((index, spelt.to_string()), value.span());
            let path = format!("{path}.{}", spelt.escape_debug());
            let inner = match value.get_ref() {
                DeValue::Table(inner) => inner,
                other => {
                    let meant = match other {
                        DeValue::String(file) => Some(format!("{{ file = {} }}", quoted(file))),
                        _ => None,
                    };
                    let expected = String::from("a table with `file`, `lines`, `http` or `stdout`");
                    self.mismatch(&path, value.span(), other, Mismatch { expected, meant });
                    continue;
                }
            };
            let known = self.problems.len();
            let section = self.open(path.clone(), keys, Some(inner), value.span());
            let file = self.take(&section, "file", |_, text| output_file(text));
            let lines = self.take(&section, "lines", |_, text| output_file(text));
            let stdout = self.boolean_true(&section, "stdout");
            let http = self.http_output(&section);
            let mut found: Vec<Output> = Vec::new();
            found.extend(file.map(|file| Output::File(self.path_in_folder(&file))));
            found.extend(lines.map(|file| Output::Lines(self.path_in_folder(&file))));
            found.extend(stdout.map(|()| Output::Stdout));
            found.extend(http.map(|http| Output::Http(Box::new(http))));
            let several = found.len() > 1;
            let output = found.pop().filter(|_| !several);
            if several {
                self.problem(
                    value.span(),
                    format!("`{path}` has more than one of `file`, `lines`, `http` and `stdout`"),
                    Some(String::from("one of them")),
                    None,
                );
            } else if output.is_none() && self.problems.len() == known {
                self.problem(
                    value.span(),
                    format!("`{path}` goes nowhere"),
                    Some(String::from("`file = \"FILE\"`, `lines = \"FILE\"`, `http = \"URL\"` or `stdout = true`")),
                    None,
                );
            }
            outputs.extend(output.map(|output| (spelt.to_string(), output)));
        }
        outputs
    }

    /// What a builtin writes is known, so a wrong name need not wait for its first document.
    fn outputs_of_builtin(
        &mut self,
        section: &Section<'_>,
        builtin: &Builtin,
        index: usize,
        places: &Places,
    ) {
        let given: Vec<(&str, Range<usize>)> = places
            .outputs
            .iter()
            .filter(|((plugin, _), _)| *plugin == index)
            .map(|((_, name), span)| (name.as_str(), span.clone()))
            .collect();
        let unknown = given.iter().filter(|(name, _)| !builtin.outputs.contains(name));
        for (spelt, span) in unknown.filter(|(spelt, _)| name(spelt).is_ok()) {
            let known: Vec<String> = builtin.outputs.iter().map(|it| format!("`{it}`")).collect();
            self.problem(
                span.clone(),
                format!("`{}` writes no output `{spelt}`", builtin.name),
                Some(if known.is_empty() { "none".to_owned() } else { known.join(", ") }),
                nearest(spelt, builtin.outputs.iter().copied())
                    .map(|meant| did_you_mean(format!("`{meant}`"))),
            );
        }
        // A table that is there with other names in it has its own problems already.
        let is_table = |value: &DeValue<'_>| matches!(value, DeValue::Table(_));
        let outputs = section.entry("outputs");
        let mut names = given.iter().map(|(name, _)| name);
        if !names.all(|name| builtin.outputs.contains(name))
            || outputs.as_ref().is_some_and(|entry| !is_table(entry.value))
        {
            return;
        }
        let is_given = |output: &str| given.iter().any(|(name, _)| *name == output);
        for missing in builtin.outputs.iter().filter(|output| !is_given(output)) {
            self.problem(
                outputs.as_ref().map_or(section.span.clone(), |entry| entry.span.clone()),
                format!("`{}` writes the output `{missing}`, which goes nowhere", builtin.name),
                Some(format!(
                    "`outputs.{missing} = {{ file = \"FILE\" }}`, `{{ lines = \"FILE\" }}`, `{{ http = \"URL\" }}` or `{{ stdout = true }}`"
                )),
                None,
            );
        }
    }

    /// A table as it is, as JSON.
    fn free(&mut self, section: &Section<'_>, name: &str) -> Json {
        let empty = Json::Object(serde_json::Map::new());
        let Some(Entry { path, key, value, span }) = section.entry(name) else {
            return empty;
        };
        if !matches!(value, DeValue::Table(_)) {
            self.mismatch(&path, span, value, Mismatch::expected(key.shape.expected()));
            return empty;
        }
        self.json(&path, value, span)
    }

    fn json(&mut self, path: &str, value: &DeValue<'_>, span: Range<usize>) -> Json {
        match value {
            DeValue::String(text) => Json::from(text.as_ref()),
            DeValue::Boolean(truth) => Json::from(*truth),
            DeValue::Datetime(moment) => Json::from(moment.to_string()),
            DeValue::Integer(integer) => match signed(integer) {
                Some(number) => Json::from(number),
                None => {
                    let expected = format!("a whole number from {} to {}", i64::MIN, i64::MAX);
                    self.mismatch(path, span, value, Mismatch::expected(expected));
                    Json::Null
                }
            },
            DeValue::Float(float) => {
                let number = float.as_str().parse().ok().and_then(serde_json::Number::from_f64);
                number.map(Json::Number).unwrap_or_else(|| {
                    let expected = "a number that JSON can hold";
                    self.mismatch(path, span, value, Mismatch::expected(expected));
                    Json::Null
                })
            }
            DeValue::Array(array) => {
                let items = array.iter();
                items.map(|item| self.json(path, item.get_ref(), item.span())).collect()
            }
            DeValue::Table(table) => {
                let fields = table.iter().map(|(name, item)| {
                    let path = format!("{path}.{}", name.get_ref().escape_debug());
                    (name.get_ref().to_string(), self.json(&path, item.get_ref(), item.span()))
                });
                Json::Object(fields.collect())
            }
        }
    }
}

fn signed(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn name(text: &str) -> Result<&str, Mismatch> {
    let follows = |text: &str| {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        (1..=63).contains(&text.len()) && text.bytes().all(allowed)
    };
    if follows(text) {
        return Ok(text);
    }
    let rewritten = text.to_lowercase().replace(['_', ' ', '.'], "-");
    Err(Mismatch {
        expected: String::from(NAME_RULE),
        meant: follows(&rewritten).then(|| quoted(&rewritten)),
    })
}

fn sha256(key: &'static Key, text: &str) -> Result<String, Mismatch> {
    let follows = |text: &str| text.len() == 64 && text.bytes().all(|c| c.is_ascii_hexdigit());
    if follows(text) {
        return Ok(text.to_ascii_lowercase());
    }
    let bare = text.strip_prefix("sha256:").filter(|bare| follows(bare));
    Err(Mismatch { expected: key.shape.expected(), meant: bare.map(quoted) })
}

fn event_kind(text: &str) -> Result<(), Mismatch> {
    if Kinds::named(text).is_some() {
        return Ok(());
    }
    Err(Mismatch {
        expected: String::from("an event kind, or one of \"files\", \"processes\", \"containers\""),
        meant: nearest(text, Kinds::words()).map(quoted),
    })
}

fn source(key: &Key, text: &str, folder: &Path) -> Result<PluginSource, Mismatch> {
    let builtins = || BUILTINS.iter().map(|builtin| builtin.name);
    if let Some(name) = text.strip_prefix(BUILTIN_PREFIX) {
        if builtins().any(|builtin| builtin == name) {
            return Ok(PluginSource::Builtin(name.to_owned()));
        }
        let known: Vec<String> =
            builtins().map(|name| quoted(&format!("{BUILTIN_PREFIX}{name}"))).collect();
        let meant = nearest(name, builtins());
        return Err(Mismatch {
            expected: format!("{} or the path of a component file", known.join(", ")),
            meant: meant.map(|name| quoted(&format!("{BUILTIN_PREFIX}{name}"))),
        });
    }
    if text.starts_with(PREFIX) {
        let reference = Reference::read(text).ok_or_else(|| Mismatch::expected(EXPECTED))?;
        return Ok(PluginSource::Registry(reference));
    }
    path_text(text).map_err(|_| Mismatch::expected(key.shape.expected()))?;
    let path = without_dots(&folder.join(text));
    let expected = match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => return Ok(PluginSource::File(path)),
        Ok(_) => format!("a component file, and {} is no plain file", path.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            format!("a component file, and {} does not exist", path.display())
        }
        Err(error) => format!("a component file, and {} cannot be read ({error})", path.display()),
    };
    let meant = builtins().find(|name| nearest(text, [*name]).is_some());
    Err(Mismatch { expected, meant: meant.map(|name| quoted(&format!("{BUILTIN_PREFIX}{name}"))) })
}

fn output_file(text: &str) -> Result<String, Mismatch> {
    path_text(text)?;
    if text.ends_with('/') || Path::new(text).file_name().is_none() {
        return Err(Mismatch::expected("the path of a file, not of a folder"));
    }
    Ok(text.to_owned())
}
