//! What two versions of an explainer say of the same deaths, and where they differ.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::between::Standing;
use super::compare::{Difference, Differences};
use super::explainers;
use super::instance::{Instance, Loss};
use super::second::{Asked, Asker, Beside};
use super::shadow::Compared;
use crate::death::explanation::Answer;
use crate::death::record::DeathRecord;

/// So many deaths are shown.
const SAMPLES: usize = 10;

/// Deaths that two explainers explained differently.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherExplanations {
    /// Those with another verdict. The others differ in other words, or in what they rest on.
    pub verdict: u64,
    /// The first deaths.
    pub samples: Vec<ExplainedOtherwise>,
}

/// A death that two explainers explained differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedOtherwise {
    /// When, in nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Name of the container.
    pub container: String,
    /// The process in the initial pid namespace.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// The first places where the explanations differ, such as `verdict`.
    pub differences: Vec<Difference>,
    /// How many places there are beside those.
    pub more: u64,
}

/// Asks explainers.
pub(super) struct Explaining;

impl Asker for Explaining {
    type Question = Arc<DeathRecord>;
    type Answer = Answer;
    type Different = OtherExplanations;

    fn ask(
        &mut self,
        instance: &mut Instance,
        death: &Arc<DeathRecord>,
        _untold: u64,
    ) -> Result<Result<Answer, String>, Loss> {
        explainers::explain(instance, death)
    }

    fn compare(
        &self,
        death: &Arc<DeathRecord>,
        running: &Answer,
        shadow: &Answer,
        different: &mut OtherExplanations,
    ) -> u64 {
        let found = Differences::between(&said(running), &said(shadow));
        if found.shown.is_empty() {
            return 1;
        }
        if running.verdict != shadow.verdict {
            different.verdict += 1;
        }
        if different.samples.len() < SAMPLES {
            different.samples.push(ExplainedOtherwise {
                time_ns: death.time_ns,
                container: death.container.name.clone(),
                pid: death.process.pid,
                comm: death.process.comm.clone(),
                differences: found.shown,
                more: found.more,
            });
        }
        0
    }

    fn beside(standing: Standing<'_>) -> Option<&mut Beside<Explaining>> {
        match standing {
            Standing::Explainer(explainer) => Some(&mut explainer.beside),
            Standing::Reporter(_) | Standing::Filter(_) => None,
        }
    }

    fn told(asked: Asked<OtherExplanations>) -> Compared {
        Compared::Explanations(asked)
    }
}

/// An answer as it is compared: whose it is says nothing.
fn said(answer: &Answer) -> Vec<u8> {
    let answer = Answer { explainer: String::new(), ..answer.clone() };
    serde_json::to_vec(&answer).expect("an answer is only texts and numbers")
}
