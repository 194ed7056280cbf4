//! The commands that read reports: `files` and `report`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::{Console, FILE_VARIABLE, written};
use crate::config::{self, Output, Override, PluginSource, Setting, Sources};
use crate::exit::{Exit, Exits, Failure};
use crate::report::{self, Difference, Merged, Report, Summary};

/// How a command writes what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Which report is read.
#[derive(Debug, Args)]
pub(super) struct ReportFlags {
    /// The configuration file, instead of /etc/whodunit/whodunit.toml [env: WHODUNIT_CONFIG]
    #[arg(short = 'c', long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The report that is read, instead of the one that the configuration names [env: WHODUNIT_REPORT]
    #[arg(long, value_name = "FILE")]
    report: Option<OsString>,
}

/// `files`.
#[derive(Debug, Args)]
pub(super) struct FilesCommand {
    /// Name of the container, or the beginning of its id; without it, all of them in numbers
    #[arg(value_name = "CONTAINER")]
    container: Option<String>,
    #[command(flatten)]
    flags: ReportFlags,
    /// How it is printed
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: Format,
}

/// `report`.
#[derive(Debug, Subcommand)]
pub(super) enum ReportCommand {
    /// Show what one report has and another has not
    Diff {
        /// The earlier report
        #[arg(value_name = "FIRST")]
        first: PathBuf,
        /// The later report
        #[arg(value_name = "SECOND")]
        second: PathBuf,
        /// How it is printed
        #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
        output: Format,
    },
    /// Join the reports of replicas
    Merge {
        /// The reports
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// How it is printed
        #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
        output: Format,
    },
    /// Count the files of a report by top folder and by mount
    Summary {
        /// The report, instead of the one that the configuration names
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        flags: ReportFlags,
        /// How it is printed
        #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
        output: Format,
    },
}

/// The configuration names no report that could be read.
#[derive(Debug, thiserror::Error)]
#[error("the configuration writes no report to a file: name one with --report FILE")]
struct NoReport;

impl Exits for NoReport {
    fn exit(&self) -> Exit {
        Exit::Configuration
    }
}

impl ReportFlags {
    /// The report's file: the one that is named, or the first that a plugin of the configuration writes.
    fn path(&self, console: &Console<'_>) -> Result<PathBuf, Failure> {
        let named = (console.variable)(Setting::Report.variable());
        if let Some(named) = self.report.clone().or(named).filter(|named| !named.is_empty()) {
            return Ok(named.into());
        }
        let file = (console.variable)(FILE_VARIABLE).filter(|file| !file.is_empty());
        let file = self.config.clone().or(file.map(PathBuf::from));
        let loaded = config::load(Sources {
            file: file.as_deref(),
            standard_file: console.standard_file,
            overrides: &Override::collect(|_| None, console.variable),
        })?;
        let reporters = loaded.config.plugins.iter().filter(
            |plugin| matches!(&plugin.source, PluginSource::Builtin(name) if name == "report-json"),
        );
        let mut files = reporters.filter_map(|plugin| match plugin.outputs.get("report") {
            Some(Output::File(path)) => Some(path.clone()),
            Some(Output::Lines(_) | Output::Stdout | Output::Http(_)) | None => None,
        });
        Ok(files.next().ok_or(NoReport)?)
    }
}

impl FilesCommand {
    pub(super) fn execute(self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let path = self.flags.path(console)?;
        let report = report::read(&path)?;
        let chosen = match &self.container {
            Some(name) => report::containers_called(&report, &path, name)?,
            None => report.every_container().collect(),
        };
        match (self.output, &self.container) {
            (Format::Json, _) => say_json(&chosen, console)?,
            (Format::Table, None) => say(&report::overview_table(&report), console)?,
            (Format::Table, Some(_)) => {
                let tables: Vec<String> =
                    chosen.iter().map(|container| report::container_table(container)).collect();
                say(&tables.join("\n"), console)?;
            }
        }
        Ok(Exit::Success)
    }
}

impl ReportCommand {
    pub(super) fn execute(self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        match self {
            ReportCommand::Diff { first, second, output } => {
                let difference =
                    Difference::between(&report::read(&first)?, &report::read(&second)?);
                print(&difference, Difference::text, output, console)?;
            }
            ReportCommand::Merge { files, output } => {
                let reports: Vec<Report> =
                    files.iter().map(|file| report::read(file)).collect::<Result<_, _>>()?;
                print(&Merged::of(&reports), Merged::text, output, console)?;
            }
            ReportCommand::Summary { file, flags, output } => {
                let path = file.map_or_else(|| flags.path(console), Ok)?;
                print(&Summary::of(&report::read(&path)?), Summary::text, output, console)?;
            }
        }
        Ok(Exit::Success)
    }
}

