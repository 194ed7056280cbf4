//! The text of a configuration file, read against the table of keys.
//!
//! Takes TOML and the folder that relative paths start from. Gives a draft of the configuration with
//! the places that later checks point at, and every problem that it finds, not the first one alone.
//! A value that cannot be used is replaced by its default, so that reading goes on; a draft with
//! problems is never used. Looks at the file system only to see whether a plugin's file is there.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde_json::Value as Json;
use toml::de::{DeInteger, DeTable, DeValue};

use super::diagnostic::Problem;
use super::effective::BUILTIN_PREFIX;
use super::keys::{self, Key, NAME_RULE, Shape};
use super::overrides::{read_duration, read_word};
use super::values::{self, Mismatch, nearest, quoted};
use super::{
    BUILTINS, Builtin, Capture, Config, Daemon, Discovery, Files, Limits, Log, LogFormat, LogLevel,
    Output, Plugin, PluginSource, Scope,
};

/// Characters of a value that a message repeats.
const SHOWN_CHARACTERS: usize = 60;

/// A configuration file that was read, but not yet joined with flags and environment.
#[derive(Debug)]
pub(super) struct Draft {
    /// Everything but the plugins.
    pub(super) config: Config,
    /// None where the file does not speak of plugins.
    pub(super) plugins: Option<Vec<Plugin>>,
    /// Where the values stand that are checked against each other.
    pub(super) places: Places,
}

/// Where the values stand that are checked against each other.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) scope: Option<Range<usize>>,
    pub(super) cgroups: Option<Range<usize>>,
    /// By the plugin's position and the output's name.
    pub(super) outputs: BTreeMap<(usize, String), Range<usize>>,
}

/// Reads the text of a configuration file. `folder` is absolute.
pub(super) fn read(text: &str, folder: &Path) -> (Draft, Vec<Problem>) {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader {
        folder,
        problems: Vec::new(),
    };
    let empty = DeTable::new();
    let table = if errors.is_empty() {
        document.get_ref()
    } else {
        // What follows from a syntax error is not worth reading.
        reader.problems = errors.iter().map(|error| not_toml(text, error)).collect();
        &empty
    };
    let draft = reader.draft(table);
    (draft, reader.problems)
}

fn not_toml(text: &str, error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or(text.len()..text.len());
    let wrong = match error.message() {
        "duplicate key" => {
            let name = text.get(span.clone()).unwrap_or_default();
            format!("`{}` is defined twice", name.escape_debug())
        }
        message => format!("this is not TOML: {message}"),
    };
    Problem {
        span,
        wrong,
        expected: None,
        advice: None,
    }
}

struct Reader<'f> {
    folder: &'f Path,
    problems: Vec<Problem>,
}

/// A table of the file, or none of that name.
struct Section<'t> {
    /// Its dotted path, empty for the whole file.
    path: String,
    keys: &'static [Key],
    table: Option<&'t DeTable<'t>>,
    /// Its header, or the whole of an inline table.
    span: Range<usize>,
}

/// A value with its key and place.
struct Entry<'t> {
    path: String,
    key: &'static Key,
    value: &'t DeValue<'t>,
    span: Range<usize>,
}

impl<'t> Section<'t> {
    fn path_of(&self, name: &str) -> String {
        let name = name.escape_debug();
        if self.path.is_empty() {
            name.to_string()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    fn key(&self, name: &str) -> &'static Key {
        let key = self.keys.iter().find(|key| key.name == name);
        key.unwrap_or_else(|| panic!("`{}` has no key `{name}`", self.path))
    }

    fn entry(&self, name: &str) -> Option<Entry<'t>> {
        let key = self.key(name);
        let value = self.table?.get(name)?;
        Some(Entry {
            path: self.path_of(name),
            key,
            value: value.get_ref(),
            span: value.span(),
        })
    }

    fn span_of(&self, name: &str) -> Option<Range<usize>> {
        self.entry(name).map(|entry| entry.span)
    }
}

