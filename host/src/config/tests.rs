//! Claims about configuration files as a whole: what is accepted, and the exact words for what is not.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::keys::{self, Shape};
use super::*;
use crate::exit::{Exit, Exits};

/// A folder with one configuration file in it.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn with(text: &[u8]) -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        std::fs::write(place.file(), text).unwrap();
        place
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("whodunit.toml")
    }

    fn load(&self, overrides: &[Override]) -> Result<Loaded, LoadError> {
        load(Sources {
            file: Some(&self.file()),
            standard_file: Path::new("/nonexistent/whodunit.toml"),
            overrides,
        })
    }
}

fn flag(setting: Setting, text: &str) -> Override {
    Override { origin: Origin::Flag(setting), text: OsString::from(text) }
}

fn variable(setting: Setting, text: &str) -> Override {
    Override { origin: Origin::Variable(setting), text: OsString::from(text) }
}

fn accepted(text: &str, overrides: &[Override]) -> Config {
    match Place::with(text.as_bytes()).load(overrides) {
        Ok(loaded) => loaded.config,
        Err(error) => panic!("{text}\nis refused:\n{error}"),
    }
}

/// Every line of what is said about the text, without the folder of the file.
fn said(text: &[u8], overrides: &[Override]) -> Vec<String> {
    let place = Place::with(text);
    let error = place.load(overrides).expect_err(&String::from_utf8_lossy(text));
    let folder = format!("{}/", place.folder.path().display());
    error.to_string().replace(&folder, "").lines().map(String::from).collect()
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let said = said(text.as_bytes(), &[]);
    assert_eq!(said, expected, "\n--- this is said about\n{text}\n---\n{}", said.join("\n"));
}

/// A plugin with everything that it needs, for tests of what stands below it.
const PLUGIN: &str = "[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\n";

#[track_caller]
fn check_plugin(rest: &str, expected: &[&str]) {
    check(&format!("{PLUGIN}{rest}"), expected);
}

#[test]
fn an_unknown_key_gets_its_neighbour_or_its_table_or_a_list() {
    check(
        "[daemon]\nintervall = \"30s\"\n",
        &["whodunit.toml:2:1: unknown key `daemon.intervall`: did you mean `interval`?"],
    );
    check("[plugins]\n", &["whodunit.toml:1:2: unknown key `plugins`: did you mean `plugin`?"]);
    check(
        "[daemon]\nscope = \"pod\"\n",
        &["whodunit.toml:2:1: unknown key `daemon.scope`: it belongs to `[discovery]`"],
    );
    check(
        "[daemon.log]\nlevel = \"info\"\n",
        &["whodunit.toml:1:9: unknown key `daemon.log`: write it as `[log]`"],
    );
    check(
        "[[discovery.plugin]]\nname = \"a\"\n",
        &["whodunit.toml:1:13: unknown key `discovery.plugin`: write it as `[[plugin]]`"],
    );
    check(
        "[daemon]\ncolour = 1\n",
        &["whodunit.toml:2:1: unknown key `daemon.colour`, \
           expected one of `state_dir`, `cache_dir`, `interval`"],
    );
    check(
        "source = \"x\"\n",
        &["whodunit.toml:1:1: unknown key `source`: it belongs to `[[plugin]]`"],
    );
}

#[test]
fn a_table_that_is_none_says_what_it_should_be() {
    check("log = \"info\"\n", &["whodunit.toml:1:7: `log` is \"info\", expected a table"]);
    check("plugin = 3\n", &["whodunit.toml:1:10: `plugin` is 3, expected a list of tables"]);
    check("plugin = [3]\n", &["whodunit.toml:1:11: `plugin` is 3, expected a table"]);
    check(
        "[plugin]\nname = \"a\"\n",
        &["whodunit.toml:1:1: `plugin` is one table, expected a list of tables: \
           write `[[plugin]]` with two brackets"],
    );
    check(
        "plugin = []\n",
        &["whodunit.toml:1:10: the list `plugin` is empty, expected at least one plugin: \
           leave `plugin` out to get the JSON report alone"],
    );
}

#[test]
fn a_duration_or_a_size_of_another_dialect_is_translated() {
    let duration = "expected a duration from \"100ms\" to \"24h\"";
    for (value, advice) in [
        ("30", ": did you mean \"30s\"?"),
        ("\"30 sec\"", ": did you mean \"30s\"?"),
        ("\"10ms\"", ""),
        ("1979-05-27", ""),
        ("true", ""),
    ] {
        let line = format!("whodunit.toml:2:12: `daemon.interval` is {value}, {duration}{advice}");
        check(&format!("[daemon]\ninterval = {value}\n"), &[&line]);
    }
    let size = "expected a size that is a power of two, from \"64KiB\" to \"1GiB\"";
    for (value, advice) in [
        ("\"20MiB\"", ": did you mean \"32MiB\"?"),
        ("16777216", ": did you mean \"16MiB\"?"),
        ("\"16M\"", ": did you mean \"16MiB\"?"),
        ("\"4GiB\"", ""),
    ] {
        let line = format!("whodunit.toml:2:8: `capture.ring` is {value}, {size}{advice}");
        check(&format!("[capture]\nring = {value}\n"), &[&line]);
    }
}

#[test]
fn a_number_out_of_its_range_or_in_quotes_says_the_range() {
    let expected = "expected a whole number from 1 to 10000000";
    for (value, advice) in [
        ("0", ""),
        ("-1", ""),
        ("1.5", ""),
        ("99999999999999999999999", ""),
        ("\"500\"", ": did you mean 500?"),
    ] {
        let line =
            format!("whodunit.toml:2:18: `files.dedup_capacity` is {value}, {expected}{advice}");
        check(&format!("[files]\ndedup_capacity = {value}\n"), &[&line]);
    }
}

