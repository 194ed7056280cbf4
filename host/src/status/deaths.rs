//! The newest deaths and how many there were, for whoever asks: the status, the metrics, the API, the page.
//!
//! Owns a bounded list of what the explainers' thread hands over. The history on disk holds more, and is `whodunit why`'s.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::document::Moment;
use crate::death::explanation::{ExplainedDeath, Explanation};
use crate::death::record::{Subject, WaitStatus};
use crate::event::UnixNanos;

/// Deaths that are told with all their evidence.
const NEWEST: usize = 256;
/// Containers whose deaths are counted on their own. Those that died longest ago make room.
const CONTAINERS: usize = 4_096;
/// What stands for a verdict where no explainer answered.
const UNEXPLAINED: &str = "unexplained";

/// Numbers of deaths by their verdicts.
pub type ByVerdict = BTreeMap<String, u64>;

/// The deaths of this run of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeathsStatus {
    /// Containers that died since the daemon started, by verdict.
    pub containers: ByVerdict,
    /// Processes inside of containers that failed or were killed since the daemon started, by verdict.
    pub processes: ByVerdict,
    /// The newest death, also one of before the daemon.
    pub newest: Option<DeathSummary>,
}

/// A death in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeathSummary {
    /// By which the API has the whole record.
    pub id: String,
    /// When.
    pub at: Moment,
    /// What died: a `container`, or a `process` in one.
    pub subject: String,
    /// Name of the container.
    pub container: String,
    /// The runtime's id of it.
    pub runtime_id: String,
    /// The process: its id in the initial pid namespace.
    pub pid: u32,
    /// Its name.
    pub process: String,
    /// How it ended, such as `exit code 3` or `signal 9`.
    pub ended: String,
    /// What an explainer makes of it. None where none answered.
    pub verdict: Option<String>,
    /// How sure that is, in percent.
    pub confidence: Option<u8>,
    /// One line about it.
    pub headline: String,
    /// A few sentences in plain words.
    pub explanation: String,
    /// What to do.
    pub advice: Vec<String>,
}

/// The newest deaths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeathsAnswer {
    /// The newest first.
    pub deaths: Vec<DeathSummary>,
}

/// A death with its evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeathAnswer {
    /// What the list says of it.
    pub summary: DeathSummary,
    /// The record, as in the history and in the lines of JSON.
    pub death: Value,
    /// What was made of it, likewise.
    pub explanation: Value,
}

fn id_of(death: &ExplainedDeath) -> String {
    format!("{}-{}", death.death.time_ns, death.death.process.pid)
}

impl From<&ExplainedDeath> for DeathSummary {
    fn from(explained: &ExplainedDeath) -> DeathSummary {
        let death = &explained.death;
        let (verdict, confidence, headline, explanation, advice) = match &explained.explanation {
            Explanation::Explained(answer) => (
                Some(answer.verdict.clone()),
                Some(answer.confidence),
                answer.headline.clone(),
                answer.explanation.clone(),
                answer.advice.clone(),
            ),
            Explanation::Unexplained { reason } => {
                (None, None, reason.clone(), String::new(), Vec::new())
            }
        };
        DeathSummary {
            id: id_of(explained),
            at: Moment(UnixNanos(death.time_ns)),
            subject: match death.subject {
                Subject::Container => "container".to_owned(),
                Subject::Process => "process".to_owned(),
            },
            container: death.container.name.clone(),
            runtime_id: death.container.runtime_id.clone(),
            pid: death.process.pid,
            process: death.process.comm.clone(),
            ended: match death.status {
                WaitStatus::Exited { code } => format!("exit code {code}"),
                WaitStatus::Killed { signal, .. } => format!("signal {signal}"),
            },
            verdict,
            confidence,
            headline,
            explanation,
            advice,
        }
    }
}

/// The list, which the explainers' thread writes and everybody reads.
#[derive(Default)]
pub struct Ledger(Mutex<Pages>);

#[derive(Default)]
struct Pages {
    /// The oldest first.
    newest: VecDeque<Arc<ExplainedDeath>>,
    containers: ByVerdict,
    processes: ByVerdict,
    of_containers: HashMap<u32, ByVerdict>,
    /// Those of the map, in the order of their first deaths.
    order: VecDeque<u32>,
}

