//! What passed, failed and was skipped, summed over everything that reports in its own way.

use std::fmt;
use std::ops::AddAssign;

/// Counts of checks and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// What held.
    pub(crate) passed: u64,
    /// What did not hold.
    pub(crate) failed: u64,
    /// What could not be tried here.
    pub(crate) skipped: u64,
}

impl Tally {
    /// One check that held or did not.
    pub(crate) fn of_check(passed: bool) -> Tally {
        Tally { passed: u64::from(passed), failed: u64::from(!passed), skipped: 0 }
    }

    /// One check that could not be tried.
    pub(crate) const SKIPPED: Tally = Tally { passed: 0, failed: 0, skipped: 1 };

    /// What a line of a test runner's output sums up, if it is the closing line of one:
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
    pub(crate) fn of_line(line: &str) -> Option<Tally> {
        let counts = line.trim().strip_prefix("test result: ")?.split_once(". ")?.1;
        let mut tally = Tally::default();
        for count in counts.split("; ") {
            let (number, what) = count.split_once(' ')?;
            let into = match what {
                "passed" => &mut tally.passed,
                "failed" => &mut tally.failed,
                "ignored" => &mut tally.skipped,
                _ => continue,
            };
            *into += number.parse::<u64>().ok()?;
        }
        Some(tally)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<(u64, u64, u64)>) {
        let tally = Tally::of_line(line).map(|tally| (tally.passed, tally.failed, tally.skipped));
        assert_eq!(tally, expected, "{line}");
    }

    #[test]
    fn closing_lines_are_counted() {
        check(
            "test result: ok. 11 passed; 0 failed; 2 ignored; 0 measured; 4 filtered out; \
             finished in 0.02s",
            Some((11, 0, 2)),
        );
        check(
            "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
            Some((3, 1, 0)),
        );
        check("test result: ok. 2 passed; 0 failed; 1 ignored\n", Some((2, 0, 1)));
    }

    #[test]
    fn other_lines_are_not() {
        check("test result_is_written ... ok", None);
        check("running 3 tests", None);
        check("the test result: ok. 3 passed", None);
        check("test result: odd", None);
    }

    #[test]
    fn the_last_line_names_all_three() {
        let mut tally = Tally::of_check(true);
        tally += Tally::of_check(false);
        tally += Tally::SKIPPED;
        tally += Tally::of_check(true);
        assert_eq!(tally.to_string(), "2 passed, 1 failed, 1 skipped");
    }
}