#[test]
fn a_word_outside_its_vocabulary_gets_the_vocabulary() {
    check(
        "[discovery]\nscope = \"nod\"\n",
        &["whodunit.toml:2:9: `discovery.scope` is \"nod\", \
           expected \"auto\", \"pod\", \"node\" or \"cgroups\": did you mean \"node\"?"],
    );
    check(
        "[discovery]\nscope = [\"node\"]\n",
        &["whodunit.toml:2:9: `discovery.scope` is a list, \
           expected \"auto\", \"pod\", \"node\" or \"cgroups\""],
    );
    check(
        "[log]\nlevel = \"warning\"\nformat = \"logfmt\"\n",
        &[
            "whodunit.toml:2:9: `log.level` is \"warning\", \
             expected \"error\", \"warn\", \"info\", \"debug\" or \"trace\": did you mean \"warn\"?",
            "whodunit.toml:3:10: `log.format` is \"logfmt\", expected \"text\" or \"json\"",
        ],
    );
}

#[test]
fn subtrees_go_with_the_scope_cgroups_and_only_with_it() {
    check(
        "[discovery]\nscope = \"cgroups\"\n",
        &["whodunit.toml:2:9: `discovery.scope` is \"cgroups\" and no cgroup is listed, \
           expected `cgroups` with at least one, such as \"user.slice\""],
    );
    check(
        "[discovery]\nscope = \"cgroups\"\ncgroups = []\n",
        &["whodunit.toml:3:11: `discovery.scope` is \"cgroups\" and no cgroup is listed, \
           expected `cgroups` with at least one, such as \"user.slice\""],
    );
    check(
        "[discovery]\ncgroups = [\"user.slice\"]\n",
        &["whodunit.toml:2:11: `discovery.cgroups` is given and `discovery.scope` is \"auto\": \
           write `scope = \"cgroups\"`, or remove the list"],
    );
    check(
        "[discovery]\nscope = \"cgroups\"\ncgroups = \"user.slice\"\n",
        &["whodunit.toml:3:11: `discovery.cgroups` is \"user.slice\", \
           expected a list of cgroups below the root, such as [\"system.slice/nginx.service\"]: \
           did you mean [\"user.slice\"]?"],
    );
    check(
        "[discovery]\nscope = \"cgroups\"\ncgroups = [\"/user.slice/\", \"../x\", 3]\n",
        &[
            "whodunit.toml:3:12: `discovery.cgroups` holds \"/user.slice/\", \
             expected a cgroup below the root, without a `/` at its start or end: \
             did you mean \"user.slice\"?",
            "whodunit.toml:3:28: `discovery.cgroups` holds \"../x\", \
             expected a cgroup below the root, without a `/` at its start or end",
            "whodunit.toml:3:36: `discovery.cgroups` holds 3, expected a list of cgroups \
             below the root, such as [\"system.slice/nginx.service\"]",
        ],
    );
}

#[test]
fn an_excluded_prefix_that_can_never_match_or_always_does_is_refused() {
    check(
        "[files]\nexclude = [\"proc/\", \"/\", \"/a/../b\", \"\", \"/ok\", \"/also/ok/\"]\n",
        &[
            "whodunit.toml:2:12: `files.exclude` holds \"proc/\", \
             expected an absolute path: did you mean \"/proc/\"?",
            "whodunit.toml:2:21: `files.exclude` holds \"/\", \
             expected a prefix that does not cover every file",
            "whodunit.toml:2:26: `files.exclude` holds \"/a/../b\", \
             expected an absolute path without `.`, `..` and empty parts",
            "whodunit.toml:2:37: `files.exclude` holds \"\", expected an absolute path",
        ],
    );
}

#[test]
fn an_empty_path_is_refused() {
    check(
        "[daemon]\nstate_dir = \"\"\ncache_dir = 5\n",
        &[
            "whodunit.toml:2:13: `daemon.state_dir` is \"\", expected a path",
            "whodunit.toml:3:13: `daemon.cache_dir` is 5, expected a path",
        ],
    );
}

#[test]
fn what_is_not_toml_is_shown_where_it_stops_being_it() {
    check(
        "[daemon]\ninterval = \"1s\"\ninterval = \"2s\"\n",
        &["whodunit.toml:3:1: `interval` is defined twice"],
    );
    check(
        "[daemon\ninterval = \"1s\"\n",
        &["whodunit.toml:1:8: this is not TOML: unclosed table, expected `]`"],
    );
    check(
        "[daemon]\ninterval = 30s\n",
        &["whodunit.toml:2:12: this is not TOML: string values must be quoted, \
           expected literal string"],
    );
    assert_eq!(
        said(b"# caf\xc3\xa9\n# caf\xe9\n[daemon]\n", &[]),
        ["whodunit.toml:2:6: this is not UTF-8: save the file as UTF-8"]
    );
}

#[test]
fn a_plugin_without_its_name_or_source_is_refused_at_its_header() {
    check(
        "[daemon]\n\n[[plugin]]\nsource = \"builtin:report-json\"\noutputs.report.stdout = true\n",
        &["whodunit.toml:3:1: `plugin.name` is missing, \
           expected 1 to 63 lower case letters, digits and hyphens"],
    );
    check(
        "[[plugin]]\nname = \"report\"\n",
        &["whodunit.toml:1:1: `plugin.source` is missing, \
           expected \"builtin:NAME\", the path of a component file, or \"oci://...\""],
    );
}

