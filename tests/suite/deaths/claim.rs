//! What a trial about deaths claims: the verdicts that it sees given, each of which must be one of the explainer's table.

use std::cell::RefCell;
use std::collections::BTreeSet;

use libtest_mimic::{Failed, Trial};

use super::program;
use crate::report::expect_eq;
use crate::{Outcome, machine, needing};

/// The page with the table of verdicts, which a test of the explainer makes from the table itself.
const PAGE: &str = include_str!("../../../docs/verdicts.md");

thread_local! {
    /// The verdicts that this thread's trial saw given.
    static GIVEN: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// Notes that a verdict was looked for. The trial fails unless it was given.
pub(super) fn given(verdict: &str) {
    GIVEN.with_borrow_mut(|given| given.insert(verdict.to_owned()));
}

/// A trial about deaths, and the verdicts that it sees given.
pub(super) struct Claim {
    name: &'static str,
    verdicts: &'static [&'static str],
    lacks: fn() -> Option<&'static str>,
    test: fn() -> Outcome,
}

impl Claim {
    /// The machine must be able to capture, and to make the program that dies.
    pub(super) fn new(
        name: &'static str,
        verdicts: &'static [&'static str],
        test: fn() -> Outcome,
    ) -> Claim {
        Claim { name, verdicts, lacks: || None, test }
    }

    /// What else the machine must have.
    pub(super) fn needing(self, lacks: fn() -> Option<&'static str>) -> Claim {
        Claim { lacks, ..self }
    }

    pub(super) fn trial(self) -> Trial {
        let Claim { name, verdicts, lacks, test } = self;
        let lacking = move || machine::lacks_for_capture().or_else(lacks_for_dying).or_else(lacks);
        needing(name, lacking, move || {
            GIVEN.take();
            test()?;
            let claimed: BTreeSet<String> = verdicts.iter().map(|id| (*id).to_owned()).collect();
            expect_eq("verdicts that were looked for", &GIVEN.take(), &claimed)
        })
    }
}

fn lacks_for_dying() -> Option<&'static str> {
    program().as_ref().err().map(String::as_str)
}

/// The claim that each verdict of the table is seen given by some trial.
pub(super) fn about_the_table(claims: &[Claim]) -> Trial {
    let given: BTreeSet<&str> = claims.iter().flat_map(|claim| claim.verdicts).copied().collect();
    Trial::test("verdicts::each_of_the_table_is_seen_given_by_a_trial", move || table(&given))
}

fn table(given: &BTreeSet<&'static str>) -> Outcome {
    let row = |line: &'static str| line.strip_prefix("| `")?.split('`').next();
    let known: BTreeSet<&str> = PAGE.lines().filter_map(row).collect();
    let none: Vec<&str> = Vec::new();
    let check = |what: &str, found: Vec<&str>| expect_eq(what, &found, &none);
    check("verdicts without a trial", known.difference(given).copied().collect())?;
    check("verdicts that there are not", given.difference(&known).copied().collect())?;
    if known.len() < 2 {
        return Err(Failed::from("docs/verdicts.md has no table of verdicts"));
    }
    Ok(())
}