impl<'f> Reader<'f> {
    fn draft(&mut self, table: &DeTable<'_>) -> Draft {
        let root = self.open(String::new(), keys::ROOT, Some(table), 0..0);
        let discovery = self.table(&root, "discovery");
        let mut places = Places {
            scope: discovery.span_of("scope"),
            cgroups: discovery.span_of("cgroups"),
            outputs: BTreeMap::new(),
        };
        let files = self.table(&root, "files");
        let capture = self.table(&root, "capture");
        let daemon = self.table(&root, "daemon");
        let log = self.table(&root, "log");
        let config = Config {
            discovery: self.discovery(&discovery),
            files: self.files(&files),
            capture: self.capture(&capture),
            daemon: self.daemon(&daemon),
            log: self.log(&log),
            plugins: Vec::new(),
        };
        let plugins = self.plugins(&root, &mut places);
        Draft {
            config,
            plugins,
            places,
        }
    }

    fn discovery(&mut self, section: &Section<'_>) -> Discovery {
        let default = Discovery::default();
        Discovery {
            scope: self
                .word(section, "scope", &Scope::ALL, Scope::name)
                .unwrap_or(default.scope),
            cgroup_root: self.path(section, "cgroup_root"),
            cgroups: self
                .list(section, "cgroups", subtree)
                .unwrap_or(default.cgroups),
            rescan: self.duration(section, "rescan").unwrap_or(default.rescan),
        }
    }

    fn files(&mut self, section: &Section<'_>) -> Files {
        let default = Files::default();
        Files {
            exclude: self
                .list(section, "exclude", prefix)
                .unwrap_or(default.exclude),
            dedup_capacity: self
                .count(section, "dedup_capacity")
                .unwrap_or(default.dedup_capacity),
        }
    }

    fn capture(&mut self, section: &Section<'_>) -> Capture {
        let default = Capture::default();
        Capture {
            ring_bytes: self.size(section, "ring").unwrap_or(default.ring_bytes),
            kernel_dedup_entries: self
                .count(section, "kernel_dedup_entries")
                .unwrap_or(default.kernel_dedup_entries),
            max_cgroups: self
                .count(section, "max_cgroups")
                .unwrap_or(default.max_cgroups),
        }
    }

    fn daemon(&mut self, section: &Section<'_>) -> Daemon {
        let default = Daemon::default();
        Daemon {
            state_dir: self.path(section, "state_dir").unwrap_or(default.state_dir),
            cache_dir: self.path(section, "cache_dir").unwrap_or(default.cache_dir),
            interval: self
                .duration(section, "interval")
                .unwrap_or(default.interval),
        }
    }

    fn log(&mut self, section: &Section<'_>) -> Log {
        let default = Log::default();
        Log {
            level: self
                .word(section, "level", &LogLevel::ALL, LogLevel::name)
                .unwrap_or(default.level),
            format: self
                .word(section, "format", &LogFormat::ALL, LogFormat::name)
                .unwrap_or(default.format),
        }
    }