#[test]
fn a_plugin_that_is_not_there_is_refused_with_the_path_that_was_looked_at() {
    let known: Vec<String> =
        super::BUILTINS.iter().map(|builtin| format!("\"builtin:{}\"", builtin.name)).collect();
    let source = format!(
        "whodunit.toml:3:10: `plugin.source` is \"builtin:reportjson\", expected {} or the path of a \
         component file: did you mean \"builtin:report-json\"?",
        known.join(", ")
    );
    check(
        "[[plugin]]\nname = \"My_Report\"\nsource = \"builtin:reportjson\"\n",
        &[
            "whodunit.toml:2:8: `plugin.name` is \"My_Report\", expected 1 to 63 lower case \
             letters, digits and hyphens: did you mean \"my-report\"?",
            &source,
        ],
    );
    check(
        "[[plugin]]\nname = \"a\"\nsource = \"report-json\"\n",
        &["whodunit.toml:3:10: `plugin.source` is \"report-json\", \
           expected a component file, and report-json does not exist: \
           did you mean \"builtin:report-json\"?"],
    );
    check(
        "[[plugin]]\nname = \"a\"\nsource = \"/nowhere/missing.wasm\"\n",
        &["whodunit.toml:3:10: `plugin.source` is \"/nowhere/missing.wasm\", \
           expected a component file, and /nowhere/missing.wasm does not exist"],
    );
    check(
        "[[plugin]]\nname = \"a\"\nsource = \"/proc\"\n",
        &["whodunit.toml:3:10: `plugin.source` is \"/proc\", \
           expected a component file, and /proc is no plain file"],
    );
}

#[test]
fn two_plugins_have_two_names() {
    let second = PLUGIN.replace("[[plugin]]", "outputs.report.stdout = true\n[[plugin]]");
    check_plugin(
        &format!("{second}outputs.report.stdout = true\n"),
        &["whodunit.toml:6:8: `plugin.name` is \"a\" a second time, \
           expected a name of its own for each plugin"],
    );
}

#[test]
fn an_output_goes_to_exactly_one_place() {
    for (value, line) in [
        (
            "{}",
            "4:18: `plugin.outputs.report` goes nowhere, \
                expected `file = \"FILE\"`, `lines = \"FILE\"`, `http = \"URL\"` or `stdout = true`",
        ),
        (
            "{ file = \"/x\", stdout = true }",
            "4:18: `plugin.outputs.report` has more than one of \
                `file`, `lines`, `http` and `stdout`, expected one of them",
        ),
        (
            "{ stdout = false }",
            "4:29: `plugin.outputs.report.stdout` is false, \
                expected true, or no such key",
        ),
        (
            "{ fiel = \"/x\" }",
            "4:20: unknown key `plugin.outputs.report.fiel`: \
                did you mean `file`?",
        ),
        (
            "{ file = \"/x/\" }",
            "4:27: `plugin.outputs.report.file` is \"/x/\", \
                expected the path of a file, not of a folder",
        ),
        (
            "\"/x.json\"",
            "4:18: `plugin.outputs.report` is \"/x.json\", expected a table with \
                `file`, `lines`, `http` or `stdout`: did you mean { file = \"/x.json\" }?",
        ),
    ] {
        let line = format!("whodunit.toml:{line}");
        check_plugin(&format!("outputs.report = {value}\n"), &[&line]);
    }
    check_plugin(
        "outputs = 3\n",
        &["whodunit.toml:4:11: `plugin.outputs` is 3, \
           expected a table of names, such as report = { file = \"report.json\" }"],
    );
}

#[test]
fn a_certificate_and_its_key_are_given_together() {
    check(
        "[http]\ntls_key = \"/a.key\"\n",
        &["whodunit.toml:2:11: `http.tls_key` is given and `http.tls_certificate` is not, \
           expected both, or none of them"],
    );
}

#[test]
fn a_server_is_told_from_what_is_none_and_its_keys_are_for_it_alone() {
    let check = |value: &str, words: &str| {
        check_plugin(
            &format!("outputs.report = {value}\n"),
            &[&format!("whodunit.toml:4:{words}")],
        );
    };
    let url = "http = \"https://a/\"";
    check(
        "{ http = \"collector:4318\" }",
        "27: `plugin.outputs.report.http` is \"collector:4318\", expected a URL such as \
         \"https://collector:4318/v1/logs\": did you mean \"http://collector:4318\"?",
    );
    check(
        "{ http = \"ftp://a/\" }",
        "27: `plugin.outputs.report.http` is \"ftp://a/\", \
         expected a URL that begins with \"http://\" or \"https://\"",
    );
    check(
        "{ file = \"/x\", timeout = \"1s\" }",
        "43: `plugin.outputs.report.timeout` is for an output with `http`",
    );
    check(
        "{ http = \"http://a/\", ca_file = \"/x\" }",
        "50: `plugin.outputs.report.ca_file` is given and the URL is no `https`",
    );
    check(
        &format!("{{ {url}, headers = {{ Content-Type = \"a/b\" }} }}"),
        "53: `plugin.outputs.report.headers.Content-Type` is written by the daemon, \
         expected another header: write `content_type` beside `headers`",
    );
    check(
        &format!("{{ {url}, headers = {{ x = 3 }} }}"),
        "57: `plugin.outputs.report.headers.x` is 3, expected text on one line",
    );
    check(
        &format!("{{ {url}, content_type = \"json\" }}"),
        "56: `plugin.outputs.report.content_type` is \"json\", \
         expected a media type such as \"application/json\"",
    );
}

