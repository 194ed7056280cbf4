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
use crate::plugin::{
    Asked, Compared, ComparedOutput, Difference, ExplainedOtherwise, JudgedEvent,
    OtherExplanations, OtherJudgement, PluginHost, Promotion, Shadowed,
};
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
    /// When it takes over.
    pub promotion: Promotion,
}

/// The longest that a version runs beside another one.
pub const LONGEST: Duration = Duration::from_secs(3600);

/// Runs it, off the thread that answers.
pub(super) async fn shadow_aside(host: Arc<PluginHost>, trial: Trial) -> Result<Shadowed, String> {
    if trial.time > LONGEST {
        return Err(format!("a version runs beside another one for {LONGEST:?} at most"));
    }
    let work = tokio::task::spawn_blocking(move || {
        host.shadow(&trial.plugin, &trial.file, trial.time, trial.promotion)
    });
    match work.await {
        Ok(shadowed) => shadowed.map_err(|error| error.to_string()),
        Err(_) => Err("the comparison ended early; the daemon's log says why".to_owned()),
    }
}

/// The command: has the running daemon run a version beside a plugin, and writes how they differ. Ends with a
/// failure where they do and it did not take over all the same, where the version failed, and where it should have
/// taken over and did not.
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
    let Trial { plugin, file, time, promotion } = trial.clone();
    let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let request = Request::Shadow { plugin, file, time_ns, promotion };
    let shadowed: Shadowed = ask(&config.daemon.state_dir, &request)?;
    let text = match format {
        FindingsFormat::Table => table(&shadowed),
        FindingsFormat::Json => {
            let json = serde_json::to_string_pretty(&shadowed);
            json.expect("what came of it is only texts and numbers") + "\n"
        }
    };
    written(out.write_all(text.as_bytes()))?;
    let same = shadowed.compared.is_same();
    let well = same && shadowed.last_error.is_none() && shadowed.refusal.is_none();
    let well = well || shadowed.promoted;
    Ok(if well { Exit::Success } else { Exit::Failure })
}