    fn plugins(&mut self, root: &Section<'_>, places: &mut Places) -> Option<Vec<Plugin>> {
        let Entry {
            path,
            key,
            value,
            span,
        } = root.entry("plugin")?;
        let Some(keys) = key.shape.keys() else {
            panic!("`plugin` is a list of tables")
        };
        let tables = match value {
            DeValue::Array(tables) if tables.is_empty() => {
                self.problem(
                    span,
                    String::from("the list `plugin` is empty"),
                    Some(String::from("at least one plugin")),
                    Some(String::from(
                        "leave `plugin` out to get the JSON report alone",
                    )),
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
                    format!(
                        "`plugin.name` is {} a second time",
                        shown_text(&plugin.name)
                    ),
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
            let builtin = BUILTINS
                .iter()
                .find(|builtin| builtin.name == name.as_str());
            let builtin = builtin.expect("`source` gives only builtins that exist");
            self.outputs_of_builtin(section, builtin, index, places);
        }
        Plugin {
            name: name.unwrap_or_default(),
            source: source.unwrap_or(PluginSource::Builtin(String::new())),
            limits,
            outputs,
            config: self.free(section, "config"),
        }
    }

    fn limits(&mut self, section: &Section<'_>) -> Limits {
        let default = Limits::default();
        Limits {
            call: self.duration(section, "call").unwrap_or(default.call),
            memory_bytes: self.size(section, "memory").unwrap_or(default.memory_bytes),
            queue_events: self.count(section, "queue").unwrap_or(default.queue_events),
            output_bytes: self.size(section, "output").unwrap_or(default.output_bytes),
            log_per_second: self
                .count(section, "log_per_second")
                .unwrap_or(default.log_per_second),
        }
    }

    fn outputs(
        &mut self,
        section: &Section<'_>,
        index: usize,
        places: &mut Places,
    ) -> BTreeMap<String, Output> {
        let mut outputs = BTreeMap::new();
        let Some(Entry {
            path,
            key,
            value,
            span,
        }) = section.entry("outputs")
        else {
            return outputs;
        };
        let DeValue::Table(table) = value else {
            self.mismatch(&path, span, value, Mismatch::expected(key.shape.expected()));
            return outputs;
        };
        let Some(keys) = key.shape.keys() else {
            panic!("`{path}` holds outputs")
        };
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
            places
                .outputs
                .insert((index, spelt.to_string()), value.span());
            let path = format!("{path}.{}", spelt.escape_debug());
            let inner = match value.get_ref() {
                DeValue::Table(inner) => inner,
                other => {
                    let meant = match other {
                        DeValue::String(file) => Some(format!("{{ file = {} }}", quoted(file))),
                        _ => None,
                    };
                    let expected = String::from("a table with `file` or `stdout`");
                    self.mismatch(&path, value.span(), other, Mismatch { expected, meant });
                    continue;
                }
            };
            let known = self.problems.len();
            let section = self.open(path.clone(), keys, Some(inner), value.span());
            let file = self.take(&section, "file", |_, text| output_file(text));
            let stdout = self.boolean_true(&section, "stdout");
            let output = match (file, stdout) {
                (Some(file), None) => Some(Output::File(self.from_folder(&file))),
                (None, Some(())) => Some(Output::Stdout),
                (None, None) if self.problems.len() > known => None,
                (None, None) => {
                    self.problem(
                        value.span(),
                        format!("`{path}` goes nowhere"),
                        Some(String::from("`file = \"FILE\"` or `stdout = true`")),
                        None,
                    );
                    None
                }
                (Some(_), Some(())) => {
                    self.problem(
                        value.span(),
                        format!("`{path}` has both `file` and `stdout`"),
                        Some(String::from("one of them")),
                        None,
                    );
                    None
                }
            };
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
        let unknown = given
            .iter()
            .filter(|(name, _)| !builtin.outputs.contains(name));
        for (spelt, span) in unknown.filter(|(spelt, _)| name(spelt).is_ok()) {
            let known: Vec<String> = builtin.outputs.iter().map(|it| format!("`{it}`")).collect();
            self.problem(
                span.clone(),
                format!("`{}` writes no output `{spelt}`", builtin.name),
                Some(known.join(", ")),
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
                outputs
                    .as_ref()
                    .map_or(section.span.clone(), |entry| entry.span.clone()),
                format!(
                    "`{}` writes the output `{missing}`, which goes nowhere",
                    builtin.name
                ),
                Some(format!(
                    "`outputs.{missing} = {{ file = \"FILE\" }}` or `{{ stdout = true }}`"
                )),
                None,
            );
        }
    }

    /// A table as it is, as JSON.
    fn free(&mut self, section: &Section<'_>, name: &str) -> Json {
        let empty = Json::Object(serde_json::Map::new());
        let Some(Entry {
            path,
            key,
            value,
            span,
        }) = section.entry(name)
        else {
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
                let number = float
                    .as_str()
                    .parse()
                    .ok()
                    .and_then(serde_json::Number::from_f64);
                number.map(Json::Number).unwrap_or_else(|| {
                    let expected = "a number that JSON can hold";
                    self.mismatch(path, span, value, Mismatch::expected(expected));
                    Json::Null
                })
            }
            DeValue::Array(array) => {
                let items = array.iter();
                items
                    .map(|item| self.json(path, item.get_ref(), item.span()))
                    .collect()
            }
            DeValue::Table(table) => {
                let fields = table.iter().map(|(name, item)| {
                    let path = format!("{path}.{}", name.get_ref().escape_debug());
                    (
                        name.get_ref().to_string(),
                        self.json(&path, item.get_ref(), item.span()),
                    )
                });
                Json::Object(fields.collect())
            }
        }
    }

    fn open<'t>(
        &mut self,
        path: String,
        keys: &'static [Key],
        table: Option<&'t DeTable<'t>>,
        span: Range<usize>,
    ) -> Section<'t> {
        let section = Section {
            path,
            keys,
            table,
            span,
        };
        for (name, _) in table.into_iter().flatten() {
            if !keys.iter().any(|key| key.name == name.get_ref().as_ref()) {
                let wrong = format!("unknown key `{}`", section.path_of(name.get_ref()));
                let (expected, advice) = unknown_key(name.get_ref(), keys);
                self.problem(name.span(), wrong, expected, advice);
            }
        }
        section
    }

    /// The table behind a key; an empty one where there is none.
    fn table<'t>(&mut self, section: &Section<'t>, name: &str) -> Section<'t> {
        let key = section.key(name);
        let Shape::Table(keys) = key.shape else {
            panic!("`{name}` is no table")
        };
        let path = section.path_of(name);
        match section.entry(name) {
            Some(Entry {
                value: DeValue::Table(table),
                span,
                ..
            }) => self.open(path, keys, Some(table), span),
            Some(Entry { value, span, .. }) => {
                self.mismatch(
                    &path,
                    span.clone(),
                    value,
                    Mismatch::expected(key.shape.expected()),
                );
                Section {
                    path,
                    keys,
                    table: None,
                    span,
                }
            }
            None => Section {
                path,
                keys,
                table: None,
                span: section.span.clone(),
            },
        }
    }

    /// Reads the value of a key by `read`, and notes what is wrong with it.
    fn entry<T>(
        &mut self,
        section: &Section<'_>,
        name: &str,
        read: impl FnOnce(&'static Key, &DeValue<'_>) -> Result<T, Mismatch>,
    ) -> Option<T> {
        let Some(Entry {
            path,
            key,
            value,
            span,
        }) = section.entry(name)
        else {
            let key = section.key(name);
            if key.required {
                self.problem(
                    section.span.clone(),
                    format!("`{}` is missing", section.path_of(name)),
                    Some(key.shape.expected()),
                    None,
                );
            }
            return None;
        };
        read(key, value)
            .map_err(|mismatch| self.mismatch(&path, span, value, mismatch))
            .ok()
    }

    /// Reads the text of a key by `read`.
    fn take<T>(
        &mut self,
        section: &Section<'_>,
        name: &str,
        read: impl FnOnce(&'static Key, &str) -> Result<T, Mismatch>,
    ) -> Option<T> {
        self.entry(section, name, |key, value| match value.as_str() {
            Some(text) => read(key, text),
            None => Err(Mismatch::expected(key.shape.expected())),
        })
    }

    fn word<T: Copy>(
        &mut self,
        section: &Section<'_>,
        name: &str,
        all: &[T],
        name_of: impl Fn(T) -> &'static str,
    ) -> Option<T> {
        self.take(section, name, |key, text| {
            read_word(key, text, all, name_of)
        })
    }

    fn duration(&mut self, section: &Section<'_>, name: &str) -> Option<Duration> {
        self.entry(section, name, |key, value| match value {
            DeValue::String(text) => read_duration(key, text),
            DeValue::Integer(integer) => Err(Mismatch {
                expected: key.shape.expected(),
                meant: unsigned(integer).map(|seconds| quoted(&format!("{seconds}s"))),
            }),
            _ => Err(Mismatch::expected(key.shape.expected())),
        })
    }

    fn size<T: TryFrom<u64>>(&mut self, section: &Section<'_>, name: &str) -> Option<T> {
        self.entry(section, name, |key, value| {
            let Shape::Size {
                least,
                most,
                power_of_two,
            } = key.shape
            else {
                panic!("`{name}` is no size")
            };
            match value {
                DeValue::String(text) => {
                    let bytes = values::read_size(text, least, most, power_of_two)?;
                    T::try_from(bytes).map_err(|_| Mismatch::expected(key.shape.expected()))
                }
                DeValue::Integer(integer) => Err(Mismatch {
                    expected: key.shape.expected(),
                    meant: unsigned(integer).map(|bytes| quoted(&values::size_text(bytes))),
                }),
                _ => Err(Mismatch::expected(key.shape.expected())),
            }
        })
    }

    fn count<T: TryFrom<u64>>(&mut self, section: &Section<'_>, name: &str) -> Option<T> {
        self.entry(section, name, |key, value| {
            let Shape::Count { least, most } = key.shape else {
                panic!("`{name}` is no number")
            };
            let in_range = |number: &u64| (least..=most).contains(number);
            let mismatch = |meant| Mismatch {
                expected: key.shape.expected(),
                meant,
            };
            match value {
                DeValue::Integer(integer) => {
                    let number = unsigned(integer).filter(in_range);
                    number
                        .and_then(|number| T::try_from(number).ok())
                        .ok_or(mismatch(None))
                }
                DeValue::String(text) => {
                    let number = text.parse().ok().filter(in_range);
                    Err(mismatch(number.map(|number| number.to_string())))
                }
                _ => Err(mismatch(None)),
            }
        })
    }

    fn boolean_true(&mut self, section: &Section<'_>, name: &str) -> Option<()> {
        self.entry(section, name, |key, value| match value {
            DeValue::Boolean(true) => Ok(()),
            _ => Err(Mismatch::expected(key.shape.expected())),
        })
    }

    fn path(&mut self, section: &Section<'_>, name: &str) -> Option<PathBuf> {
        let text = self.take(section, name, |_, text| path_text(text).map(str::to_owned))?;
        Some(self.from_folder(&text))
    }

    fn from_folder(&self, text: &str) -> PathBuf {
        without_dots(&self.folder.join(text))
    }

    /// Reads a list of texts; each that cannot be used is a problem of its own.
    fn list(
        &mut self,
        section: &Section<'_>,
        name: &str,
        check: impl Fn(&str) -> Result<(), Mismatch>,
    ) -> Option<Vec<String>> {
        let Entry {
            path,
            key,
            value,
            span,
        } = section.entry(name)?;
        let DeValue::Array(array) = value else {
            let meant = value.as_str().map(|text| format!("[{}]", quoted(text)));
            let mismatch = Mismatch {
                expected: key.shape.expected(),
                meant,
            };
            self.mismatch(&path, span, value, mismatch);
            return None;
        };
        let mut list: Vec<String> = Vec::new();
        for item in array.iter() {
            let checked = match item.get_ref().as_str() {
                Some(text) => check(text).map(|()| text),
                None => Err(Mismatch::expected(key.shape.expected())),
            };
            match checked {
                Ok(text) => list.push(text.to_owned()),
                Err(mismatch) => self.problem(
                    item.span(),
                    format!("`{path}` holds {}", shown(item.get_ref())),
                    Some(mismatch.expected),
                    mismatch.meant.map(did_you_mean),
                ),
            }
        }
        Some(list)
    }

    fn mismatch(&mut self, path: &str, span: Range<usize>, value: &DeValue<'_>, it: Mismatch) {
        let wrong = format!("`{path}` is {}", shown(value));
        self.problem(span, wrong, Some(it.expected), it.meant.map(did_you_mean));
    }

    fn problem(
        &mut self,
        span: Range<usize>,
        wrong: String,
        expected: Option<String>,
        advice: Option<String>,
    ) {
        self.problems.push(Problem {
            span,
            wrong,
            expected,
            advice,
        });
    }
}

