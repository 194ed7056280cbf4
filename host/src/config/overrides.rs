//! What flags and environment variables change in a configuration.
//!
//! Owns the list of settings that have a flag: each has an environment variable too, named after it.
//! Takes their text and gives typed changes. Never reads the environment itself.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::keys::{Key, Shape, key};
use super::values::{self, Mismatch};
use super::{Config, LogFormat, LogLevel, Output, Scope};

/// A setting that a flag and an environment variable can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `discovery.scope`.
    Scope,
    /// `discovery.cgroup_root`.
    CgroupRoot,
    /// `daemon.interval`.
    Interval,
    /// `daemon.state_dir`.
    StateDir,
    /// `http.listen`.
    Http,
    /// Where the output `report` of the plugin `report` goes.
    Report,
    /// `log.level`.
    LogLevel,
    /// `log.format`.
    LogFormat,
}

impl Setting {
    /// Every setting, in the order of the documentation.
    pub const ALL: [Setting; 8] = [
        Setting::Scope,
        Setting::CgroupRoot,
        Setting::Interval,
        Setting::StateDir,
        Setting::Http,
        Setting::Report,
        Setting::LogLevel,
        Setting::LogFormat,
    ];

    /// The long flag, without its two hyphens.
    pub const fn flag(self) -> &'static str {
        match self {
            Setting::Scope => "scope",
            Setting::CgroupRoot => "cgroup-root",
            Setting::Interval => "interval",
            Setting::StateDir => "state-dir",
            Setting::Http => "http",
            Setting::Report => "report",
            Setting::LogLevel => "log-level",
            Setting::LogFormat => "log-format",
        }
    }

    /// The environment variable.
    pub const fn variable(self) -> &'static str {
        match self {
            Setting::Scope => "WHODUNIT_SCOPE",
            Setting::CgroupRoot => "WHODUNIT_CGROUP_ROOT",
            Setting::Interval => "WHODUNIT_INTERVAL",
            Setting::StateDir => "WHODUNIT_STATE_DIR",
            Setting::Http => "WHODUNIT_HTTP",
            Setting::Report => "WHODUNIT_REPORT",
            Setting::LogLevel => "WHODUNIT_LOG_LEVEL",
            Setting::LogFormat => "WHODUNIT_LOG_FORMAT",
        }
    }

    /// The key of the TOML that it changes.
    pub const fn key(self) -> &'static str {
        match self {
            Setting::Scope => "discovery.scope",
            Setting::CgroupRoot => "discovery.cgroup_root",
            Setting::Interval => "daemon.interval",
            Setting::StateDir => "daemon.state_dir",
            Setting::Http => "http.listen",
            Setting::Report => "plugin.outputs",
            Setting::LogLevel => "log.level",
            Setting::LogFormat => "log.format",
        }
    }
}

/// Where a changed setting comes from. Shown as the flag or the variable itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag.
    Flag(Setting),
    /// An environment variable.
    Variable(Setting),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(setting) => write!(f, "--{}", setting.flag()),
            Origin::Variable(setting) => f.write_str(setting.variable()),
        }
    }
}

/// A setting as a flag or the environment gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Where it comes from, which also tells which setting it is.
    pub origin: Origin,
    /// Its text.
    pub text: OsString,
}

