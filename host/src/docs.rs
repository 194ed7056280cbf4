//! Tables of the documentation that come from the code.
//!
//! Each stands in a page under `docs/` between two comments, `<!-- generated: NAME -->` and
//! `<!-- end of generated -->`. A test fails where the page differs from the code; with
//! `WHODUNIT_BLESS=1` in the environment the tests rewrite the page instead.

use std::fmt::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::cli;
use crate::config::keys::{self, Key, Shape};
use crate::config::{BUILTINS, Config, Setting};
use crate::decode;
use crate::exit::Exit;
use crate::http;
use crate::kernel::roads;
use crate::privilege;

/// Tests run at the same time, and some write to the same page.
static WRITING: Mutex<()> = Mutex::new(());

/// Makes the part `name` of a page equal to `content`, or fails where it is not.
#[track_caller]
fn check(page: &str, name: &str, content: &str) {
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let text = std::fs::read_to_string(&path).unwrap();
    let begin = format!("<!-- generated: {name} -->\n");
    let start = text.find(&begin).expect("the page has the beginning of the part") + begin.len();
    let length = text[start..].find("<!-- end of generated -->");
    let end = start + length.expect("the page has the end of the part");
    let content = format!("\n{}\n\n", content.trim_end());
    if text[start..end] == content {
        return;
    }
    assert!(
        std::env::var_os("WHODUNIT_BLESS").is_some(),
        "docs/{page} differs from the code in `{name}`; run the tests with WHODUNIT_BLESS=1.\n\
         --- the page\n{}\n--- the code\n{content}",
        &text[start..end]
    );
    std::fs::write(&path, format!("{}{content}{}", &text[..start], &text[end..])).unwrap();
}

/// Text in a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// The type of a key, and its limits.
fn shape(shape: &Shape) -> (&'static str, String) {
    let kind = match shape {
        Shape::Word(_) => "word",
        Shape::Duration { .. } => "duration",
        Shape::Size { .. } => "size",
        Shape::Count { .. } => "whole number",
        Shape::True | Shape::Boolean => "boolean",
        Shape::Path => "path",
        Shape::Prefixes => "list of paths",
        Shape::Subtrees => "list of cgroups",
        Shape::Events => "list of kinds",
        Shape::Patterns => "list of patterns",
        Shape::Sha256 => "hash",
        Shape::Address => "address",
        Shape::Socket => "socket",
        Shape::Server => "server",
        Shape::Url => "URL",
        Shape::Headers => "table of texts",
        Shape::Variables => "list of names",
        Shape::Folders => "table of paths",
        Shape::MediaType => "media type",
        Shape::Name => "name",
        Shape::Source => "source",
        Shape::Table(_) | Shape::Free => "table",
        Shape::Tables(_) => "list of tables",
        Shape::Named(_) => "table of tables",
    };
    (kind, shape.expected())
}

/// The default of a key, as it stands in the TOML.
fn default_of(config: &serde_json::Value, table: &str, key: &Key) -> String {
    let tables = table.split('.').filter(|step| !step.is_empty());
    let found = tables.chain([key.name]).try_fold(config, |value, step| match value {
        serde_json::Value::Array(list) => list.first()?.get(step),
        value => value.get(step),
    });
    match found {
        _ if key.required => String::from("required"),
        Some(value) if !value.is_object() => {
            let value = toml::Value::try_from(value).expect("a default fits TOML");
            format!("`{value}`")
        }
        _ => String::from("none"),
    }
}

