//! One table of the file, read key by key.
//!
//! Takes the table of keys and the parsed TOML. Gives typed values, and notes a problem with its place
//! for each that is missing, unknown, of another type or out of its limits.

use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use toml::de::{DeInteger, DeTable, DeValue};

use crate::config::diagnostic::Problem;
use crate::config::keys::{self, Key, Shape};
use crate::config::overrides::{read_duration, read_word};
use crate::config::values::{self, Mismatch, nearest, quoted};

/// Characters of a value that a message repeats.
const SHOWN_CHARACTERS: usize = 60;

/// Reads a file and collects what is wrong with it.
pub(super) struct Reader<'f> {
    pub(super) folder: &'f Path,
    pub(super) problems: Vec<Problem>,
}

/// A table of the file, or none of that name.
pub(super) struct Section<'t> {
    /// Its dotted path, empty for the whole file.
    pub(super) path: String,
    pub(super) keys: &'static [Key],
    pub(super) table: Option<&'t DeTable<'t>>,
    /// Its header, or the whole of an inline table.
    pub(super) span: Range<usize>,
}

/// A value with its key and place.
pub(super) struct Entry<'t> {
    pub(super) path: String,
    pub(super) key: &'static Key,
    pub(super) value: &'t DeValue<'t>,
    pub(super) span: Range<usize>,
}

impl<'t> Section<'t> {
    fn path_of(&self, name: &str) -> String {
        let name = name.escape_debug();
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }

    fn key(&self, name: &str) -> &'static Key {
        let key = self.keys.iter().find(|key| key.name == name);
        key.unwrap_or_else(|| panic!("`{}` has no key `{name}`", self.path))
    }

    pub(super) fn entry(&self, name: &str) -> Option<Entry<'t>> {
        let key = self.key(name);
        let value = self.table?.get(name)?;
        Some(Entry { path: self.path_of(name), key, value: value.get_ref(), span: value.span() })
    }

    pub(super) fn span_of(&self, name: &str) -> Option<Range<usize>> {
        self.entry(name).map(|entry| entry.span)
    }
}

