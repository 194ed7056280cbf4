//! The text of a configuration file, read against the table of keys.
//!
//! Takes TOML and the folder that relative paths start from. Gives a draft of the configuration with
//! the places that later checks point at, and every problem that it finds, not the first one alone.
//! A value that cannot be used is replaced by its default, so that reading goes on; a draft with
//! problems is never used. Looks at the file system only to see whether a plugin's file is there.

mod grants;
mod http;
mod plugins;
mod section;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::de::DeTable;

use crate::names;

pub(in crate::config) use self::grants::grants;
use self::section::{Reader, Section, path_text};

use super::diagnostic::Problem;
use super::keys::{self, Key};
use super::values::{Mismatch, quoted, read_address};
use super::{
    Alone, Backup, Capture, Config, Daemon, Deaths, Discovery, Files, Http, Log, LogFormat,
    LogLevel, Names, Place, Plugin, Scope, Tier,
};

/// A configuration file that was read, but not yet joined with flags and environment.
#[derive(Debug)]
pub(in crate::config) struct Draft {
    /// Everything but the plugins.
    pub(in crate::config) config: Config,
    /// None where the file does not speak of plugins.
    pub(in crate::config) plugins: Option<Vec<Plugin>>,
    /// Where the values stand that are checked against each other.
    pub(in crate::config) places: Places,
}

/// Where the values stand that are checked against each other.
#[derive(Debug, Default)]
pub(in crate::config) struct Places {
    pub(in crate::config) scope: Option<Range<usize>>,
    pub(in crate::config) cgroups: Option<Range<usize>>,
    pub(in crate::config) deaths: Option<Range<usize>>,
    /// By the plugin's position and the output's name.
    pub(in crate::config) outputs: BTreeMap<(usize, String), Range<usize>>,
}

/// Reads the text of a configuration file. `folder` is absolute.
pub(in crate::config) fn read(text: &str, folder: &Path) -> (Draft, Vec<Problem>) {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { folder, problems: Vec::new() };
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
    Problem { span, wrong, expected: None, advice: None }
}