#[test]
fn the_outputs_of_a_builtin_are_those_that_it_writes() {
    check_plugin(
        "",
        &["whodunit.toml:1:1: `report-json` writes the output `report`, which goes nowhere, \
           expected `outputs.report = { file = \"FILE\" }`, `{ lines = \"FILE\" }`, \
           `{ http = \"URL\" }` or `{ stdout = true }`"],
    );
    check_plugin(
        "outputs.reprot.stdout = true\n",
        &["whodunit.toml:4:9: `report-json` writes no output `reprot`, \
           expected `report`: did you mean `report`?"],
    );
    check_plugin(
        "outputs.\"Bad Name\" = { stdout = true }\n",
        &["whodunit.toml:4:9: \"Bad Name\" is no name of an output, \
           expected 1 to 63 lower case letters, digits and hyphens: did you mean \"bad-name\"?"],
    );
}

#[test]
fn two_outputs_never_share_a_file() {
    check_plugin(
        "outputs.report = { file = \"/x\" }\n[[plugin]]\nname = \"b\"\n\
         source = \"builtin:report-json\"\noutputs.report = { file = \"/y/../x\" }\n",
        &["whodunit.toml:8:18: /x is also the output `report` of the plugin `a`, \
           expected a file of its own for each output"],
    );
    check_plugin(
        "outputs.report = { file = \"/var/lib/whodunit/lock\" }\n",
        &["whodunit.toml:4:18: /var/lib/whodunit/lock is also the daemon's lock, \
           expected a file of its own for each output"],
    );
    check_plugin(
        "outputs.report = { file = \"/x\" }\n[deaths]\nfile = \"/x\"\n",
        &["whodunit.toml:4:18: /x is also the file of deaths, \
           expected a file of its own for each output"],
    );
    check_plugin(
        "outputs.report.stdout = true\n[deaths]\nfile = \"/var/lib/whodunit/deaths.jsonl\"\n",
        &["whodunit.toml:6:8: /var/lib/whodunit/deaths.jsonl is also the history of deaths, \
           expected a file of its own for deaths"],
    );
}

#[test]
fn every_problem_of_a_file_is_reported_in_its_order() {
    check_plugin(
        "outputs.report = { stdout = true }\n[plugin.limits]\ncal = \"1s\"\ncall = \"2m\"\n\
         memory = \"1KiB\"\n[plugin.config]\nratio = nan\nbig = 99999999999999999999\n",
        &[
            "whodunit.toml:6:1: unknown key `plugin.limits.cal`: did you mean `call`?",
            "whodunit.toml:7:8: `plugin.limits.call` is \"2m\", \
             expected a duration from \"10ms\" to \"1m\"",
            "whodunit.toml:8:10: `plugin.limits.memory` is \"1KiB\", \
             expected a size from \"1MiB\" to \"4GiB\"",
            "whodunit.toml:10:9: `plugin.config.ratio` is nan, \
             expected a number that JSON can hold",
            "whodunit.toml:11:7: `plugin.config.big` is 99999999999999999999, expected a whole \
             number from -9223372036854775808 to 9223372036854775807",
        ],
    );
}

#[test]
fn a_value_that_is_long_or_not_printable_is_shown_short_and_escaped() {
    let long = "x".repeat(100);
    let start = "x".repeat(60);
    let line = format!(
        "whodunit.toml:2:9: `discovery.scope` is \"{start}...\", \
         expected \"auto\", \"pod\", \"node\" or \"cgroups\""
    );
    check(&format!("[discovery]\nscope = \"{long}\"\n"), &[&line]);
    check(
        "[discovery]\nscope = \"a\\nb\\u001b\"\n",
        &["whodunit.toml:2:9: `discovery.scope` is \"a\\nb\\u{1b}\", \
           expected \"auto\", \"pod\", \"node\" or \"cgroups\""],
    );
}

#[test]
fn every_key_is_read_and_refuses_a_value_of_another_type() {
    keys::walk(&mut |table, key| {
        let wrong = match key.shape {
            Shape::True => "\"x\"",
            Shape::Tables(_)
            | Shape::Table(_)
            | Shape::Named(_)
            | Shape::Headers
            | Shape::Folders
            | Shape::Free
            | Shape::Boolean => "1.5",
            Shape::Word(_)
            | Shape::Duration { .. }
            | Shape::Size { .. }
            | Shape::Count { .. }
            | Shape::Path
            | Shape::Prefixes
            | Shape::Subtrees
            | Shape::Events
            | Shape::Patterns
            | Shape::Variables
            | Shape::Sha256
            | Shape::Address
            | Shape::Socket
            | Shape::Server
            | Shape::Url
            | Shape::MediaType
            | Shape::Name
            | Shape::Source => "true",
        };
        let header = match table {
            "" => String::new(),
            "plugin" => String::from("[[plugin]]\n"),
            table if table.starts_with("plugin.") => format!("[[plugin]]\n[{table}]\n"),
            table => format!("[{table}]\n"),
        };
        let text = format!("{header}{} = {wrong}\n", key.name);
        let path = if table.is_empty() { String::new() } else { format!("{table}.") };
        let line = format!("`{path}{}` is {}", key.name, wrong);
        let said = said(text.as_bytes(), &[]);
        assert!(said.iter().any(|said| said.contains(&line)), "{text}\n{said:#?}");
    });
}

