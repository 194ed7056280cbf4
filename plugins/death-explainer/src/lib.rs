//! Explains in plain words why a process or a container died.
//!
//! Takes the facts of a death (`case`), asks the rules (`rules`) in their order, and fills the words of the first verdict that one
//! of them finds (`verdict` has the table, and `docs/verdicts.md` is made from it). Never guesses: where the evidence does not tell,
//! the verdict is `unknown`, with the reason; where evidence was lost, confidence falls.

mod case;
mod finding;
mod rules;
mod verdict;
mod words;

use whodunit_sdk::{Context, Death, Explainer, Explanation, NoConfig};

pub use verdict::{VERDICTS, Verdict};

/// The explainer.
#[derive(Debug)]
pub struct DeathExplainer;

impl Explainer for DeathExplainer {
    type Config = NoConfig;

    fn start(_: &Context, _: NoConfig) -> Result<DeathExplainer, String> {
        Ok(DeathExplainer)
    }

    fn explain(&mut self, death: &Death) -> Result<Explanation, String> {
        let case = case::Case::new(death);
        Ok(rules::decide(&case).explanation(&case))
    }
}

#[cfg(feature = "component")]
whodunit_sdk::export_explainer!(DeathExplainer);
