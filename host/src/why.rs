//! `whodunit why`: the last deaths in words, from the history on disk.
//!
//! Takes the history (JSON lines in the state folder) and what the user asks for; gives text for people, or the records as JSON. Works
//! with the daemon running or not, and never touches the kernel or a plugin: what a death means was said when it happened.

mod history;
mod story;

use std::io::Write;
use std::path::Path;

use clap::ValueEnum;

use crate::config::Config;
use crate::death::explanation::{ExplainedDeath, Explanation};
use crate::death::record::{Subject, WaitStatus};
use crate::exit::{Exit, Exits, Failure};

/// Verdicts of processes that went down with others: told where everything is asked for.
const WENT_ALONG: [&str; 2] = ["init-died", "cgroup-kill"];

/// Whose deaths, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Name of a container or pod, or the beginning of a container's id. None: of every container.
    pub container: Option<String>,
    /// How many at most.
    pub last: usize,
    /// Also processes that ended by themselves or went down with their container.
    pub all: bool,
    /// How they are told.
    pub format: StoryFormat,
}

/// How `why` tells deaths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StoryFormat {
    /// For people.
    Text,
    /// For programs: a JSON list of records with their explanations.
    Json,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WhyError {
    /// No death of that container is known.
    #[error("no death of `{container}` is known; {known}")]
    NoSuchContainer {
        /// What was asked for.
        container: String,
        /// Whose deaths are known, in words.
        known: String,
    },
    /// The answer could not be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] std::io::Error),
}

impl Exits for WhyError {
    fn exit(&self) -> Exit {
        Exit::Failure
    }
}

/// Answers the question from the history in the state folder.
///
/// # Errors
///
/// If the history cannot be read, or knows no such container.
pub fn run(config: &Config, question: &Question, out: &mut dyn Write) -> Result<Exit, Failure> {
    let state_dir = &config.daemon.state_dir;
    let deaths = history::read(state_dir)?;
    let text = answer(&deaths, question, state_dir)?;
    match out.write_all(text.as_bytes()) {
        // A reader that has seen enough, such as `head`, is no error.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Exit::Success),
        result => Ok(result.map(|()| Exit::Success).map_err(WhyError::Output)?),
    }
}

fn answer(
    deaths: &[ExplainedDeath],
    question: &Question,
    state_dir: &Path,
) -> Result<String, WhyError> {
    let is_asked = |death: &&ExplainedDeath| {
        question.container.as_ref().is_none_or(|container| is_of(death, container))
    };
    if let Some(container) = &question.container
        && !deaths.iter().any(|death| is_asked(&death))
    {
        let (container, known) = (container.clone(), known(deaths));
        return Err(WhyError::NoSuchContainer { container, known });
    }
    let is_told = |death: &&ExplainedDeath| question.all || is_telling(death);
    // The file is in the order of ends, which is nearly that of time.
    let mut told: Vec<_> = deaths.iter().filter(is_asked).filter(is_told).collect();
    told.sort_by_key(|death| std::cmp::Reverse(death.death.time_ns));
    told.truncate(question.last);
    Ok(match question.format {
        StoryFormat::Json => {
            serde_json::to_string_pretty(&told).expect("records are plain values") + "\n"
        }
        StoryFormat::Text if told.is_empty() => {
            format!("no death is known yet: the daemon keeps them in {}\n", state_dir.display())
        }
        StoryFormat::Text => {
            let stories: Vec<_> = told.into_iter().map(story::tell).collect();
            stories.join("\n")
        }
    })
}

/// Whether the death is of that container or pod.
fn is_of(death: &ExplainedDeath, asked: &str) -> bool {
    let container = &death.death.container;
    let is_pod = container
        .attributes
        .iter()
        .any(|(key, value)| matches!(key.as_str(), "pod-name" | "pod-uid") && value == asked);
    // A short id is never shorter than people write them.
    let is_id = asked.len() >= 4 && container.runtime_id.starts_with(asked);
    container.name == asked || is_id || is_pod
}

/// Whether it is told without being asked for everything: containers, and processes that somebody killed.
fn is_telling(explained: &ExplainedDeath) -> bool {
    let went_along = match &explained.explanation {
        Explanation::Explained(answer) => WENT_ALONG.contains(&answer.verdict.as_str()),
        Explanation::Unexplained { .. } => false,
    };
    match (explained.death.subject, explained.death.status) {
        (Subject::Container, _) => true,
        (Subject::Process, WaitStatus::Killed { .. }) => !went_along,
        (Subject::Process, WaitStatus::Exited { .. }) => false,
    }
}