#[test]
fn a_file_that_cannot_be_one_is_refused_in_one_sentence() {
    let place = Place::with(b"");
    let missing = place.folder.path().join("missing.toml");
    let large = place.folder.path().join("large.toml");
    std::fs::write(&large, vec![b'#'; MAX_FILE_BYTES as usize + 1]).unwrap();
    let named = |path: &Path| {
        let standard_file = Path::new("/nonexistent/whodunit.toml");
        load(Sources { file: Some(path), standard_file, overrides: &[] }).unwrap_err()
    };
    for (path, words) in [
        (missing.as_path(), "does not exist: create it, or name another with --config"),
        (
            place.folder.path(),
            "is a folder and not a configuration file: name the TOML file inside",
        ),
        (large.as_path(), "is larger than 1048576 bytes and cannot be a configuration file"),
        (&place.file().join("below"), "make it readable for this user"),
    ] {
        let error = named(path);
        let text = error.to_string();
        assert!(text.contains(&path.display().to_string()) && text.contains(words), "{text}");
        assert_eq!(text.lines().count(), 1);
        assert_eq!(error.exit(), Exit::Configuration);
    }
}

#[test]
fn without_any_file_the_defaults_hold_and_the_report_is_in_the_state_folder() {
    let standard_file = Path::new("/nonexistent/whodunit.toml");
    let sources = Sources { file: None, standard_file, overrides: &[] };
    let loaded = load(sources).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.file, None);
    let overrides = [flag(Setting::StateDir, "/srv/state")];
    let loaded = load(Sources { overrides: &overrides, ..sources }).unwrap();
    assert_eq!(
        loaded.config.plugins[0].outputs["report"],
        Output::File(PathBuf::from("/srv/state/report.json"))
    );
}

#[test]
fn the_standard_file_is_read_where_it_exists_and_a_named_one_instead_of_it() {
    let standard = Place::with(b"[daemon]\ninterval = \"5s\"\n");
    let named = Place::with(b"[daemon]\ninterval = \"7s\"\n");
    let standard_file = standard.file();
    let loaded = load(Sources { file: None, standard_file: &standard_file, overrides: &[] });
    let loaded = loaded.unwrap();
    assert_eq!(loaded.config.daemon.interval, Duration::from_secs(5));
    assert_eq!(loaded.file, Some(standard_file.clone()));
    let sources =
        Sources { file: Some(&named.file()), standard_file: &standard_file, overrides: &[] };
    assert_eq!(load(sources).unwrap().config.daemon.interval, Duration::from_secs(7));
}

#[test]
fn an_empty_file_gives_the_defaults() {
    assert_eq!(accepted("", &[]), Config::default());
    assert_eq!(accepted("\u{feff}# only a comment\r\n", &[]), Config::default());
}

/// Every key with a value that is not its default.
const EVERYTHING: &str = r#"
[discovery]
scope = "cgroups"
cgroup_root = "/mnt/cgroup"
cgroups = ["system.slice/nginx.service", "user.slice"]
rescan = "90s"
alone = "wait"
host_root = "/host"
include = ["app-*"]
exclude = ["app-{old,new}"]
[names]
cri = "run/crio.sock"
podman = "off"
docker = "/docker.sock"
kubernetes = "https://10.96.0.1:443"
[files]
exclude = ["/tmp/\u00fc\t"]
dedup_capacity = 7
[capture]
ring = "64KiB"
kernel_dedup_entries = 2_048
max_cgroups = 0x10
tier = "base"
backup = "never"
measure = true
[daemon]
state_dir = "state"
cache_dir = "./a/../cache"
interval = "1500ms"
[deaths]
file = "deaths.jsonl"
stdout = true
[http]
listen = "9479"
token_file = "token"
tls_certificate = "http.pem"
tls_key = "http.key"
metrics_containers = 7
[log]
level = "trace"
format = "json"
[[plugin]]
name = "second"
source = "builtin:report-json"
moving_tag = true
sha256 = "0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A"
events = ["files", "container-ended"]
containers = ["app-*"]
on_failure = "closed"
overflow = "drop-oldest"
wasi = "p2"
[plugin.grants]
clocks = true
random = true
output = true
environment = ["NODE_NAME", "TZ"]
folders = { "/rules" = "/etc/rules", "/" = "/srv/b \u00fc" }
[plugin.limits]
call = "10ms"
memory = "1536MiB"
queue = 1024
output = "1KiB"
log_per_second = 0
instances = 3
[plugin.outputs]
report = { stdout = true }
[plugin.config]
text = "a\nb"
number = -3
ratio = 0.5
since = 2024-01-02T03:04:05Z
list = [1, { deep = true }]
[plugin.config.table]
inner = "x"
[[plugin]]
name = "own"
source = "own.wasm"
outputs.one.file = "/one"
outputs.two.file = "two"
outputs.three.lines = "three"
outputs.four.http = "https://collector:4318/v1/logs"
outputs.four.headers = { x-scope = "team" }
outputs.four.headers_file = "headers"
outputs.four.content_type = "text/x"
outputs.four.ca_file = "ca.pem"
outputs.four.timeout = "3s"
outputs.four.retry_for = "1m"
outputs.four.queue = "64KiB"
"#;