impl Ledger {
    /// Takes deaths of before this run, the oldest first. They are told and not counted.
    pub fn recall(&self, deaths: Vec<ExplainedDeath>) {
        let mut pages = self.lock();
        deaths.into_iter().for_each(|death| pages.keep(death));
    }

    /// Takes a death.
    pub fn add(&self, death: &ExplainedDeath) {
        let verdict = match &death.explanation {
            Explanation::Explained(answer) => answer.verdict.as_str(),
            Explanation::Unexplained { .. } => UNEXPLAINED,
        };
        let mut pages = self.lock();
        let of_all = match death.death.subject {
            Subject::Container => &mut pages.containers,
            Subject::Process => &mut pages.processes,
        };
        *of_all.entry(verdict.to_owned()).or_default() += 1;
        *pages.of(death.death.container.id).entry(verdict.to_owned()).or_default() += 1;
        pages.keep(death.clone());
    }

    /// How many there were, and the newest.
    pub fn status(&self) -> DeathsStatus {
        let pages = self.lock();
        DeathsStatus {
            containers: pages.containers.clone(),
            processes: pages.processes.clone(),
            newest: pages.newest.back().map(|death| DeathSummary::from(&**death)),
        }
    }

    /// The deaths in a container, by its number in this run.
    pub fn of_container(&self, container: u32) -> ByVerdict {
        self.lock().of_containers.get(&container).cloned().unwrap_or_default()
    }

    /// The newest deaths, the newest first.
    pub fn list(&self) -> DeathsAnswer {
        let deaths: Vec<_> = self.lock().newest.iter().rev().cloned().collect();
        DeathsAnswer { deaths: deaths.iter().map(|death| DeathSummary::from(&**death)).collect() }
    }

    /// One of them.
    pub fn find(&self, id: &str) -> Option<DeathAnswer> {
        let found = self.lock().newest.iter().rev().find(|death| id_of(death) == id).cloned()?;
        Some(DeathAnswer {
            summary: DeathSummary::from(&*found),
            death: serde_json::to_value(&found.death).ok()?,
            explanation: serde_json::to_value(&found.explanation).ok()?,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn keep(&mut self, death: ExplainedDeath) {
        if self.newest.len() >= NEWEST {
            self.newest.pop_front();
        }
        self.newest.push_back(Arc::new(death));
    }

    fn of(&mut self, container: u32) -> &mut ByVerdict {
        if !self.of_containers.contains_key(&container) {
            if self.order.len() >= CONTAINERS
                && let Some(oldest) = self.order.pop_front()
            {
                self.of_containers.remove(&oldest);
            }
            self.order.push_back(container);
        }
        self.of_containers.entry(container).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::death::record::tests::record as sample;

    fn death(number: u64, subject: Subject) -> ExplainedDeath {
        let mut death = sample();
        (death.time_ns, death.subject) = (number, subject);
        let explanation = Explanation::Unexplained { reason: "nobody asked".to_owned() };
        ExplainedDeath { death, explanation }
    }

    #[test]
    fn the_newest_are_told_and_all_are_counted() {
        let ledger = Ledger::default();
        ledger.recall(vec![death(1, Subject::Container)]);
        assert_eq!(ledger.status().containers, ByVerdict::new());
        let newest = ledger.status().newest.unwrap();
        assert_eq!(ledger.find(&newest.id).unwrap().summary, newest);
        for number in 0..NEWEST as u64 + 10 {
            ledger.add(&death(100 + number, Subject::Process));
        }
        let counts = ByVerdict::from([(UNEXPLAINED.to_owned(), NEWEST as u64 + 10)]);
        assert_eq!(ledger.status().processes, counts);
        assert_eq!(ledger.of_container(sample().container.id), counts);
        let told = ledger.list().deaths;
        assert_eq!(told.len(), NEWEST);
        assert!(told.is_sorted_by(|one, next| one.at > next.at));
        assert_eq!(ledger.find(&newest.id), None);
    }
}