/// Whose deaths are known, in words.
fn known(deaths: &[ExplainedDeath]) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<_> = deaths.iter().map(|it| it.death.container.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    match names.len() {
        0 => String::from("the history is empty"),
        1..=SHOWN => format!("there are deaths of {}", names.join(", ")),
        count => {
            let more = count - SHOWN;
            format!("there are deaths of {} and {more} more", names[..SHOWN].join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::death::explanation::Answer;
    use crate::death::record::*;

    fn signal(number: u8, before_ns: u64, disposition: Disposition) -> Evidence {
        let fact = Fact::Signal(Signal {
            number,
            si_code: 0,
            origin: SignalOrigin::User,
            result: SignalResult::Delivered,
            delivered: false,
            way: SignalWay::Kill,
            disposition,
            relation: Relation::Runtime,
            sender: Sender::Process(Party {
                pid: 812,
                comm: "runc".to_owned(),
                ancestry: vec![Ancestor { pid: 700, comm: "containerd-shim".to_owned() }],
                ..Party::default()
            }),
        });
        Evidence { before_ns, fact }
    }

    fn death(name: &str, time_ns: u64, subject: Subject, raw_status: u32) -> ExplainedDeath {
        ExplainedDeath {
            death: DeathRecord {
                schema: SCHEMA,
                time_ns,
                subject,
                container: Container {
                    name: name.to_owned(),
                    runtime_id: format!("{name}0123456789"),
                    attributes: vec![("pod-name".to_owned(), "shop".to_owned())],
                    ..Container::default()
                },
                process: DeadProcess { pid: 4711, comm: "app".to_owned(), ..Default::default() },
                status: WaitStatus::from_raw(raw_status),
                evidence: vec![
                    signal(15, 30_000_000_000, Disposition::UnkillableInit),
                    signal(9, 400_000, Disposition::Default),
                ],
                decided_by: Some(1),
                unseen: vec![Unseen::Pressure],
                losses: Losses::default(),
            },
            explanation: Explanation::Explained(Answer {
                explainer: "death-explainer".to_owned(),
                verdict: "grace-exceeded-no-handler".to_owned(),
                headline: format!("Container {name} was killed 30.0 s after SIGTERM"),
                explanation: "It has no handler.".to_owned(),
                confidence: 98,
                rests_on: vec![0, 1],
                missing: vec!["more".to_owned()],
                advice: vec!["Handle SIGTERM.".to_owned()],
            }),
        }
    }

    fn question(container: Option<&str>) -> Question {
        let container = container.map(str::to_owned);
        Question { container, last: 5, all: false, format: StoryFormat::Text }
    }

    fn told(deaths: &[ExplainedDeath], question: &Question) -> String {
        answer(deaths, question, Path::new("/state")).unwrap()
    }

    const TIME: u64 = 1_768_471_200_000_000_000;

    #[test]
    fn a_death_is_told_with_its_timeline_and_what_to_do() {
        let text = told(&[death("web", TIME, Subject::Container, 9)], &question(None));
        let expected = "\
2026-01-15T10:00:00Z  container web  grace-exceeded-no-handler, 98 % sure
Container web was killed 30.0 s after SIGTERM
  It has no handler.

  * t-30.0 s   SIGTERM from runc (pid 812) < containerd-shim: no effect, the first process of a container has no handler for it
  * t-0.4 ms   SIGKILL from runc (pid 812) < containerd-shim
    t          app (pid 4711) was ended by SIGKILL (exit code 137 to a runtime)
    (* what the verdict rests on)

  what to do
    - Handle SIGTERM.
  what would have made it surer
    - more
  what was not seen: pressure
";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_newest_come_first_and_only_so_many() {
        let deaths: Vec<_> =
            (0..9).map(|n| death(&format!("c{n}"), TIME + n, Subject::Container, 9)).collect();
        let json = Question { last: 2, format: StoryFormat::Json, ..question(None) };
        let list: Vec<ExplainedDeath> = serde_json::from_str(&told(&deaths, &json)).unwrap();
        let names: Vec<_> = list.iter().map(|it| it.death.container.name.as_str()).collect();
        assert_eq!(names, ["c8", "c7"]);
        assert_eq!(list[0], deaths[8]);
    }

    #[test]
    fn a_container_is_found_by_its_name_its_id_and_its_pod() {
        let deaths = [
            death("web", TIME, Subject::Container, 9),
            death("database", TIME, Subject::Container, 9),
        ];
        for (asked, count) in [("web", 1), ("web0123", 1), ("shop", 2)] {
            let text = told(&deaths, &question(Some(asked)));
            assert_eq!(text.matches("% sure").count(), count, "{asked}");
        }
        let refused = answer(&deaths, &question(Some("we")), Path::new("/")).unwrap_err();
        let expected = "no death of `we` is known; there are deaths of database, web";
        assert_eq!(refused.to_string(), expected);
    }

    #[test]
    fn processes_that_ended_by_themselves_are_told_if_everything_is_asked_for() {
        let mut along = death("a", TIME, Subject::Process, 9);
        if let Explanation::Explained(answer) = &mut along.explanation {
            answer.verdict = "init-died".to_owned();
        }
        let deaths = [
            death("exited", TIME, Subject::Process, 0x100),
            death("killed", TIME, Subject::Process, 9),
            along,
        ];
        let text = told(&deaths, &question(None));
        assert_eq!(text.matches("% sure").count(), 1, "{text}");
        assert!(text.contains("process app (pid 4711) of killed"), "{text}");
        let all = Question { all: true, ..question(None) };
        assert_eq!(told(&deaths, &all).matches("% sure").count(), 3);
    }

    #[test]
    fn a_death_without_an_explanation_gets_no_verdict() {
        let mut unexplained = death("web", TIME, Subject::Container, 9);
        let reason = "no explainer answered: there is none".to_owned();
        unexplained.explanation = Explanation::Unexplained { reason };
        let text = told(&[unexplained], &question(None));
        assert!(text.starts_with("2026-01-15T10:00:00Z  container web  no verdict\n"), "{text}");
        assert!(text.contains("no explainer answered: there is none"), "{text}");
        assert!(!text.contains('*'), "{text}");
    }

    #[test]
    fn without_a_death_it_says_where_it_looked() {
        assert!(told(&[], &question(None)).contains("/state"));
        let refused = answer(&[], &question(Some("web")), Path::new("/")).unwrap_err();
        assert!(refused.to_string().ends_with("the history is empty"));
    }
}