#[test]
fn every_key_arrives_and_relative_paths_start_at_the_file() {
    let place = Place::with(EVERYTHING.as_bytes());
    let folder = place.folder.path();
    std::fs::write(folder.join("own.wasm"), "").unwrap();
    let config = place.load(&[]).unwrap().config;
    let expected = Config {
        discovery: Discovery {
            scope: Scope::Cgroups,
            cgroup_root: Some(PathBuf::from("/mnt/cgroup")),
            cgroups: ["system.slice/nginx.service", "user.slice"].map(String::from).to_vec(),
            rescan: Duration::from_secs(90),
            alone: Alone::Wait,
            host_root: PathBuf::from("/host"),
            include: vec![String::from("app-*")],
            exclude: vec![String::from("app-{old,new}")],
        },
        names: Names {
            cri: super::Place::At(folder.join("run/crio.sock").display().to_string()),
            podman: super::Place::Off,
            docker: super::Place::At(String::from("/docker.sock")),
            kubernetes: super::Place::At(String::from("https://10.96.0.1:443")),
        },
        files: Files { exclude: vec![String::from("/tmp/\u{fc}\t")], dedup_capacity: 7 },
        capture: Capture {
            ring_bytes: 65_536,
            kernel_dedup_entries: 2_048,
            max_cgroups: 16,
            tier: Tier::Base,
            backup: Backup::Never,
            measure: true,
        },
        daemon: Daemon {
            state_dir: folder.join("state"),
            cache_dir: folder.join("cache"),
            interval: Duration::from_millis(1_500),
        },
        deaths: Deaths { file: Some(folder.join("deaths.jsonl")), stdout: true },
        http: Http {
            listen: Some(([127, 0, 0, 1], 9479).into()),
            token_file: Some(folder.join("token")),
            tls_certificate: Some(folder.join("http.pem")),
            tls_key: Some(folder.join("http.key")),
            metrics_containers: 7,
        },
        log: Log { level: LogLevel::Trace, format: LogFormat::Json },
        plugins: vec![
            Plugin {
                moving_tag: true,
                sha256: Some("0a".repeat(32)),
                events: vec![String::from("files"), String::from("container-ended")],
                containers: vec![String::from("app-*")],
                on_failure: OnFailure::Closed,
                overflow: Overflow::DropOldest,
                wasi: Wasi::P2,
                grants: Grants {
                    clocks: true,
                    random: true,
                    output: true,
                    environment: vec![String::from("NODE_NAME"), String::from("TZ")],
                    folders: BTreeMap::from([
                        (String::from("/rules"), PathBuf::from("/etc/rules")),
                        (String::from("/"), PathBuf::from("/srv/b \u{fc}")),
                    ]),
                },
                limits: Limits {
                    call: Duration::from_millis(10),
                    memory_bytes: 1_536 << 20,
                    queue_events: 1_024,
                    output_bytes: 1_024,
                    log_per_second: 0,
                    instances: 3,
                },
                outputs: BTreeMap::from([(String::from("report"), Output::Stdout)]),
                config: serde_json::json!({
                    "text": "a\nb",
                    "number": -3,
                    "ratio": 0.5,
                    "since": "2024-01-02T03:04:05Z",
                    "list": [1, { "deep": true }],
                    "table": { "inner": "x" },
                }),
                ..Plugin::new(
                    String::from("second"),
                    PluginSource::Builtin(String::from("report-json")),
                )
            },
            Plugin {
                outputs: BTreeMap::from([
                    (String::from("one"), Output::File(PathBuf::from("/one"))),
                    (String::from("two"), Output::File(folder.join("two"))),
                    (String::from("three"), Output::Lines(folder.join("three"))),
                    (
                        String::from("four"),
                        Output::Http(Box::new(HttpOutput {
                            url: Url::read("https://collector:4318/v1/logs").unwrap(),
                            headers: [(String::from("x-scope"), String::from("team"))].into(),
                            headers_file: Some(folder.join("headers")),
                            content_type: Some(String::from("text/x")),
                            ca_file: Some(folder.join("ca.pem")),
                            timeout: Duration::from_secs(3),
                            retry_for: Duration::from_secs(60),
                            queue_bytes: 65_536,
                        })),
                    ),
                ]),
                ..Plugin::new(String::from("own"), PluginSource::File(folder.join("own.wasm")))
            },
        ],
    };
    assert_eq!(config, expected);
}

#[test]
fn the_configuration_in_force_loads_again_to_the_same() {
    let place = Place::with(EVERYTHING.as_bytes());
    std::fs::write(place.folder.path().join("own.wasm"), "").unwrap();
    let everything = place.load(&[]).unwrap().config;
    for config in [everything, Config::default()] {
        let again = Place::with(config.to_toml().as_bytes()).load(&[]).unwrap().config;
        assert_eq!(again, config, "{}", config.to_toml());
    }
}