/// For people. What guests said is written so that no terminal obeys it.
fn table(shadowed: &Shadowed) -> String {
    let Shadowed { plugin, events, missed, compared, .. } = shadowed;
    let (shadow, running) = (short(&shadowed.sha256_shadow), short(&shadowed.sha256_running));
    let (took, unit) = (Duration::from_nanos(shadowed.took_ns), compared.unit());
    let mut text = format!(
        "{plugin}: {shadow} ran beside {running} for {took:.1?}; {events} {unit}s, {missed} missed\n"
    );
    for (kind, number) in &shadowed.faults {
        text += &format!("  {kind}: {number}\n");
    }
    if let Some(error) = &shadowed.last_error {
        text += &format!("  it failed: {}\n", plain(error));
    }
    match compared {
        Compared::Outputs(outputs) => outputs.iter().for_each(|output| text += &lines_of(output)),
        Compared::Judgements(asked) => {
            text += &lines_of_asked(asked, unit, "judged");
            asked.different.iter().for_each(|other| text += &lines_of_judgement(other));
        }
        Compared::Explanations(asked) => {
            text += &lines_of_asked(asked, unit, "explained");
            text += &lines_of_explanations(&asked.different, asked.otherwise());
        }
    }
    text += &match (&shadowed.refusal, shadowed.promoted) {
        (Some(reason), _) => {
            format!("not promoted, {running} goes on: {}\n", plain(reason))
        }
        (None, true) => {
            format!("promoted: {shadow} runs now, until its file or the TOML changes\n")
        }
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
    let name = plain(name);
    let mut text = format!("  output {name}: {verdict} ({running} and {shadow} documents)\n");
    text += &lines_of_differences(&output.differences, *more);
    text
}

fn lines_of_differences(differences: &[Difference], more: u64) -> String {
    let side = |side: &Option<String>| side.as_deref().map_or("nothing".to_owned(), plain);
    let line = |Difference { place, running, shadow }: &Difference| {
        format!("    {}: {} -> {}\n", plain(place), side(running), side(shadow))
    };
    let mut text: String = differences.iter().map(line).collect();
    if more > 0 {
        text += &format!("    and {more} more\n");
    }
    text
}

/// How many of what both were asked was answered how, and in what time.
fn lines_of_asked<T>(asked: &Asked<T>, unit: &str, done: &str) -> String {
    let Asked { compared, alike, running_silent, shadow_silent, .. } = asked;
    let otherwise = asked.otherwise();
    let time = Duration::from_nanos;
    let (running, shadow) = (time(asked.running_ns), time(asked.shadow_ns));
    let mut text = format!(
        "  {compared} {unit}s {done} by both: {alike} alike, {otherwise} otherwise; {running:.1?} -> {shadow:.1?} each\n"
    );
    for (number, whose) in [(running_silent, "running"), (shadow_silent, "new")] {
        if *number > 0 {
            text += &format!("  not {done} by the {whose} one: {number}\n");
        }
    }
    text
}

fn lines_of_judgement(other: &OtherJudgement) -> String {
    let OtherJudgement { running, shadow, events, samples } = other;
    let mut text = format!("  {running} -> {shadow}: {events}, such as\n");
    for JudgedEvent { container, kind, path, running, shadow } in samples {
        let (container, path) = (plain(container), plain(path));
        text += &format!("    {container} {kind} {path}: {running} -> {shadow}\n");
    }
    text
}

fn lines_of_explanations(different: &OtherExplanations, otherwise: u64) -> String {
    let OtherExplanations { verdict, samples } = different;
    let mut text = String::new();
    if otherwise > 0 {
        text += &format!("  with another verdict: {verdict}\n");
    }
    for ExplainedOtherwise { container, pid, comm, differences, more, .. } in samples {
        text += &format!("  {}: {} ({pid})\n", plain(container), plain(comm));
        text += &lines_of_differences(differences, *more);
    }
    let unseen = otherwise.saturating_sub(samples.len() as u64);
    if unseen > 0 {
        text += &format!("  and {unseen} more\n");
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
            compared: Compared::Outputs(vec![output]),
            promoted: false,
            refusal: None,
        }
    }

    #[test]
    fn differences_and_faults_are_told_by_output() {
        assert_eq!(
            table(&shadowed()),
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
        assert!(table(&refused).ends_with(sentence));
        let promoted = Shadowed { promoted: true, ..shadowed() };
        assert!(table(&promoted).contains("promoted: cdcdcdcdcdcd runs now"));
    }

    fn asked<T>(different: T) -> Asked<T> {
        Asked {
            compared: 9,
            alike: 7,
            running_silent: 0,
            shadow_silent: 1,
            running_ns: 1_200,
            shadow_ns: 2_300_000,
            different,
        }
    }

    /// What is told between the first line and the last, where nothing failed.
    #[track_caller]
    fn check(compared: Compared, expected: &str) {
        let (faults, last_error) = (BTreeMap::new(), None);
        let shadowed = Shadowed { compared, faults, last_error, ..shadowed() };
        let json = serde_json::to_string(&shadowed).unwrap();
        assert_eq!(serde_json::from_str::<Shadowed>(&json).unwrap(), shadowed, "{json}");
        let text = table(&shadowed);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1..lines.len() - 1].join("\n"), expected);
    }

    #[test]
    fn events_that_a_filter_judges_otherwise_are_told_by_how() {
        let sample = JudgedEvent {
            container: "web".to_owned(),
            kind: "open".to_owned(),
            path: "/a\x1b[2J".to_owned(),
            running: "keep".to_owned(),
            shadow: "tag 7".to_owned(),
        };
        let (running, shadow) = ("keep".to_owned(), "tag".to_owned());
        let other = OtherJudgement { running, shadow, events: 2, samples: vec![sample] };
        check(
            Compared::Judgements(asked(vec![other])),
            "  9 events judged by both: 7 alike, 2 otherwise; 1.2µs -> 2.3ms each\n\
            \x20 not judged by the new one: 1\n\
            \x20 keep -> tag: 2, such as\n\
            \x20   web open /a\\u{1b}[2J: keep -> tag 7",
        );
    }

    #[test]
    fn deaths_that_an_explainer_explains_otherwise_are_told_with_their_differences() {
        let difference = Difference {
            place: "verdict".to_owned(),
            running: Some("\"unknown\"".to_owned()),
            shadow: Some("\"oom-own-limit\"".to_owned()),
        };
        let sample = ExplainedOtherwise {
            time_ns: 1,
            container: "web".to_owned(),
            pid: 4711,
            comm: "sh".to_owned(),
            differences: vec![difference],
            more: 0,
        };
        check(
            Compared::Explanations(asked(OtherExplanations { verdict: 1, samples: vec![sample] })),
            "  9 deaths explained by both: 7 alike, 2 otherwise; 1.2µs -> 2.3ms each\n\
            \x20 not explained by the new one: 1\n\
            \x20 with another verdict: 1\n\
            \x20 web: sh (4711)\n\
            \x20   verdict: \"unknown\" -> \"oom-own-limit\"\n\
            \x20 and 1 more",
        );
    }
}
