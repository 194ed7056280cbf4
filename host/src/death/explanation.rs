//! What is made of a death record, and both together as they are stored and handed out.

use serde::{Deserialize, Serialize};

use super::record::DeathRecord;

/// A death with its explanation: one line of the history on disk, and of every sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedDeath {
    /// The facts.
    pub death: DeathRecord,
    /// What was made of them.
    pub explanation: Explanation,
}

/// What was made of a death record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Explanation {
    /// An explainer answered.
    Explained(Answer),
    /// No explainer answered, which is no verdict.
    Unexplained {
        /// Why not, in one sentence.
        reason: String,
    },
}

/// What an explainer said. `explanation` in `wit/roles.wit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Name of the plugin in the TOML.
    pub explainer: String,
    /// A stable identifier, such as `oom-own-limit`. `unknown` is one of them.
    pub verdict: String,
    /// One line for whoever reads a list.
    pub headline: String,
    /// A few sentences in plain words.
    pub explanation: String,
    /// In percent, at most 100.
    pub confidence: u8,
    /// Indices of the evidence that the verdict rests on, each below the number of evidence.
    pub rests_on: Vec<u32>,
    /// What would have been needed to be surer.
    pub missing: Vec<String>,
    /// What to do.
    pub advice: Vec<String>,
}

impl Answer {
    /// The verdict of an explainer that saw the record and cannot say.
    pub const UNKNOWN: &'static str = "unknown";
}