#[test]
fn the_configuration_in_force_names_every_key_in_toml_and_in_json() {
    let place = Place::with(EVERYTHING.as_bytes());
    std::fs::write(place.folder.path().join("own.wasm"), "").unwrap();
    let config = place.load(&[]).unwrap().config;
    let json: serde_json::Value = serde_json::from_str(&config.to_json()).unwrap();
    let toml: serde_json::Value = toml::from_str(&config.to_toml()).unwrap();
    assert_eq!(toml, json);
    keys::walk(&mut |table, key| {
        let steps = table.split('.').filter(|step| !step.is_empty()).chain([key.name]);
        let found = steps.fold(vec![&json], |values, step| {
            let inner = values.into_iter().flat_map(|value| match value {
                serde_json::Value::Array(list) => list.iter().collect(),
                value => vec![value],
            });
            let inner = inner.flat_map(|value| value.as_object().into_iter().flatten());
            inner.filter(|(name, _)| step == "NAME" || *name == step).map(|(_, it)| it).collect()
        });
        assert!(!found.is_empty(), "{table}.{} is not in\n{json:#}", key.name);
    });
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file_and_that_over_the_defaults() {
    let text = "[daemon]\ninterval = \"5s\"\n[log]\nlevel = \"warn\"\nformat = \"json\"\n";
    let overrides = Override::collect(
        |setting| (setting == Setting::Interval).then(|| OsString::from("7s")),
        |name| match name {
            "WHODUNIT_INTERVAL" => Some(OsString::from("6s")),
            "WHODUNIT_LOG_LEVEL" => Some(OsString::from("debug")),
            _ => None,
        },
    );
    let place = Place::with(text.as_bytes());
    let loaded = place.load(&overrides).unwrap();
    let config = &loaded.config;
    assert_eq!(config.daemon.interval, Duration::from_secs(7), "the flag");
    assert_eq!(config.log.level, LogLevel::Debug, "the environment");
    assert_eq!(config.log.format, LogFormat::Json, "the file");
    assert_eq!(config.discovery.rescan, Duration::from_secs(30), "the default");
    assert_eq!(
        loaded.origins,
        [Origin::Flag(Setting::Interval), Origin::Variable(Setting::LogLevel)]
    );
}

#[test]
fn every_flag_changes_its_key() {
    let config = accepted(
        "",
        &[
            flag(Setting::Scope, "node"),
            flag(Setting::CgroupRoot, "/mnt/cgroup"),
            flag(Setting::Interval, "1s"),
            flag(Setting::StateDir, "/srv/state"),
            flag(Setting::Report, "/srv/report.json"),
            flag(Setting::LogLevel, "error"),
            variable(Setting::LogFormat, "json"),
        ],
    );
    assert_eq!(config.discovery.scope, Scope::Node);
    assert_eq!(config.discovery.cgroup_root, Some(PathBuf::from("/mnt/cgroup")));
    assert_eq!(config.daemon.interval, Duration::from_secs(1));
    assert_eq!(config.daemon.state_dir, PathBuf::from("/srv/state"));
    assert_eq!(
        config.plugins[0].outputs["report"],
        Output::File(PathBuf::from("/srv/report.json"))
    );
    assert_eq!(config.log, Log { level: LogLevel::Error, format: LogFormat::Json });
}

#[test]
fn a_relative_path_of_a_flag_starts_at_the_working_directory() {
    let config = accepted("", &[flag(Setting::Report, "./report.json")]);
    let expected = std::env::current_dir().unwrap().join("report.json");
    assert_eq!(config.plugins[0].outputs["report"], Output::File(expected));
}

#[test]
fn the_report_can_go_to_standard_output() {
    let config = accepted("", &[flag(Setting::Report, "-")]);
    assert_eq!(config.plugins[0].outputs["report"], Output::Stdout);
}

#[test]
fn another_scope_by_flag_puts_the_subtrees_aside() {
    let text = "[discovery]\nscope = \"cgroups\"\ncgroups = [\"user.slice\"]\n";
    let config = accepted(text, &[flag(Setting::Scope, "node")]);
    assert_eq!((config.discovery.scope, config.discovery.cgroups), (Scope::Node, Vec::new()));
    let listed = "[discovery]\ncgroups = [\"user.slice\"]\n";
    let config = accepted(listed, &[flag(Setting::Scope, "cgroups")]);
    assert_eq!(config.discovery.cgroups, ["user.slice"]);
}

#[test]
fn what_a_flag_asks_for_and_the_file_does_not_allow_is_a_fault_of_the_flag() {
    let own = format!("{PLUGIN}outputs.report.file = \"/x\"\n");
    let two = own.replace("\"a\"", "\"report\"") + &own.replace("/x", "/y");
    for (text, given, words) in [
        (
            "",
            flag(Setting::Scope, "cgroups"),
            "--scope is \"cgroups\", and the configuration names no subtree: \
             list them in the configuration file under `discovery.cgroups`",
        ),
        (
            own.as_str(),
            flag(Setting::Report, "/r.json"),
            "--report is for the plugin `report`, and the configuration has no plugin of that \
             name: name one so, or set the outputs of `a` in the configuration file",
        ),
        (
            two.as_str(),
            flag(Setting::Report, "/y"),
            "--report is /y, which is also the output `report` of the plugin `a`: \
             choose another file",
        ),
        (
            "",
            flag(Setting::Report, "/var/lib/whodunit/lock"),
            "--report is /var/lib/whodunit/lock, which is also the daemon's lock: \
             choose another file",
        ),
    ] {
        let place = Place::with(text.as_bytes());
        let error = place.load(std::slice::from_ref(&given)).unwrap_err();
        assert_eq!(error.to_string(), words);
        assert_eq!(error.exit(), Exit::Usage);
        let (Origin::Flag(setting) | Origin::Variable(setting)) = given.origin;
        let by_variable = Override { origin: Origin::Variable(setting), text: given.text };
        let error = place.load(&[by_variable]).unwrap_err();
        assert!(error.to_string().starts_with(setting.variable()), "{error}");
        assert_eq!(error.exit(), Exit::Configuration);
    }
}

/// The example that is shipped with the daemon.
const EXAMPLE: &str = include_str!("../../../deploy/whodunit.toml");

#[test]
fn the_shipped_example_is_the_defaults() {
    assert_eq!(accepted(EXAMPLE, &[]), Config::default());
}

#[test]
fn the_shipped_example_shows_every_key_and_what_it_shows_switched_off_can_be_switched_on() {
    let switched_on =
        EXAMPLE.replace("\n#", "\n").replace("scope = \"auto\"", "scope = \"cgroups\"");
    let live: String = switched_on
        .lines()
        .filter(|line| !line.starts_with(' '))
        .fold(String::new(), |text, line| text + line + "\n");
    let place = Place::with(live.as_bytes());
    std::fs::create_dir(place.folder.path().join("plugins")).unwrap();
    std::fs::write(place.folder.path().join("plugins/audit.wasm"), "").unwrap();
    let config = match place.load(&[]) {
        Ok(loaded) => loaded.config,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(config.discovery.scope, Scope::Cgroups);
    assert_eq!(config.plugins.len(), 3);
    let words: Vec<&str> = live.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    keys::walk(&mut |_, key| assert!(words.contains(&key.name), "{} is not shown", key.name));
}

#[test]
fn a_component_in_a_registry_is_named_for_good_or_on_purpose() {
    let check = |source: &str, more: &str| {
        said(format!("[[plugin]]\nname = \"a\"\nsource = \"{source}\"\n{more}").as_bytes(), &[])
    };
    let digest = "0a".repeat(32);
    let named = format!("oci://a.b/c@sha256:{digest}");
    for (source, more) in [(named.as_str(), ""), ("oci://a.b/c:1", "moving_tag = true\n")] {
        let text = format!("[[plugin]]\nname = \"a\"\nsource = \"{source}\"\n{more}");
        let plugin = &accepted(&text, &[]).plugins[0];
        assert!(matches!(&plugin.source, PluginSource::Registry(it) if it.to_string() == source));
    }
    let alone = check("oci://a.b/c:1", "");
    assert!(alone.len() == 1 && alone[0].contains("`moving_tag = true`"), "{alone:#?}");
    let wrong = check("oci://a.b/C:1", "");
    assert!(wrong.len() == 1 && wrong[0].contains("expected a name such as"), "{wrong:#?}");
}

#[test]
fn a_subscription_that_cannot_be_is_a_problem_of_its_own() {
    let check = |line: &str, words: &str| {
        let text = format!(
            "[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\noutputs.report.stdout = true\n{line}\n"
        );
        let said = said(text.as_bytes(), &[]);
        assert!(said.len() == 1 && said[0].contains(words), "{words}: {said:#?}");
    };
    check("events = [\"opne\"]", "did you mean \"open\"?");
    check("events = [\"file\"]", "did you mean \"files\"?");
    check("containers = [\"app-[\"]", "expected a pattern of names");
    check("containers = [\"\"]", "expected a pattern of names");
    check("on_failure = \"shut\"", "expected \"open\" or \"closed\"");
    check("overflow = \"wait\"", "expected \"drop-newest\", \"drop-oldest\" or \"block\"");
    check("wasi = \"p1\"", "expected \"none\", \"stub\" or \"p2\"");
    check("sha256 = \"abc\"", "expected 64 hexadecimal digits");
    check("moving_tag = false", "expected true");
    let hash = "0a".repeat(32);
    check(&format!("sha256 = \"sha256:{hash}\""), &format!("did you mean \"{hash}\"?"));
}

#[test]
fn capabilities_are_granted_one_by_one_and_with_p2_alone() {
    let table = |more: &str| {
        format!(
            "[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\n\
             outputs.report.stdout = true\n{more}\n"
        )
    };
    let granted = |more: &str| accepted(&table(more), &[]).plugins[0].grants.clone();
    assert_eq!(granted("wasi = \"p2\""), Grants::default());
    let clocks = Grants { clocks: true, ..Grants::default() };
    assert_eq!(granted("wasi = \"p2\"\ngrants = { clocks = true, random = false }"), clocks);
    let check = |more: &str, words: &str| {
        let said = said(table(more).as_bytes(), &[]);
        assert!(said.len() == 1 && said[0].contains(words), "{words}: {said:#?}");
    };
    for other in ["", "wasi = \"none\"\n", "wasi = \"stub\"\n"] {
        check(
            &format!("{other}grants.clocks = true"),
            "`plugin.grants` is for a plugin with `wasi = \"p2\"`",
        );
    }
    let check = |grants: &str, words: &str| {
        check(&format!("wasi = \"p2\"\n[plugin.grants]\n{grants}"), words);
    };
    check("clock = true", "unknown key `plugin.grants.clock`: did you mean `clocks`?");
    check("network = true", "expected one of `clocks`, `random`");
    check("clocks = \"yes\"", "`plugin.grants.clocks` is \"yes\", expected true or false");
    check("environment = [\"A=B\"]", "expected the name of an environment variable");
    check("environment = [\"\"]", "expected the name of an environment variable");
    check("environment = \"HOME\"", "did you mean [\"HOME\"]?");
    check("folders = [\"/srv\"]", "expected a table of folders such as");
    check("folders = { \"rules\" = \"/srv\" }", "did you mean \"/rules\"?");
    check("folders = { \"/rules/\" = \"/srv\" }", "did you mean \"/rules\"?");
    check("folders = { \"/a/../b\" = \"/srv\" }", "did you mean \"/b\"?");
    check(
        "folders = { \"/rules\" = \"srv\" }",
        "`plugin.grants.folders./rules` is \"srv\", expected the absolute path of a folder",
    );
    check("folders = { \"/rules\" = true }", "expected the absolute path of a folder");
}

#[test]
fn grants_are_read_by_themselves_as_a_table_of_the_toml_has_them() {
    let read = |text| crate::config::read_grants(text);
    let both = Grants { clocks: true, output: true, ..Grants::default() };
    assert_eq!(read("{ clocks = true, output = true }"), Ok(both.clone()));
    assert_eq!(read("clocks = true\noutput = true\n"), Ok(both));
    assert_eq!(read("{}"), Ok(Grants::default()));
    let complaint = read("{ clock = true, output = 1 }").unwrap_err();
    assert!(complaint.contains("did you mean `clocks`?"), "{complaint}");
    assert!(complaint.contains("`grants.output` is 1, expected true or false"), "{complaint}");
    assert!(read("{ clocks").unwrap_err().contains("this is not TOML"));
}
