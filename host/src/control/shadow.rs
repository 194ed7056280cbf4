//! `whodunit plugin shadow`: what the daemon does when it is asked, and how that is told.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::reload::short;
use super::{Request, ask};
use crate::cli::{FindingsFormat, written};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::plugin::{ComparedOutput, Difference, PluginHost, Shadowed};
use crate::status::plain;

/// What is to run beside a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Name of the plugin in the TOML.
    pub plugin: String,
    /// The component, as the daemon finds it.
    pub file: PathBuf,
    /// For how long.
    pub time: Duration,
    /// Whether it takes over if it does as well.
    pub promote: bool,
}

/// The longest that a version runs beside another one.
pub const LONGEST: Duration = Duration::from_secs(3600);

/// Runs it, off the thread that answers.
pub(super) async fn shadow_aside(host: Arc<PluginHost>, trial: Trial) -> Result<Shadowed, String> {
    if trial.time > LONGEST {
        return Err(format!("a version runs beside another one for {LONGEST:?} at most"));
    }
    let work = tokio::task::spawn_blocking(move || {
        host.shadow(&trial.plugin, &trial.file, trial.time, trial.promote)
    });
    match work.await {
        Ok(shadowed) => shadowed.map_err(|error| error.to_string()),
        Err(_) => Err("the comparison ended early; the daemon's log says why".to_owned()),
    }
}

/// The command: has the running daemon run a version beside a plugin, and writes how they differ. Ends with a
/// failure where they do, where the version failed, and where it should have taken over and did not.
///
/// # Errors
///
/// If there is no daemon, no such plugin or nothing to compare, and if the answer cannot be written.
pub fn run(
    config: &Config,
    trial: &Trial,
    format: FindingsFormat,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let Trial { plugin, file, time, promote } = trial.clone();
    let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let request = Request::Shadow { plugin, file, time_ns, promote };
    let shadowed: Shadowed = ask(&config.daemon.state_dir, &request)?;
    let text = match format {
        FindingsFormat::Table => table(&shadowed, promote),
        FindingsFormat::Json => {
            let json = serde_json::to_string_pretty(&shadowed);
            json.expect("what came of it is only texts and numbers") + "\n"
        }
    };
    written(out.write_all(text.as_bytes()))?;
    let same = shadowed.outputs.iter().all(|output| output.same);
    let well = same && shadowed.last_error.is_none() && shadowed.refusal.is_none();
    Ok(if well { Exit::Success } else { Exit::Failure })
}

/// For people.
fn table(shadowed: &Shadowed, promote: bool) -> String {
    let Shadowed { plugin, events, missed, .. } = shadowed;
    let (shadow, running) = (short(&shadowed.sha256_shadow), short(&shadowed.sha256_running));
    let took = Duration::from_nanos(shadowed.took_ns);
    let mut text = format!(
        "{plugin}: {shadow} ran beside {running} for {took:.1?}; {events} events, {missed} missed\n"
    );
    for (kind, number) in &shadowed.faults {
        text += &format!("  {kind}: {number}\n");
    }
    if let Some(error) = &shadowed.last_error {
        text += &format!("  it failed: {}\n", plain(error));
    }
    shadowed.outputs.iter().for_each(|output| text += &lines_of(output));
    text += &match (&shadowed.refusal, shadowed.promoted) {
        (Some(reason), _) => {
            format!("not promoted, {running} goes on: {}\n", plain(reason))
        }
        (None, true) => {
            format!("promoted: {shadow} runs now, until its file or the TOML changes\n")
        }
        (None, false) if promote => String::new(),
        (None, false) => format!("{running} goes on\n"),
    };
    text
}

fn lines_of(output: &ComparedOutput) -> String {
    let ComparedOutput { output: name, running, shadow, same, more, .. } = output;
    let verdict = match (same, running, shadow) {
        (true, ..) => "the same",
        (false, 0, _) => "made by the new one only",
        (false, _, 0) => "made by the running one only",
        (false, ..) => "different",
    };
    let mut text = format!("  output {name}: {verdict} ({running} and {shadow} documents)\n");
    for Difference { place, running, shadow } in &output.differences {
        let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "nothing".to_owned());
        text += &format!("    {place}: {} -> {}\n", side(running), side(shadow));
    }
    if *more > 0 {
        text += &format!("    and {more} more\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn shadowed() -> Shadowed {
        let difference = Difference {
            place: "files".to_owned(),
            running: Some("\"/a\"".to_owned()),
            shadow: None,
        };
        let output = ComparedOutput {
            output: "report".to_owned(),
            running: 3,
            shadow: 2,
            same: false,
            differences: vec![difference],
            more: 4,
        };
        Shadowed {
            plugin: "counts".to_owned(),
            sha256_running: "ab".repeat(32),
            sha256_shadow: "cd".repeat(32),
            took_ns: 1_500_000_000,
            events: 7,
            missed: 0,
            faults: BTreeMap::from([("trap".to_owned(), 1)]),
            last_error: Some("it trapped".to_owned()),
            outputs: vec![output],
            promoted: false,
            refusal: None,
        }
    }

    #[test]
    fn differences_and_faults_are_told_by_output() {
        assert_eq!(
            table(&shadowed(), false),
            "counts: cdcdcdcdcdcd ran beside abababababab for 1.5s; 7 events, 0 missed\n\
            \x20 trap: 1\n\
            \x20 it failed: it trapped\n\
            \x20 output report: different (3 and 2 documents)\n\
            \x20   files: \"/a\" -> nothing\n\
            \x20   and 4 more\n\
            abababababab goes on\n"
        );
    }

    #[test]
    fn it_is_told_whether_it_took_over() {
        let refusal = Some("it missed 3 events".to_owned());
        let refused = Shadowed { refusal, ..shadowed() };
        let sentence = "not promoted, abababababab goes on: it missed 3 events\n";
        assert!(table(&refused, true).ends_with(sentence));
        let promoted = Shadowed { promoted: true, ..shadowed() };
        assert!(table(&promoted, true).contains("promoted: cdcdcdcdcdcd runs now"));
    }
}
