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

#[test]
fn dump() {
    let all = [
        "[daemon]\nintervall = \"30s\"\n",
        "[daemon]\nscope = \"pod\"\n",
        "[daemon]\ncolour = 1\n",
        "[plugins]\n",
        "[plugin]\nname = \"a\"\n",
        "plugin = []\n",
        "plugin = 3\n",
        "plugin = [3]\n",
        "log = \"info\"\n",
        "[daemon.log]\nlevel = \"info\"\n",
        "[[discovery.plugin]]\nname = \"a\"\n",
        "[daemon]\ninterval = 30\n",
        "[daemon]\ninterval = \"30 sec\"\n",
        "[daemon]\ninterval = \"10ms\"\n",
        "[daemon]\ninterval = 1979-05-27\n",
        "[discovery]\nscope = \"nod\"\n",
        "[discovery]\nscope = [\"node\"]\n",
        "[discovery]\nscope = \"cgroups\"\n",
        "[discovery]\nscope = \"cgroups\"\ncgroups = []\n",
        "[discovery]\ncgroups = [\"user.slice\"]\n",
        "[discovery]\nscope = \"cgroups\"\ncgroups = \"user.slice\"\n",
        "[discovery]\nscope = \"cgroups\"\ncgroups = [\"/user.slice/\", \"../x\", 3]\n",
        "[files]\nexclude = [\"proc/\", \"/\", \"/a/../b\", \"\"]\n",
        "[files]\ndedup_capacity = 0\n",
        "[files]\ndedup_capacity = \"500\"\n",
        "[files]\ndedup_capacity = 99999999999999999999999\n",
        "[capture]\nring = \"20MiB\"\n",
        "[capture]\nring = 16777216\n",
        "[capture]\nring = \"16M\"\n",
        "[capture]\nring = \"4GiB\"\n",
        "[capture]\nmax_cgroups = 1.5\n",
        "[daemon]\nstate_dir = \"\"\n",
        "[log]\nlevel = \"warning\"\n",
        "[daemon]\ninterval = \"1s\"\ninterval = \"2s\"\n",
        "[daemon\ninterval = \"1s\"\n",
        "[daemon]\ninterval = 30s\n",
        "[[plugin]]\nsource = \"builtin:report-json\"\noutputs.report.stdout = true\n",
        "[[plugin]]\nname = \"report\"\n",
        "[[plugin]]\nname = \"My_Report\"\nsource = \"builtin:reportjson\"\n",
        "[[plugin]]\nname = \"a\"\nsource = \"report-json\"\n",
        "[[plugin]]\nname = \"a\"\nsource = \"missing.wasm\"\n",
        "[[plugin]]\nname = \"a\"\nsource = \"/proc\"\n",
        "[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\n",
        "[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\noutputs.reprot.stdout = true\n",
        "[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\noutputs.report = \"/x.json\"\n",
        "[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\noutputs.report = {}\n",
        "[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\noutputs.report = { file = \"/x\", stdout = true }\n",
        "[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\noutputs.report = { stdout = false }\n",
        "[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\noutputs.report = { fiel = \"/x\" }\n",
        "[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\noutputs.report = { file = \"/x/\" }\n",
        "[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\noutputs.report = { file = \"/x\" }\n[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\noutputs.report = { file = \"/y\" }\n",
        "[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\noutputs.report = { file = \"/x\" }\n[[plugin]]\nname = \"b\"\nsource = \"builtin:report-json\"\noutputs.report = { file = \"/y/../x\" }\n",
        "[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\noutputs.report = { file = \"/var/lib/whodunit/lock\" }\n",
        "[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\noutputs.report = { stdout = true }\n[plugin.limits]\ncal = \"1s\"\ncall = \"2m\"\nmemory = \"1KiB\"\n",
        "[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\noutputs.report = { stdout = true }\n[plugin.config]\nratio = nan\nbig = 99999999999999999999\n",
        "[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\noutputs.report = { stdout = true }\nconfig = 3\nlimits = 4\n",
        "[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\noutputs = 3\n",
        "[[plugin]]\nname = \"a\"\nsource = \"builtin:report-json\"\noutputs.\"Bad Name\" = { stdout = true }\n",
    ];
    for text in all {
        println!("{text}=> {}", said(text.as_bytes(), &[]).join("\n   "));
    }
    println!("{}", Config::default().to_toml());
    println!("{}", Config::default().to_json());
    let _ = (Duration::ZERO, &flag, &variable, &accepted, &check, Exit::ALL, keys::ROOT);
    let _ = |e: LoadError, s: Shape| (e.exit(), s.expected());
}