#[test]
fn configuration_keys() {
    let config = serde_json::to_value(Config::default()).unwrap();
    let mut page = String::new();
    let mut current = None;
    keys::walk(&mut |table, key| {
        if table.is_empty() {
            return;
        }
        if current.as_deref() != Some(table) {
            let header = if table == "plugin" { "[[plugin]]".into() } else { format!("[{table}]") };
            writeln!(page, "\n### `{header}`\n").unwrap();
            if let Some(key) = keys::ROOT.iter().find(|key| key.name == table) {
                writeln!(page, "{}.\n", key.meaning).unwrap();
            }
            writeln!(page, "| key | type | default | meaning | limits |\n|---|---|---|---|---|")
                .unwrap();
            current = Some(table.to_owned());
        }
        let (kind, limits) = shape(&key.shape);
        let default = default_of(&config, table, key);
        let flags =
            Setting::ALL.into_iter().filter(|it| it.key() == format!("{table}.{}", key.name));
        let flags: String = flags.map(|it| format!(" Flag `--{}`.", it.flag())).collect();
        let (name, meaning) = (key.name, key.meaning);
        writeln!(
            page,
            "| `{name}` | {kind} | {} | {}.{flags} | {} |",
            cell(&default),
            cell(meaning),
            cell(&limits)
        )
        .unwrap();
    });
    check("configuration.md", "keys", page.trim_start());
}

#[test]
fn builtin_plugins() {
    let mut page = String::from("| source | what it makes | outputs |\n|---|---|---|\n");
    for builtin in BUILTINS {
        let outputs: Vec<String> = builtin.outputs.iter().map(|it| format!("`{it}`")).collect();
        let (name, meaning) = (builtin.name, builtin.meaning);
        writeln!(page, "| `builtin:{name}` | {meaning} | {} |", outputs.join(", ")).unwrap();
    }
    check("configuration.md", "builtins", &page);
}

/// Every command that does something, by its words: `run`, `plugin inspect`, ...
fn leaf_commands(command: &clap::Command, words: &str) -> Vec<(String, clap::Command)> {
    let name = |inner: &clap::Command| format!("{words} {}", inner.get_name()).trim().to_owned();
    let inside = command.get_subcommands().flat_map(|inner| match inner.has_subcommands() {
        true => leaf_commands(inner, &name(inner)),
        false => vec![(name(inner), inner.clone())],
    });
    inside.collect()
}

#[test]
fn commands() {
    let mut page = String::from("| command | what it does |\n|---|---|\n");
    for (words, command) in leaf_commands(&cli::command_line(), "") {
        let about = command.get_about().unwrap();
        let places: String = command
            .get_positionals()
            .map(|place| format!(" {}", place.get_value_names().map_or("", |names| &names[0])))
            .collect();
        writeln!(page, "| `whodunit {words}{places}` | {about} |").unwrap();
    }
    check("cli.md", "commands", &page);
}

#[test]
fn flags() {
    let mut page =
        String::from("| flag | environment | key | commands | meaning |\n|---|---|---|---|---|\n");
    let program = leaf_commands(&cli::command_line(), "");
    let mut seen = Vec::new();
    let all = program.iter().flat_map(|(_, command)| command.get_arguments());
    for flag in all.filter(|flag| flag.get_id() != "help" && !flag.is_positional()) {
        let long = flag.get_long().expect("every flag has a long name");
        let help = flag.get_help().expect("every flag has a help text").to_string();
        if seen.contains(&(long, help.clone())) {
            continue;
        }
        let commands: Vec<String> = program
            .iter()
            .filter(|(_, command)| {
                command.get_arguments().any(|other| {
                    other.get_long() == Some(long)
                        && other.get_help().is_some_and(|text| text.to_string() == help)
                })
            })
            .map(|(words, _)| format!("`{words}`"))
            .collect();
        let setting = Setting::ALL.into_iter().find(|setting| setting.flag() == long);
        let (meaning, variable) = match help.split_once(" [env: ") {
            Some((meaning, variable)) => (meaning, format!("`{}`", variable.trim_end_matches(']'))),
            None => (help.as_str(), String::new()),
        };
        let key = setting.map_or(String::new(), |setting| format!("`{}`", setting.key()));
        let short = flag.get_short().map_or(String::new(), |short| format!("`-{short}`, "));
        let takes_value = flag.get_action().takes_values();
        let value = flag.get_value_names().filter(|_| takes_value);
        let value = value.map_or(String::new(), |names| format!(" {}", names[0]));
        let words: Vec<String> = flag
            .get_possible_values()
            .iter()
            .filter(|_| takes_value)
            .map(|word| format!("`{}`", word.get_name()))
            .collect();
        let words =
            if words.is_empty() { String::new() } else { format!(": {}", words.join(" or ")) };
        writeln!(
            page,
            "| {short}`--{long}{}` | {variable} | {key} | {} | {}{words} |",
            cell(&value),
            commands.join(", "),
            cell(meaning)
        )
        .unwrap();
        seen.push((long, help));
    }
    check("cli.md", "flags", &page);
}

