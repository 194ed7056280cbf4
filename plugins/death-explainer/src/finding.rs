//! What a rule found, and the words that are made of it.

use whodunit_sdk::Explanation;

use crate::case::Case;
use crate::verdict::{self, Verdict};

/// What could not be seen, what it costs a verdict that it matters to, and what would have helped.
const UNSEEN: &[(&str, u8, &str)] = &[
    (
        "started-before-daemon",
        10,
        "whodunit running before the process started, so that no earlier signal is missing",
    ),
    (
        "signals-not-watched",
        40,
        "the probe of signals (`whodunit doctor` says why it does not run)",
    ),
    ("signals-lost", 15, "every record of signals: some were lost"),
    ("signals-forgotten", 5, "the oldest signals: only the newest are kept"),
    ("deciding-signal", 40, "the signal that ended the process"),
    ("sender-name", 10, "the name of the sender, who was gone before it was read"),
    ("sender-container", 30, "whose cgroup the sender was in"),
    ("sender-ancestry", 5, "the parents of the sender"),
    ("disposition", 15, "what the process had told the kernel to do with the signal"),
    ("oom-not-watched", 30, "the probe of OOM kills (`whodunit doctor` says why it does not run)"),
    ("oom-scope", 20, "which memory cgroup ran out"),
    ("oom-trigger", 0, "whose allocation it was that ran out of memory"),
    ("memory", 5, "the container's memory at its end"),
    ("cpu", 5, "the container's CPU at its end"),
    ("pids", 0, "the container's number of processes at its end"),
    ("pressure", 0, "the pressure that the container was under"),
    ("throttling", 10, "how long the container was throttled after the signal"),
    ("fault-address", 3, "the address of the fault"),
    ("seccomp-syscall", 5, "the number of the system call"),
    ("resource-limit", 5, "the limit that the process ran into"),
    ("program", 5, "the program that the process executed last"),
    ("ancestry", 0, "the parents of the process"),
    ("container-init", 10, "whether the process was the first of its container"),
];

/// Whatever a verdict about a signal rests on.
pub(crate) const SIGNAL: &[&str] =
    &["signals-lost", "signals-forgotten", "sender-name", "sender-container", "sender-ancestry"];

/// What is lost with records that the rings had no room for.
const LOST_RECORDS: u8 = 15;

/// A verdict with the words for its templates.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) verdict: &'static Verdict,
    confidence: u8,
    rests_on: Vec<u32>,
    words: Vec<(&'static str, String)>,
    sentences: Vec<String>,
    matters: Vec<&'static str>,
}

impl Finding {
    /// A verdict of the table, with its confidence where nothing went unseen.
    pub(crate) fn new(verdict: &'static str, confidence: u8) -> Finding {
        Finding {
            verdict: verdict::by_id(verdict),
            confidence,
            rests_on: Vec::new(),
            words: Vec::new(),
            sentences: Vec::new(),
            matters: Vec::new(),
        }
    }

    /// No verdict, because of that.
    pub(crate) fn unknown(reason: impl Into<String>) -> Finding {
        Finding::new(Explanation::UNKNOWN, 0).word("reason", reason)
    }

    /// The word behind `{name}` in the verdict's templates.
    pub(crate) fn word(mut self, name: &'static str, word: impl Into<String>) -> Finding {
        self.words.push((name, word.into()));
        self
    }

    /// Evidence that the verdict rests on.
    pub(crate) fn rests_on(mut self, index: u32) -> Finding {
        self.rests_on.push(index);
        self
    }

    /// Something more to say.
    pub(crate) fn also(mut self, sentence: impl Into<String>) -> Finding {
        self.sentences.push(sentence.into());
        self
    }

    /// What costs confidence if it went unseen.
    pub(crate) fn matters(mut self, unseen: &[&'static str]) -> Finding {
        self.matters.extend(unseen);
        self
    }

    /// Costs confidence for a reason of the rule's own.
    pub(crate) fn less(mut self, percent: u8) -> Finding {
        self.confidence = self.confidence.saturating_sub(percent);
        self
    }

    /// In words.
    pub(crate) fn explanation(self, case: &Case<'_>) -> Explanation {
        let is_unknown = self.verdict.id == Explanation::UNKNOWN;
        let mut confidence = self.confidence;
        let mut missing = Vec::new();
        for (identifier, costs, what) in UNSEEN {
            let matters = is_unknown || self.matters.contains(identifier);
            if matters && case.is_unseen(identifier) {
                confidence = confidence.saturating_sub(*costs);
                missing.push((*what).to_owned());
            }
        }
        // What a newer daemon could not see and this plugin has no words for.
        let unknown = case.unseen().filter(|it| UNSEEN.iter().all(|(known, ..)| known != it));
        missing.extend(unknown.map(str::to_owned));
        let lost = case.lost_records();
        if lost > 0 {
            confidence = confidence.saturating_sub(LOST_RECORDS);
            missing.push(format!("{lost} records that were lost or pushed out while it lived"));
        }
        let who = case.who();
        let fill = |template: &str| {
            let mut text = template.replace("{who}", &who);
            for (name, word) in &self.words {
                text = text.replace(&format!("{{{name}}}"), word);
            }
            text
        };
        let mut explanation = fill(self.verdict.explanation);
        for sentence in &self.sentences {
            explanation.push(' ');
            explanation.push_str(sentence);
        }
        let mut rests_on = self.rests_on;
        rests_on.sort_unstable();
        rests_on.dedup();
        Explanation {
            verdict: self.verdict.id.to_owned(),
            headline: fill(self.verdict.headline),
            explanation,
            // A verdict that is not `unknown` is one that somebody may act upon.
            confidence: if is_unknown { 0 } else { confidence.max(20) },
            rests_on,
            missing,
            advice: self.verdict.advice.iter().map(|advice| fill(advice)).collect(),
        }
    }
}