fn print<T: Serialize>(
    value: &T,
    text: impl Fn(&T) -> String,
    format: Format,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match format {
        Format::Table => say(&text(value), console),
        Format::Json => say_json(value, console),
    }
}

fn say(text: &str, console: &mut Console<'_>) -> Result<(), Failure> {
    Ok(written(console.out.write_all(text.as_bytes()))?)
}

fn say_json<T: Serialize>(value: &T, console: &mut Console<'_>) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).expect("reports are plain values");
    say(&(text + "\n"), console)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::told;
    use super::*;

    fn report(files: &[&str]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let document = serde_json::json!({
            "schema_version": 2,
            "containers": [{ "name": "web", "id": "abc123", "files": files, "surprise": 1 }],
            "ended_containers": [{ "name": "job", "ended_at": "2026-01-15T10:00:00Z" }],
        });
        std::fs::write(file.path(), document.to_string()).unwrap();
        file
    }

    fn text(path: &Path) -> &str {
        path.to_str().unwrap()
    }

    #[test]
    fn files_shows_all_containers_in_numbers_and_one_in_full() {
        let report = report(&["/a", "/b"]);
        let path = text(report.path());
        let all = told(&["files", "--report", path], &[]);
        assert_eq!((all.exit, all.err.as_str()), (Exit::Success, ""));
        assert!(all.out.contains("web") && all.out.contains("job"), "{}", all.out);
        for name in ["web", "abc"] {
            let one = told(&["files", name], &[("WHODUNIT_REPORT", path)]);
            assert!(one.out.starts_with("web (running)\n"), "{one:?}");
            assert!(one.out.contains("\n/b\n"), "{one:?}");
        }
        let json = told(&["files", "web", "--output", "json", "--report", path], &[]);
        let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
        assert_eq!(json[0]["files"], serde_json::json!(["/a", "/b"]));
    }

    #[test]
    fn an_unknown_container_is_one_sentence_that_names_those_that_there_are() {
        let report = report(&[]);
        let path = text(report.path());
        let told = told(&["files", "nobody", "--report", path], &[]);
        assert_eq!(told.exit.code(), 1);
        assert_eq!(
            told.err,
            format!(
                "whodunit: error: the report {path} has no container \"nobody\"; it has web, job\n"
            )
        );
    }

    #[test]
    fn the_report_is_the_one_of_the_configuration_where_none_is_named() {
        let told_of = |toml: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), toml).unwrap();
            told(&["report", "summary", "-c", text(file.path())], &[])
        };
        let report = report(&["/etc/a", "/b"]);
        let plugin = "[[plugin]]\nname = \"r\"\nsource = \"builtin:report-json\"\n";
        let file = format!("outputs = {{ report = {{ file = {:?} }} }}\n", text(report.path()));
        let found = told_of(&(plugin.to_owned() + &file));
        assert!(found.out.starts_with("web: 2 files\n"), "{found:?}");
        let none = told_of(&(plugin.to_owned() + "outputs = { report = { stdout = true } }\n"));
        assert_eq!(none.exit.code(), 78);
        assert!(none.err.contains("name one with --report FILE"), "{none:?}");
    }

    #[test]
    fn reports_are_compared_joined_and_counted() {
        let (first, second) = (report(&["/a", "/b"]), report(&["/b", "/c"]));
        let (first, second) = (text(first.path()), text(second.path()));
        let diff = told(&["report", "diff", first, second], &[]);
        assert_eq!(diff.out, "web\n  files\n    - /a\n    + /c\n");
        let merged = told(&["report", "merge", first, second, "--output", "json"], &[]);
        let merged: serde_json::Value = serde_json::from_str(&merged.out).unwrap();
        assert_eq!(merged["containers"][1]["files"], serde_json::json!(["/a", "/b", "/c"]));
        let summary = told(&["report", "summary", first, "--output", "json"], &[]);
        let summary: serde_json::Value = serde_json::from_str(&summary.out).unwrap();
        assert_eq!(summary["containers"][0]["files"], 2);
    }

    #[test]
    fn what_is_no_report_is_said_in_one_sentence() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (document, words) in [
            ("{", "is no report of whodunit"),
            ("{\"schema_version\": 1}", "has schema version 1, and this whodunit reads 2"),
        ] {
            std::fs::write(file.path(), document).unwrap();
            let told = told(&["report", "summary", text(file.path())], &[]);
            assert!(told.err.contains(words) && told.err.lines().count() == 1, "{told:?}");
        }
        let told = told(&["files", "--report", "/nonexistent/report.json"], &[]);
        assert!(told.err.contains("cannot be read"), "{told:?}");
    }
}