impl Override {
    /// The settings that are given, each by its flag or else by its environment variable. An empty
    /// variable counts as absent: that is how a shell script or a manifest leaves one out.
    pub fn collect(
        flag: impl Fn(Setting) -> Option<OsString>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Vec<Override> {
        let given = Setting::ALL.map(|setting| {
            let by_flag =
                flag(setting).map(|text| Override { origin: Origin::Flag(setting), text });
            by_flag.or_else(|| {
                let text = variable(setting.variable()).filter(|text| !text.is_empty())?;
                Some(Override { origin: Origin::Variable(setting), text })
            })
        });
        given.into_iter().flatten().collect()
    }
}

/// A flag or an environment variable that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// Its text is not UTF-8.
    #[error("the value of {origin} is not UTF-8: give a value that is")]
    NotUtf8 {
        /// The flag or variable.
        origin: Origin,
    },
    /// Its text is none of what it may be.
    #[error("{origin} is {found}, expected {expected}{advice}")]
    Value {
        /// The flag or variable.
        origin: Origin,
        /// The text, quoted.
        found: String,
        /// What it may be.
        expected: String,
        /// Empty, or what was probably meant.
        advice: String,
    },
    /// The scope `cgroups` without subtrees.
    #[error(
        "{origin} is \"cgroups\", and the configuration names no subtree: \
         list them in the configuration file under `discovery.cgroups`"
    )]
    NoCgroups {
        /// The flag or variable.
        origin: Origin,
    },
    /// No plugin takes the report's place.
    #[error(
        "{origin} is for the plugin `report`, and the configuration has no plugin of that name: \
         name one so, or set the outputs of {plugins} in the configuration file"
    )]
    NoReport {
        /// The flag or variable.
        origin: Origin,
        /// The plugins that there are.
        plugins: String,
    },
    /// The report would be written where something else is.
    #[error("{origin} is {}, which is also {other}: choose another file", .path.display())]
    Collision {
        /// The flag or variable.
        origin: Origin,
        /// The file.
        path: PathBuf,
        /// What else is written there.
        other: String,
    },
    /// The working directory is unknown, so a relative path has no beginning.
    #[error(
        "{origin} is the relative path {} and the working directory cannot be told ({reason}): \
         give an absolute path",
        .path.display()
    )]
    NoWorkingDirectory {
        /// The flag or variable.
        origin: Origin,
        /// The path as given.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl OverrideError {
    /// The flag or variable that is at fault.
    pub fn origin(&self) -> Origin {
        match self {
            OverrideError::NotUtf8 { origin }
            | OverrideError::Value { origin, .. }
            | OverrideError::NoCgroups { origin }
            | OverrideError::NoReport { origin, .. }
            | OverrideError::Collision { origin, .. }
            | OverrideError::NoWorkingDirectory { origin, .. } => *origin,
        }
    }
}

/// The changes that overrides make, each with its origin.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Changes {
    pub(super) scope: Option<(Scope, Origin)>,
    pub(super) report: Option<(Output, Origin)>,
    cgroup_root: Option<PathBuf>,
    interval: Option<Duration>,
    state_dir: Option<PathBuf>,
    http: Option<SocketAddr>,
    log_level: Option<LogLevel>,
    log_format: Option<LogFormat>,
}

impl Changes {
    /// Reads the text of every override, by the rules of the key that it changes.
    pub(super) fn read(overrides: &[Override]) -> Result<Changes, OverrideError> {
        let mut changes = Changes::default();
        for Override { origin, text } in overrides {
            let origin = *origin;
            let (Origin::Flag(setting) | Origin::Variable(setting)) = origin;
            let text = text.to_str().ok_or(OverrideError::NotUtf8 { origin })?;
            let key = key(setting.key());
            let value_error = |mismatch: Mismatch| OverrideError::Value {
                origin,
                found: values::quoted(text),
                expected: mismatch.expected,
                advice: mismatch.meant.map_or(String::new(), |it| format!(": did you mean {it}?")),
            };
            match setting {
                Setting::Scope => {
                    let scope = read_word(key, text, &Scope::ALL, Scope::name);
                    changes.scope = Some((scope.map_err(value_error)?, origin));
                }
                Setting::CgroupRoot => changes.cgroup_root = Some(absolute(text, origin)?),
                Setting::Interval => {
                    changes.interval = Some(read_duration(key, text).map_err(value_error)?);
                }
                Setting::StateDir => changes.state_dir = Some(absolute(text, origin)?),
                Setting::Http => {
                    changes.http = Some(values::read_address(text).map_err(value_error)?);
                }
                Setting::Report => {
                    let output = match text {
                        "-" => Output::Stdout,
                        path => Output::File(absolute(path, origin)?),
                    };
                    changes.report = Some((output, origin));
                }
                Setting::LogLevel => {
                    let level = read_word(key, text, &LogLevel::ALL, LogLevel::name);
                    changes.log_level = Some(level.map_err(value_error)?);
                }
                Setting::LogFormat => {
                    let format = read_word(key, text, &LogFormat::ALL, LogFormat::name);
                    changes.log_format = Some(format.map_err(value_error)?);
                }
            }
        }
        Ok(changes)
    }

