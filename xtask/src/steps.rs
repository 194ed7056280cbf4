//! Steps that run one after the other, each to its end, whatever became of the ones before.
//!
//! Shows what each step writes while it runs, how long it took, and sums up what it counted.

use std::fmt::Display;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::tally::Tally;

/// A sentence about the repository, and what speaks against it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// What should hold.
    pub(crate) name: &'static str,
    /// Where it does not. Empty if it holds.
    pub(crate) problems: Vec<String>,
}

/// The steps that were run so far.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    tally: Tally,
    done: Vec<Done>,
}

#[derive(Debug)]
struct Done {
    name: String,
    tally: Tally,
    took: Duration,
}

impl Steps {
    /// Runs a command that is one check: it passes with status 0.
    pub(crate) fn check(&mut self, name: &str, command: &mut Command) -> bool {
        self.step(name, || Tally::of_check(run(command, |_| ())));
        self.all_passed_in_last()
    }

    /// Runs a command that runs tests and says how many. One that fails and counted no failure (a test
    /// that does not compile, a runner that died) is a failure by itself.
    pub(crate) fn tests(&mut self, name: &str, command: &mut Command) -> bool {
        self.step(name, || {
            let mut tally = Tally::default();
            let succeeded = run(command, |line| {
                if let Some(counted) = Tally::of_line(line) {
                    tally += counted;
                }
            });
            if !succeeded && tally.failed == 0 {
                tally += Tally::of_check(false);
            }
            tally
        });
        self.all_passed_in_last()
    }

    /// Runs something that is one check and says itself what is wrong.
    pub(crate) fn own_check<T, E: Display>(
        &mut self,
        name: &str,
        check: impl FnOnce() -> Result<T, E>,
    ) -> Option<T> {
        let mut value = None;
        self.step(name, || match check() {
            Ok(checked) => {
                value = Some(checked);
                Tally::of_check(true)
            }
            Err(error) => {
                println!("error: {error}");
                Tally::of_check(false)
            }
        });
        value
    }

    /// Runs something that counts for itself. One that comes to no count is a failure.
    pub(crate) fn counted<E: Display>(
        &mut self,
        name: &str,
        count: impl FnOnce() -> Result<Tally, E>,
    ) -> bool {
        self.step(name, || {
            count().unwrap_or_else(|error| {
                println!("error: {error}");
                Tally::of_check(false)
            })
        });
        self.all_passed_in_last()
    }

    /// Checks claims, each of which counts.
    pub(crate) fn claims(&mut self, name: &str, check: impl FnOnce() -> Vec<Claim>) {
        self.step(name, || {
            let mut tally = Tally::default();
            for claim in check() {
                let holds = claim.problems.is_empty();
                println!("{} ... {}", claim.name, if holds { "ok" } else { "FAILED" });
                for problem in &claim.problems {
                    println!("    {problem}");
                }
                tally += Tally::of_check(holds);
            }
            tally
        });
    }

    /// Counts a check that cannot be tried here, and says why.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        self.step(name, || {
            println!("skipped: {reason}");
            Tally::SKIPPED
        });
    }

    /// Prints what each step counted and how long it took, then the sum alone on the last line.
    /// Returns whether nothing failed.
    pub(crate) fn finish(self) -> bool {
        println!();
        for Done { name, tally, took } in &self.done {
            println!("{:>8.1} s  {name}: {tally}", took.as_secs_f64());
        }
        println!("{}", self.tally);
        self.tally.failed == 0
    }

    fn step(&mut self, name: &str, run: impl FnOnce() -> Tally) {
        println!("\n== {name}");
        let start = Instant::now();
        let tally = run();
        let took = start.elapsed();
        println!("== {name}: {tally}, {:.1} s", took.as_secs_f64());
        self.tally += tally;
        self.done.push(Done { name: name.to_owned(), tally, took });
    }

    fn all_passed_in_last(&self) -> bool {
        self.done.last().is_some_and(|done| done.tally.failed == 0)
    }
}

/// Runs a command to its end, passes its output on line by line, and returns whether it succeeded.
fn run(command: &mut Command, mut each_line: impl FnMut(&str)) -> bool {
    let mut child = match command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(cause) => {
            println!("error: {} cannot be started: {cause}", command.get_program().display());
            return false;
        }
    };
    let mut lines = child.stdout.take().map(BufReader::new);
    let mut line = Vec::new();
    while let Some(reader) = &mut lines {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                let line = String::from_utf8_lossy(&line);
                print!("{line}");
                each_line(&line);
            }
        }
    }
    child.wait().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn every_step_is_summed_also_after_a_failure() {
        let mut steps = Steps::default();
        assert!(!steps.check("fails", &mut shell("exit 1")));
        assert!(steps.check("passes", &mut shell("exit 0")));
        let results = "echo 'test result: ok. 2 passed; 0 failed; 1 ignored';
                       echo 'test result: ok. 3 passed; 0 failed; 0 ignored'";
        assert!(steps.tests("tests", &mut shell(results)));
        steps.skip("skipped", "there is no reason in a test");
        assert_eq!(steps.tally, Tally { passed: 6, failed: 1, skipped: 2 });
        assert!(!steps.finish());
    }

    #[test]
    fn a_runner_that_dies_is_a_failure_even_if_it_counted_none() {
        let mut steps = Steps::default();
        let dies = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; exit 101";
        assert!(!steps.tests("dies", &mut shell(dies)));
        assert_eq!(steps.tally, Tally { passed: 2, failed: 1, skipped: 0 });
    }

    #[test]
    fn a_counted_failure_is_counted_once() {
        let mut steps = Steps::default();
        let fails = "echo 'test result: FAILED. 2 passed; 3 failed; 0 ignored'; exit 101";
        steps.tests("fails", &mut shell(fails));
        assert_eq!(steps.tally, Tally { passed: 2, failed: 3, skipped: 0 });
    }

    #[test]
    fn a_program_that_is_not_there_is_a_failure() {
        let mut steps = Steps::default();
        assert!(!steps.check("nowhere", &mut Command::new("/nowhere/program")));
        assert_eq!(steps.tally, Tally { passed: 0, failed: 1, skipped: 0 });
    }

    #[test]
    fn what_comes_to_no_count_is_a_failure() {
        let mut steps = Steps::default();
        let three = Tally { passed: 3, failed: 0, skipped: 0 };
        assert!(steps.counted("counts", || Ok::<_, &str>(three)));
        assert!(!steps.counted("does not", || Err("no count")));
        assert_eq!(steps.tally, Tally { passed: 3, failed: 1, skipped: 0 });
    }

    #[test]
    fn each_claim_counts() {
        let mut steps = Steps::default();
        steps.claims("claims", || {
            vec![
                Claim { name: "holds", problems: vec![] },
                Claim { name: "does not", problems: vec!["here".into(), "and here".into()] },
            ]
        });
        assert_eq!(steps.tally, Tally { passed: 1, failed: 1, skipped: 0 });
    }
}
