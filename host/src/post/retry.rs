//! When a body is sent again, and when it is given up.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use jiff::fmt::rfc2822;

/// The pause after the first failure. It doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that is not the server's wish.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What an answer means for the body that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sentence {
    /// It was taken.
    Taken,
    /// It may be taken later.
    Later,
    /// It never will be.
    Never,
}

/// What a status says.
pub(super) fn sentence_of(status: StatusCode) -> Sentence {
    if status.is_success() {
        Sentence::Taken
    } else if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
        Sentence::Later
    } else {
        Sentence::Never
    }
}

/// The pause after so many failures: between half of what doubling gives and the whole of it, so that many daemons do not
/// come back at once.
pub(super) fn pause_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    // The keys of a hasher are the randomness that is always there.
    let chance = RandomState::new().hash_one(failures) % 1_000;
    whole / 2 + whole / 2 * u32::try_from(chance).unwrap_or(0) / 1_000
}

/// What `Retry-After` asks for: a number of seconds, or a date, as RFC 9110 has it.
pub(super) fn asked_for(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    // A date that has passed asks for no pause.
    Some(SystemTime::from(date).duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_succeed_later_is_told_from_what_never_will() {
        let check = |status: u16, expected: Sentence| {
            assert_eq!(sentence_of(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        };
        [200, 202, 204].into_iter().for_each(|status| check(status, Sentence::Taken));
        [429, 500, 502, 503, 504].into_iter().for_each(|status| check(status, Sentence::Later));
        [301, 400, 401, 404, 413].into_iter().for_each(|status| check(status, Sentence::Never));
    }

    #[test]
    fn pauses_grow_to_a_limit_and_none_is_like_the_other() {
        let within = |failures, least: u64, most: u64| {
            let pause = pause_after(failures);
            let range = Duration::from_millis(least)..=Duration::from_millis(most);
            assert!(range.contains(&pause), "{failures}: {pause:?}");
        };
        within(1, 250, 500);
        within(2, 500, 1_000);
        within(4, 2_000, 4_000);
        within(100, 15_000, 30_000);
        let some: std::collections::BTreeSet<_> = (0..50).map(|_| pause_after(20)).collect();
        assert!(some.len() > 5, "{some:?}");
    }

    #[test]
    fn a_wish_for_a_pause_is_a_number_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let check = |value: &str, seconds: Option<u64>| {
            assert_eq!(asked_for(value, now), seconds.map(Duration::from_secs), "{value}");
        };
        check("120", Some(120));
        check(" 0 ", Some(0));
        check("Sun, 06 Nov 1994 08:49:47 GMT", Some(10));
        check("Sun, 06 Nov 1994 08:49:07 GMT", Some(0));
        check("soon", None);
        check("-1", None);
    }
}