impl Reader<'_> {
    pub(super) fn open<'t>(
        &mut self,
        path: String,
        keys: &'static [Key],
        table: Option<&'t DeTable<'t>>,
        span: Range<usize>,
    ) -> Section<'t> {
        let section = Section { path, keys, table, span };
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
    pub(super) fn table<'t>(&mut self, section: &Section<'t>, name: &str) -> Section<'t> {
        let key = section.key(name);
        let Shape::Table(keys) = key.shape else { panic!("`{name}` is no table") };
        let path = section.path_of(name);
        match section.entry(name) {
            Some(Entry { value: DeValue::Table(table), span, .. }) => {
                self.open(path, keys, Some(table), span)
            }
            Some(Entry { value, span, .. }) => {
                self.mismatch(&path, span.clone(), value, Mismatch::expected(key.shape.expected()));
                Section { path, keys, table: None, span }
            }
            None => Section { path, keys, table: None, span: section.span.clone() },
        }
    }

    /// Reads the value of a key by `read`, and notes what is wrong with it.
    pub(super) fn entry<T>(
        &mut self,
        section: &Section<'_>,
        name: &str,
        read: impl FnOnce(&'static Key, &DeValue<'_>) -> Result<T, Mismatch>,
    ) -> Option<T> {
        let Some(Entry { path, key, value, span }) = section.entry(name) else {
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
        read(key, value).map_err(|mismatch| self.mismatch(&path, span, value, mismatch)).ok()
    }

    /// Reads the text of a key by `read`.
    pub(super) fn take<T>(
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

    pub(super) fn word<T: Copy>(
        &mut self,
        section: &Section<'_>,
        name: &str,
        all: &[T],
        name_of: impl Fn(T) -> &'static str,
    ) -> Option<T> {
        self.take(section, name, |key, text| read_word(key, text, all, name_of))
    }

    pub(super) fn duration(&mut self, section: &Section<'_>, name: &str) -> Option<Duration> {
        self.entry(section, name, |key, value| match value {
            DeValue::String(text) => read_duration(key, text),
            DeValue::Integer(integer) => Err(Mismatch {
                expected: key.shape.expected(),
                meant: unsigned(integer).map(|seconds| quoted(&format!("{seconds}s"))),
            }),
            _ => Err(Mismatch::expected(key.shape.expected())),
        })
    }

    pub(super) fn size<T: TryFrom<u64>>(&mut self, section: &Section<'_>, name: &str) -> Option<T> {
        self.entry(section, name, |key, value| {
            let Shape::Size { least, most, power_of_two } = key.shape else {
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

    pub(super) fn count<T: TryFrom<u64>>(
        &mut self,
        section: &Section<'_>,
        name: &str,
    ) -> Option<T> {
        self.entry(section, name, |key, value| {
            let Shape::Count { least, most } = key.shape else { panic!("`{name}` is no number") };
            let in_range = |number: &u64| (least..=most).contains(number);
            let mismatch = |meant| Mismatch { expected: key.shape.expected(), meant };
            match value {
                DeValue::Integer(integer) => {
                    let number = unsigned(integer).filter(in_range);
                    number.and_then(|number| T::try_from(number).ok()).ok_or(mismatch(None))
                }
                DeValue::String(text) => {
                    let number = text.parse().ok().filter(in_range);
                    Err(mismatch(number.map(|number| number.to_string())))
                }
                _ => Err(mismatch(None)),
            }
        })
    }

    pub(super) fn boolean_true(&mut self, section: &Section<'_>, name: &str) -> Option<()> {
        self.entry(section, name, |key, value| match value {
            DeValue::Boolean(true) => Ok(()),
            _ => Err(Mismatch::expected(key.shape.expected())),
        })
    }

    pub(super) fn boolean(&mut self, section: &Section<'_>, name: &str) -> Option<bool> {
        self.entry(section, name, |key, value| match value {
            DeValue::Boolean(truth) => Ok(*truth),
            _ => Err(Mismatch::expected(key.shape.expected())),
        })
    }

    pub(super) fn path(&mut self, section: &Section<'_>, name: &str) -> Option<PathBuf> {
        let text = self.take(section, name, |_, text| path_text(text).map(str::to_owned))?;
        Some(self.path_in_folder(&text))
    }

    pub(super) fn path_in_folder(&self, text: &str) -> PathBuf {
        without_dots(&self.folder.join(text))
    }

    /// Reads a list of texts; each that cannot be used is a problem of its own.
    pub(super) fn list(
        &mut self,
        section: &Section<'_>,
        name: &str,
        check: impl Fn(&str) -> Result<(), Mismatch>,
    ) -> Option<Vec<String>> {
        let Entry { path, key, value, span } = section.entry(name)?;
        let DeValue::Array(array) = value else {
            let meant = value.as_str().map(|text| format!("[{}]", quoted(text)));
            let mismatch = Mismatch { expected: key.shape.expected(), meant };
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

    pub(super) fn mismatch(
        &mut self,
        path: &str,
        span: Range<usize>,
        value: &DeValue<'_>,
        it: Mismatch,
    ) {
        let wrong = format!("`{path}` is {}", shown(value));
        self.problem(span, wrong, Some(it.expected), it.meant.map(did_you_mean));
    }

    pub(super) fn problem(
        &mut self,
        span: Range<usize>,
        wrong: String,
        expected: Option<String>,
        advice: Option<String>,
    ) {
        self.problems.push(Problem { span, wrong, expected, advice });
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

pub(super) fn did_you_mean(meant: String) -> String {
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

pub(super) fn shown_text(text: &str) -> String {
    if text.chars().count() <= SHOWN_CHARACTERS {
        return quoted(text);
    }
    let start: String = text.chars().take(SHOWN_CHARACTERS).collect();
    quoted(&format!("{start}..."))
}

fn unsigned(integer: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

pub(super) fn path_text(text: &str) -> Result<&str, Mismatch> {
    if text.is_empty() || text.contains('\0') {
        return Err(Mismatch::expected("a path"));
    }
    Ok(text)
}

/// The path without `.`, and with `..` taken back: two spellings of one file become one, as far as
/// the text tells.
pub(super) fn without_dots(path: &Path) -> PathBuf {
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
