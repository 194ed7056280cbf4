//! Commands in the documentation, run as they stand there.

use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};
use whodunit_containers::daemon::binary;

use crate::languages::{RustTools, lacks_rust};
use crate::report::{expect, repository};
use crate::{Outcome, needing};

pub(crate) fn trials() -> Vec<Trial> {
    vec![needing("documents::the_commands_of_the_plugin_page_work", lacks_rust, plugin_page)]
}

/// A command of a page, and lines that it prints.
#[derive(Debug, PartialEq, Eq)]
struct Example {
    command: String,
    prints: Vec<String>,
}

/// The commands of every block behind a comment that says that it is tested.
fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let (mut tested, mut inside) = (false, false);
    for line in page.lines() {
        match line {
            line if line.starts_with("<!-- tested: ") => tested = true,
            "```console" if tested => inside = true,
            "```" if inside => (tested, inside) = (false, false),
            line if inside => match line.strip_prefix("$ ") {
                Some(command) => {
                    examples.push(Example { command: command.to_owned(), prints: Vec::new() });
                }
                None => {
                    if let Some(example) = examples.last_mut() {
                        example.prints.push(line.to_owned());
                    }
                }
            },
            _ => {}
        }
    }
    examples
}

fn plugin_page() -> Outcome {
    let page = std::fs::read_to_string(repository().join("docs/plugins.md"))?;
    let examples = examples(&page);
    expect(format!("there are commands: {examples:?}"), examples.len() >= 10)?;
    let place = tempfile::tempdir()?;
    let tools = RustTools::new(&place.path().join("bin"))?;
    std::os::unix::fs::symlink(binary()?, place.path().join("bin/whodunit"))?;
    // One shell for all of them, since they change folders; what each printed is told apart by a mark.
    let mut script = String::from("set -eu\n");
    for (number, example) in examples.iter().enumerate() {
        script += &format!("echo '== {number}'\n{}\n", example.command);
    }
    let output = shell(&script, place.path(), &tools)?;
    let printed: Vec<&str> = output.split("== ").skip(1).collect();
    for (number, example) in examples.iter().enumerate() {
        let own = printed.get(number).copied().unwrap_or_default();
        for line in &example.prints {
            let found = own.lines().any(|printed| printed.trim_start().starts_with(line.as_str()));
            expect(format!("`{}` prints {line:?}: {own}", example.command), found)?;
        }
    }
    Ok(())
}

fn shell(script: &str, folder: &Path, tools: &RustTools) -> Result<String, Failed> {
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(folder).stdin(Stdio::null());
    let output = tools.prepare(&mut command).env("XDG_CACHE_HOME", folder.join("xdg")).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, complaint) = (text(&output.stdout), text(&output.stderr));
    expect(format!("every command succeeds; {said}\n{complaint}"), output.status.success())?;
    Ok(said)
}