#[test]
fn calls() {
    let mut page =
        String::from("| call | event | path | 64-bit | 32-bit |\n|---|---|---|---|---|\n");
    for call in roads::CALLS_OF_FILES {
        let event =
            decode::kind_of(call.operation()).expect("the table knows the operations").name();
        let path = if call.is_resolved() { "kernel" } else { "request" };
        let seen = |number: Option<u16>| if number.is_some() { "seen" } else { "no such call" };
        let (native, compat) = (seen(call.x86_64()), seen(call.ia32()));
        let name = call.name.trim_end_matches(" (32-bit)");
        writeln!(page, "| `{name}` | `{event}` | {path} | {native} | {compat} |").unwrap();
    }
    check("coverage.md", "calls", &page);
}

#[test]
fn exit_codes() {
    let mut page = String::from("| code | meaning |\n|---|---|\n");
    for exit in Exit::ALL {
        writeln!(page, "| {} | {} |", exit.code(), exit.meaning()).unwrap();
    }
    check("cli.md", "exit codes", &page);
}

#[test]
fn metrics() {
    let mut page = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for metric in http::METRICS {
        let kind = match metric.kind {
            http::MetricKind::Counter => "counter",
            http::MetricKind::Gauge => "gauge",
            http::MetricKind::Histogram => "histogram",
        };
        let labels: Vec<String> = metric.labels.iter().map(|it| format!("`{it}`")).collect();
        let (name, labels) = (metric.name, labels.join(", "));
        writeln!(page, "| `{name}` | {kind} | {labels} | {} |", cell(metric.help)).unwrap();
    }
    check("metrics.md", "metrics", &page);
}

#[test]
fn http_paths() {
    let mut page = String::from("| path | token | answer |\n|---|---|---|\n");
    for route in http::ROUTES {
        let token = if route.guarded { "needed" } else { "" };
        writeln!(page, "| `{}` | {token} | {} |", route.path, cell(route.summary)).unwrap();
    }
    check("operating.md", "paths", &page);
}

/// Words of a text that begin like a metric of ours.
fn metrics_in(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    text.split(move |c| !is_name(c)).filter(|word| word.starts_with("whodunit_"))
}

/// Whether series of this name come of a metric: a histogram's have names of their own.
fn is_series_of(name: &str, metric: &http::Metric) -> bool {
    let rest = name.strip_prefix(metric.name);
    match metric.kind {
        http::MetricKind::Histogram => matches!(rest, Some("_bucket" | "_sum" | "_count")),
        http::MetricKind::Counter | http::MetricKind::Gauge => rest == Some(""),
    }
}

#[test]
fn every_metric_that_rules_and_dashboards_name_exists() {
    for (file, at_least) in [("prometheus/rules.yml", 10), ("grafana/whodunit.json", 10)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
        let text = std::fs::read_to_string(path).unwrap();
        let mut named = 0;
        for name in metrics_in(&text) {
            assert!(
                http::METRICS.iter().any(|metric| is_series_of(name, metric)),
                "{file}: {name}"
            );
            named += 1;
        }
        assert!(named >= at_least, "{file} names {named}");
    }
}

#[test]
fn capabilities() {
    let mut page = String::from("| capability | to | without it |\n|---|---|---|\n");
    for need in privilege::NEEDED {
        let (capability, purpose, without) = (need.capability, need.purpose, need.without);
        writeln!(page, "| `{capability}` | {purpose} | {without} |").unwrap();
    }
    check("deploying.md", "capabilities", &page);
    let mut page = String::from("| capability | to | without it |\n|---|---|---|\n");
    for need in privilege::SOMETIMES {
        let (capability, purpose, without) = (need.capability, need.purpose, need.without);
        writeln!(page, "| `{capability}` | {purpose} | {without} |").unwrap();
    }
    check("deploying.md", "further capabilities", &page);
}