    /// Makes the changes that concern nothing else. What `scope` and `report` entail is for the
    /// loader, which knows the rest.
    pub(super) fn apply(&self, config: &mut Config) {
        if let Some((scope, _)) = self.scope {
            config.discovery.scope = scope;
        }
        if let Some(path) = &self.cgroup_root {
            config.discovery.cgroup_root = Some(path.clone());
        }
        if let Some(interval) = self.interval {
            config.daemon.interval = interval;
        }
        if let Some(path) = &self.state_dir {
            config.daemon.state_dir = path.clone();
        }
        if let Some(address) = self.http {
            config.http.listen = Some(address);
        }
        if let Some(level) = self.log_level {
            config.log.level = level;
        }
        if let Some(format) = self.log_format {
            config.log.format = format;
        }
    }
}

/// Reads text as one of the words of a key.
pub(super) fn read_word<T: Copy>(
    key: &Key,
    text: &str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, Mismatch> {
    let Shape::Word(words) = key.shape else { panic!("`{}` holds no word", key.name) };
    let word = values::read_word(text, words)?;
    let found = all.iter().copied().find(|value| name(*value) == word);
    Ok(found.expect("every word of the key stands for a value"))
}

/// Reads text as the duration that a key holds.
pub(super) fn read_duration(key: &Key, text: &str) -> Result<Duration, Mismatch> {
    let Shape::Duration { least, most } = key.shape else {
        panic!("`{}` holds no duration", key.name)
    };
    values::read_duration(text, least, most)
}

fn absolute(text: &str, origin: Origin) -> Result<PathBuf, OverrideError> {
    let path = Path::new(text);
    if text.is_empty() || text.contains('\0') {
        return Err(OverrideError::Value {
            origin,
            found: values::quoted(text),
            expected: String::from("a path"),
            advice: String::new(),
        });
    }
    std::path::absolute(path).map_err(|error| OverrideError::NoWorkingDirectory {
        origin,
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_named_after_its_flag_and_every_key_exists() {
        for setting in Setting::ALL {
            let from_flag = setting.flag().to_uppercase().replace('-', "_");
            assert_eq!(setting.variable(), format!("WHODUNIT_{from_flag}"));
            key(setting.key());
        }
    }

    #[test]
    fn a_flag_wins_over_its_variable_and_an_empty_variable_is_absent() {
        let flag = |setting| (setting == Setting::Scope).then(|| OsString::from("pod"));
        let variable = |name: &str| match name {
            "WHODUNIT_SCOPE" => Some(OsString::from("node")),
            "WHODUNIT_INTERVAL" => Some(OsString::from("5s")),
            "WHODUNIT_REPORT" => Some(OsString::new()),
            _ => None,
        };
        let given = Override::collect(flag, variable);
        assert_eq!(
            given,
            [
                Override { origin: Origin::Flag(Setting::Scope), text: OsString::from("pod") },
                Override {
                    origin: Origin::Variable(Setting::Interval),
                    text: OsString::from("5s")
                },
            ]
        );
    }

    #[test]
    fn bad_text_names_the_flag_or_the_variable_and_what_was_meant() {
        for (origin, text, expected) in [
            (
                Origin::Flag(Setting::Scope),
                "nod",
                "--scope is \"nod\", expected \"auto\", \"pod\", \"node\" or \"cgroups\": \
                 did you mean \"node\"?",
            ),
            (
                Origin::Variable(Setting::Interval),
                "30",
                "WHODUNIT_INTERVAL is \"30\", expected a duration from \"100ms\" to \"24h\": \
                 did you mean \"30s\"?",
            ),
            (Origin::Flag(Setting::StateDir), "", "--state-dir is \"\", expected a path"),
            (
                Origin::Flag(Setting::LogFormat),
                "xml",
                "--log-format is \"xml\", expected \"text\" or \"json\"",
            ),
        ] {
            let given = Override { origin, text: OsString::from(text) };
            let error = Changes::read(&[given]).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert_eq!(error.origin(), origin);
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        use std::os::unix::ffi::OsStringExt;
        let origin = Origin::Flag(Setting::Report);
        let given = Override { origin, text: OsString::from_vec(vec![b'/', 0xff]) };
        assert_eq!(Changes::read(&[given]), Err(OverrideError::NotUtf8 { origin }));
    }
}