/// What was expected instead of a key that is not there, and the way out.
fn unknown_key(name: &str, keys: &'static [Key]) -> (Option<String>, Option<String>) {
    let mut home = None;
    keys::walk(&mut |table, key| {
        if key.name == name && home.is_none() {
            home = Some(match (table, &key.shape) {
                ("", Shape::Tables(_)) => format!("write it as `[[{name}]]`"),
                ("", _) => format!("write it as `[{name}]`"),
                ("plugin", _) => String::from("it belongs to `[[plugin]]`"),
                (table, _) => format!("it belongs to `[{table}]`"),
            });
        }
    });
    let nearest = nearest(name, keys.iter().map(|key| key.name));
    if let Some(advice) = home.or(nearest.map(|key| did_you_mean(format!("`{key}`")))) {
        return (None, Some(advice));
    }
    let names: Vec<String> = keys.iter().map(|key| format!("`{}`", key.name)).collect();
    (Some(format!("one of {}", names.join(", "))), None)
}

fn did_you_mean(meant: String) -> String {
    format!("did you mean {meant}?")
}

/// A value as a message shows it.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => shown_text(text),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(moment) => moment.to_string(),
        DeValue::Array(_) => String::from("a list"),
        DeValue::Table(_) => String::from("a table"),
    }
}

