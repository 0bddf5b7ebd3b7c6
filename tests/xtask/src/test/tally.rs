//! Reads what test programs print, in the form that `rustc --test` gave them, and counts.

/// How many passed and failed.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    failures: Vec<String>,
    /// Passed since the last summary: only for the eye.
    since: usize,
}

impl Tally {
    /// Takes a line of output in.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some((passed, failed)) = summary(line) {
            self.passed += passed;
            self.failed += failed;
            self.since = 0;
        } else if line.starts_with("test ") && line.ends_with(" ... ok") {
            self.since += 1;
        } else if let Some(name) = failed_test(line) {
            self.failures.push(name.to_owned());
        }
    }

    /// How many passed so far, those that no summary has counted yet included.
    pub(crate) fn passed_so_far(&self) -> usize {
        self.passed + self.since
    }

    /// A failure that no test program counts.
    pub(crate) fn fail(&mut self, reason: &str) {
        self.failed += 1;
        self.failures.push(reason.to_owned());
    }

    /// What failed, by name.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }
}

/// `test result: ok. 12 passed; 0 failed; 0 ignored; …`
fn summary(line: &str) -> Option<(usize, usize)> {
    let counts = line.trim().strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |name: &str| {
        let part = counts.split(';').find(|part| part.trim().ends_with(name))?;
        part.split_whitespace().next()?.parse().ok()
    };
    Some((count(" passed")?, count(" failed")?))
}

/// `test a::name ... FAILED`
fn failed_test(line: &str) -> Option<&str> {
    let (name, outcome) = line.trim().strip_prefix("test ")?.split_once(" ... ")?;
    outcome.contains("FAILED").then_some(name.trim())
}

/// Decides what of the output a person sees: what failed and why, and not what went well.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    in_failures: bool,
}

impl Screen {
    pub(crate) fn shows(&mut self, line: &str) -> bool {
        if line.trim() == "failures:" {
            self.in_failures = true;
        }
        if summary(line).is_some() {
            // The end of the list of failures.
            return std::mem::take(&mut self.in_failures);
        }
        self.in_failures || failed_test(line).is_some() || line.contains("not run: no KVM")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 3 tests
test a::good ... ok
test a::bad ... FAILED
test a::worse   ... FAILED

failures:

---- a::bad stdout ----
thread panicked: because

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.00s

running 2 tests
..
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn everything_is_counted_over_many_programs() {
        let mut tally = Tally::default();
        OUTPUT.lines().for_each(|line| tally.read(line));
        assert_eq!((tally.passed, tally.failed, tally.passed_so_far()), (3, 2, 3));
        tally.read("test a::new ... ok");
        assert_eq!((tally.passed, tally.passed_so_far()), (3, 4));
        assert_eq!(tally.failures(), ["a::bad", "a::worse"]);
        tally.fail("it did not even start");
        assert_eq!((tally.passed, tally.failed), (3, 3));
    }

    #[test]
    fn failures_are_shown_and_successes_are_not() {
        let mut screen = Screen::default();
        let shown: Vec<&str> = OUTPUT.lines().filter(|line| screen.shows(line)).collect();
        assert!(shown.contains(&"thread panicked: because"), "{shown:?}");
        assert!(shown.contains(&"test a::bad ... FAILED"), "{shown:?}");
        assert!(!shown.iter().any(|line| line.contains("a::good") || line.contains("ok. 2 passed")), "{shown:?}");
    }

    #[test]
    fn lines_that_only_look_like_results_count_nothing() {
        let mut tally = Tally::default();
        for line in ["test result: ", "test result: ok. many passed; 0 failed", "test it ... ok", "testing ... FAILED"]
        {
            tally.read(line);
        }
        assert_eq!((tally.passed, tally.failed, tally.failures().len()), (0, 0, 0));
    }
}