impl Reader<'_> {
    fn draft(&mut self, table: &DeTable<'_>) -> Draft {
        let root = self.open(String::new(), keys::ROOT, Some(table), 0..0);
        let discovery = self.table(&root, "discovery");
        let deaths = self.table(&root, "deaths");
        let mut places = Places {
            scope: discovery.span_of("scope"),
            cgroups: discovery.span_of("cgroups"),
            deaths: deaths.span_of("file"),
            outputs: BTreeMap::new(),
        };
        let names = self.table(&root, "names");
        let files = self.table(&root, "files");
        let capture = self.table(&root, "capture");
        let daemon = self.table(&root, "daemon");
        let http = self.table(&root, "http");
        let log = self.table(&root, "log");
        let config = Config {
            discovery: self.discovery(&discovery),
            names: self.names(&names),
            files: self.files(&files),
            capture: self.capture(&capture),
            daemon: self.daemon(&daemon),
            deaths: self.deaths(&deaths),
            http: self.http(&http),
            log: self.log(&log),
            plugins: Vec::new(),
        };
        let plugins = self.plugins(&root, &mut places);
        Draft { config, plugins, places }
    }

    fn discovery(&mut self, section: &Section<'_>) -> Discovery {
        let default = Discovery::default();
        Discovery {
            scope: self.word(section, "scope", &Scope::ALL, Scope::name).unwrap_or(default.scope),
            cgroup_root: self.path(section, "cgroup_root"),
            cgroups: self.list(section, "cgroups", subtree).unwrap_or(default.cgroups),
            rescan: self.duration(section, "rescan").unwrap_or(default.rescan),
            alone: self.word(section, "alone", &Alone::ALL, Alone::name).unwrap_or(default.alone),
            host_root: self.path(section, "host_root").unwrap_or(default.host_root),
            include: self.list(section, "include", pattern).unwrap_or(default.include),
            exclude: self.list(section, "exclude", pattern).unwrap_or(default.exclude),
        }
    }

    fn names(&mut self, section: &Section<'_>) -> Names {
        Names {
            cri: self.socket(section, "cri"),
            podman: self.socket(section, "podman"),
            docker: self.socket(section, "docker"),
            kubernetes: self.take(section, "kubernetes", server).unwrap_or_default(),
        }
    }

    fn socket(&mut self, section: &Section<'_>, name: &str) -> Place {
        let place = self.take(section, name, |_, text| match known_place(text) {
            Some(place) => Ok(place),
            None => path_text(text).map(|text| Place::At(text.to_owned())),
        });
        match place {
            Some(Place::At(path)) => {
                Place::At(self.path_in_folder(&path).to_string_lossy().into_owned())
            }
            place => place.unwrap_or_default(),
        }
    }

    fn files(&mut self, section: &Section<'_>) -> Files {
        let default = Files::default();
        Files {
            exclude: self.list(section, "exclude", prefix).unwrap_or(default.exclude),
            dedup_capacity: self.count(section, "dedup_capacity").unwrap_or(default.dedup_capacity),
        }
    }

    fn capture(&mut self, section: &Section<'_>) -> Capture {
        let default = Capture::default();
        Capture {
            ring_bytes: self.size(section, "ring").unwrap_or(default.ring_bytes),
            kernel_dedup_entries: self
                .count(section, "kernel_dedup_entries")
                .unwrap_or(default.kernel_dedup_entries),
            max_cgroups: self.count(section, "max_cgroups").unwrap_or(default.max_cgroups),
            tier: self.word(section, "tier", &Tier::ALL, Tier::name).unwrap_or(default.tier),
            backup: self
                .word(section, "backup", &Backup::ALL, Backup::name)
                .unwrap_or(default.backup),
            measure: self.boolean(section, "measure").unwrap_or(default.measure),
        }
    }

    fn daemon(&mut self, section: &Section<'_>) -> Daemon {
        let default = Daemon::default();
        Daemon {
            state_dir: self.path(section, "state_dir").unwrap_or(default.state_dir),
            cache_dir: self.path(section, "cache_dir").unwrap_or(default.cache_dir),
            interval: self.duration(section, "interval").unwrap_or(default.interval),
        }
    }

    fn deaths(&mut self, section: &Section<'_>) -> Deaths {
        Deaths {
            file: self.path(section, "file"),
            stdout: self.boolean_true(section, "stdout").is_some(),
        }
    }

    fn http(&mut self, section: &Section<'_>) -> Http {
        let tls_certificate = self.path(section, "tls_certificate");
        let tls_key = self.path(section, "tls_key");
        for (given, missing) in [("tls_certificate", "tls_key"), ("tls_key", "tls_certificate")] {
            if let (Some(span), None) = (section.span_of(given), section.entry(missing)) {
                let wrong = format!("`http.{given}` is given and `http.{missing}` is not");
                self.problem(span, wrong, Some(String::from("both, or none of them")), None);
            }
        }
        Http {
            tls_certificate,
            tls_key,
            listen: self.take(section, "listen", |_, text| read_address(text)),
            token_file: self.path(section, "token_file"),
            metrics_containers: self
                .count(section, "metrics_containers")
                .unwrap_or(Http::default().metrics_containers),
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
}

/// Prefixes are compared with paths that the kernel resolved: these have no `.`, no `..` and no `//`.
fn prefix(text: &str) -> Result<(), Mismatch> {
    if !text.starts_with('/') {
        let meant = (!text.is_empty()).then(|| quoted(&format!("/{text}")));
        return Err(Mismatch { expected: String::from("an absolute path"), meant });
    }
    if text == "/" {
        return Err(Mismatch::expected("a prefix that does not cover every file"));
    }
    let mut parts = text[1..].split('/').rev();
    let last_is_ordinary = parts.next().is_some_and(|last| !matches!(last, "." | ".."));
    if text.contains('\0') || !last_is_ordinary || !parts.all(is_ordinary) {
        return Err(Mismatch::expected("an absolute path without `.`, `..` and empty parts"));
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

/// The words that stand for a place.
fn known_place(text: &str) -> Option<Place> {
    [Place::Auto, Place::Off].into_iter().find(|place| place.text() == text)
}

fn server(key: &'static Key, text: &str) -> Result<Place, Mismatch> {
    if let Some(place) = known_place(text) {
        return Ok(place);
    }
    match names::server_address(text) {
        Some(_) => Ok(Place::At(text.to_owned())),
        None => Err(Mismatch::expected(key.shape.expected())),
    }
}

/// Patterns of names are globs.
fn pattern(text: &str) -> Result<(), Mismatch> {
    let mismatch = |expected| Mismatch { expected, meant: None };
    if text.is_empty() {
        return Err(mismatch(String::from("a pattern of names such as \"app-*\"")));
    }
    match globset::Glob::new(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(mismatch(format!("a pattern of names ({})", error.kind()))),
    }
}

fn is_ordinary(part: &str) -> bool {
    !matches!(part, "" | "." | "..")
}