fn shown_text(text: &str) -> String {
    if text.chars().count() <= SHOWN_CHARACTERS {
        return quoted(text);
    }
    let start: String = text.chars().take(SHOWN_CHARACTERS).collect();
    quoted(&format!("{start}..."))
}

fn unsigned(integer: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
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

fn source(key: &Key, text: &str, folder: &Path) -> Result<PluginSource, Mismatch> {
    let builtins = || BUILTINS.iter().map(|builtin| builtin.name);
    if let Some(name) = text.strip_prefix(BUILTIN_PREFIX) {
        if builtins().any(|builtin| builtin == name) {
            return Ok(PluginSource::Builtin(name.to_owned()));
        }
        let known: Vec<String> = builtins()
            .map(|name| quoted(&format!("{BUILTIN_PREFIX}{name}")))
            .collect();
        let meant = nearest(name, builtins());
        return Err(Mismatch {
            expected: format!("{} or the path of a component file", known.join(", ")),
            meant: meant.map(|name| quoted(&format!("{BUILTIN_PREFIX}{name}"))),
        });
    }
    path_text(text).map_err(|_| Mismatch::expected(key.shape.expected()))?;
    let path = without_dots(&folder.join(text));
    let expected = match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => return Ok(PluginSource::File(path)),
        Ok(_) => format!("a component file, and {} is no plain file", path.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            format!("a component file, and {} does not exist", path.display())
        }
        Err(error) => format!(
            "a component file, and {} cannot be read ({error})",
            path.display()
        ),
    };
    let meant = builtins().find(|name| nearest(text, [*name]).is_some());
    Err(Mismatch {
        expected,
        meant: meant.map(|name| quoted(&format!("{BUILTIN_PREFIX}{name}"))),
    })
}

fn path_text(text: &str) -> Result<&str, Mismatch> {
    if text.is_empty() || text.contains('\0') {
        return Err(Mismatch::expected("a path"));
    }
    Ok(text)
}

fn output_file(text: &str) -> Result<String, Mismatch> {
    path_text(text)?;
    if text.ends_with('/') || Path::new(text).file_name().is_none() {
        return Err(Mismatch::expected("the path of a file, not of a folder"));
    }
    Ok(text.to_owned())
}

/// Prefixes are compared with paths that the kernel resolved: these have no `.`, no `..` and no `//`.
fn prefix(text: &str) -> Result<(), Mismatch> {
    if !text.starts_with('/') {
        let meant = (!text.is_empty()).then(|| quoted(&format!("/{text}")));
        return Err(Mismatch {
            expected: String::from("an absolute path"),
            meant,
        });
    }
    if text == "/" {
        return Err(Mismatch::expected(
            "a prefix that does not cover every file",
        ));
    }
    let mut parts = text[1..].split('/').rev();
    let last_is_ordinary = parts.next().is_some_and(|last| !matches!(last, "." | ".."));
    if text.contains('\0') || !last_is_ordinary || !parts.all(is_ordinary) {
        return Err(Mismatch::expected(
            "an absolute path without `.`, `..` and empty parts",
        ));
    }
    Ok(())
}

fn subtree(text: &str) -> Result<(), Mismatch> {
    let trimmed = text.trim_matches('/');
    let usable = !trimmed.contains('\0') && trimmed.split('/').all(is_ordinary);
    if usable && trimmed == text {
        return Ok(());
    }
    Err(Mismatch {
        expected: String::from("a cgroup below the root, without a `/` at its start or end"),
        meant: usable.then(|| quoted(trimmed)),
    })
}

fn is_ordinary(part: &str) -> bool {
    !matches!(part, "" | "." | "..")
}

/// The path without `.`, and with `..` taken back: two spellings of one file become one, as far as
/// the text tells.
fn without_dots(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => clean.push(part),
        }
    }
    clean
}
