//! Values with a unit or a vocabulary: how their text is read and written.
//!
//! Takes text as it stands in the TOML, in the environment or behind a flag, and gives a value or a
//! `Mismatch` that says what was expected. Pure: knows no file, no key and no span.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Text that is not what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// What was expected, to stand behind the word `expected`.
    pub(crate) expected: String,
    /// What was probably meant, as it would stand in the TOML.
    pub(crate) meant: Option<String>,
}

impl Mismatch {
    pub(crate) fn expected(expected: impl Into<String>) -> Mismatch {
        Mismatch { expected: expected.into(), meant: None }
    }
}

/// The units of durations, the largest first, with their milliseconds.
const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The units of sizes, the largest first, with their bytes.
const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// What people write for a unit that is written otherwise here.
const UNIT_ALIASES: [(&str, &str); 24] = [
    ("millis", "ms"),
    ("msec", "ms"),
    ("sec", "s"),
    ("secs", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("min", "m"),
    ("mins", "m"),
    ("minute", "m"),
    ("minutes", "m"),
    ("hr", "h"),
    ("hour", "h"),
    ("hours", "h"),
    ("b", "B"),
    ("bytes", "B"),
    ("k", "KiB"),
    ("kb", "KiB"),
    ("kib", "KiB"),
    ("m", "MiB"),
    ("mb", "MiB"),
    ("mib", "MiB"),
    ("g", "GiB"),
    ("gb", "GiB"),
    ("gib", "GiB"),
];

/// What an address to listen at is.
pub(crate) fn expected_address() -> String {
    String::from("an address and a port such as \"127.0.0.1:9479\", or a port such as \"9479\"")
}

/// Reads an address to listen at. A port alone is one of loopback.
pub(crate) fn read_address(text: &str) -> Result<SocketAddr, Mismatch> {
    if let Ok(port) = text.parse() {
        return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    }
    text.parse().map_err(|_| Mismatch {
        expected: expected_address(),
        meant: text
            .strip_prefix(':')
            .or(text.strip_prefix("localhost:"))
            .or(text.strip_prefix("*:"))
            .filter(|port| port.parse::<u16>().is_ok())
            .map(|port| match text.starts_with('l') {
                true => quoted(port),
                false => quoted(&format!("0.0.0.0:{port}")),
            }),
    })
}

/// A duration in its largest unit that needs no fraction, such as `90s`.
pub(crate) fn duration_text(duration: Duration) -> String {
    text_with_unit(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATION_UNITS)
}

/// A size in its largest unit that needs no fraction, such as `16MiB`.
pub(crate) fn size_text(bytes: u64) -> String {
    text_with_unit(bytes, &SIZE_UNITS)
}

/// Reads a duration such as `30s`.
pub(crate) fn read_duration(
    text: &str,
    least: Duration,
    most: Duration,
) -> Result<Duration, Mismatch> {
    let expected = expected_duration(least, most);
    let milliseconds = read_with_unit(text, &DURATION_UNITS, "s")
        .map_err(|meant| Mismatch { expected: expected.clone(), meant })?;
    let duration = Duration::from_millis(milliseconds);
    if duration < least || duration > most {
        return Err(Mismatch::expected(expected));
    }
    Ok(duration)
}

/// Reads a size such as `16MiB`.
pub(crate) fn read_size(
    text: &str,
    least: u64,
    most: u64,
    power_of_two: bool,
) -> Result<u64, Mismatch> {
    let expected = expected_size(least, most, power_of_two);
    let bytes = read_with_unit(text, &SIZE_UNITS, "B")
        .map_err(|meant| Mismatch { expected: expected.clone(), meant })?;
    if bytes < least || bytes > most {
        return Err(Mismatch::expected(expected));
    }
    if power_of_two && !bytes.is_power_of_two() {
        let above = bytes.checked_next_power_of_two().filter(|above| *above <= most);
        return Err(Mismatch { expected, meant: above.map(|above| quoted(&size_text(above))) });
    }
    Ok(bytes)
}

/// Reads one of the words of a vocabulary.
pub(crate) fn read_word(text: &str, words: &[&'static str]) -> Result<&'static str, Mismatch> {
    if let Some(word) = words.iter().find(|word| **word == text) {
        return Ok(word);
    }
    Err(Mismatch {
        expected: expected_word(words),
        meant: nearest(text, words.iter().copied()).map(quoted),
    })
}

pub(crate) fn expected_duration(least: Duration, most: Duration) -> String {
    format!("a duration from {} to {}", quoted(&duration_text(least)), quoted(&duration_text(most)))
}

pub(crate) fn expected_size(least: u64, most: u64, power_of_two: bool) -> String {
    let kind = if power_of_two { "a size that is a power of two," } else { "a size" };
    format!("{kind} from {} to {}", quoted(&size_text(least)), quoted(&size_text(most)))
}

pub(crate) fn expected_word(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// The candidate that a misspelt word probably stands for.
///
/// A transposed pair of letters counts as one mistake, upper case as none, and a third of the word may
/// be mistaken: what is farther away is another word. A longer or shorter form of a word (`warning`
/// for `warn`) is near whatever its length. Of two that are as near, the one with the longer common
/// start is meant.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_lowercase();
    let length = word.chars().count();
    let at_most = (length / 3).clamp(1, 3);
    let is_near = |candidate: &str, distance: usize| {
        let is_form = candidate.len().min(word.len()) >= 3
            && (candidate.starts_with(&word) || word.starts_with(candidate));
        is_form || (distance <= at_most && distance < length)
    };
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| is_near(candidate, *distance))
        .min_by(|(one, first), (other, second)| {
            let likeness = |candidate| strsim::jaro_winkler(&word, candidate);
            one.cmp(other).then(likeness(second).total_cmp(&likeness(first)))
        })
        .map(|(_, candidate)| candidate)
}

/// Text as a TOML string, with what cannot be shown escaped.
pub(crate) fn quoted(text: &str) -> String {
    let escaped: String = text
        .chars()
        .flat_map(|c| if c == '\'' { vec![c] } else { c.escape_debug().collect() })
        .collect();
    format!("\"{escaped}\"")
}

fn text_with_unit(number: u64, units: &[(&str, u64)]) -> String {
    let fitting =
        units.iter().find(|(_, factor)| number >= *factor && number.is_multiple_of(*factor));
    let (unit, factor) = fitting.or(units.last()).expect("every list of units has one");
    format!("{}{unit}", number / factor)
}

/// Reads digits and a unit. An error is what was probably meant, as a TOML string.
fn read_with_unit(
    text: &str,
    units: &[(&str, u64)],
    usual_unit: &str,
) -> Result<u64, Option<String>> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let Ok(number) = digits.parse::<u64>() else {
        return Err(None);
    };
    if let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) {
        return number.checked_mul(*factor).ok_or(None);
    }
    let spoken = unit.trim().to_lowercase();
    let known = |name: &str| units.iter().any(|(unit, _)| *unit == name);
    let meant = if spoken.is_empty() {
        Some(usual_unit)
    } else if known(&spoken) {
        units.iter().map(|(name, _)| *name).find(|name| *name == spoken)
    } else {
        let aliases = UNIT_ALIASES.iter().filter(|(alias, _)| *alias == spoken);
        aliases.map(|(_, unit)| *unit).find(|unit| known(unit))
    };
    Err(meant.map(|unit| quoted(&format!("{number}{unit}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);

    fn meant(result: Result<impl std::fmt::Debug, Mismatch>) -> Option<String> {
        result.expect_err("the text is wrong").meant
    }

    #[test]
    fn durations_are_read_in_every_unit() {
        for (text, milliseconds) in
            [("1s", 1_000), ("1500ms", 1_500), ("2m", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(
                read_duration(text, SECOND, HOUR),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn a_duration_and_a_size_are_written_in_the_largest_unit_without_a_fraction() {
        for (milliseconds, text) in
            [(0, "0ms"), (999, "999ms"), (1_000, "1s"), (90_000, "90s"), (86_400_000, "24h")]
        {
            assert_eq!(duration_text(Duration::from_millis(milliseconds)), text);
        }
        for (bytes, text) in
            [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (16 << 20, "16MiB"), (3 << 29, "1536MiB")]
        {
            assert_eq!(size_text(bytes), text);
        }
    }

    #[test]
    fn the_limits_of_a_range_belong_to_it() {
        assert!(read_duration("1s", SECOND, HOUR).is_ok());
        assert!(read_duration("60m", SECOND, HOUR).is_ok());
        assert!(read_duration("999ms", SECOND, HOUR).is_err());
        assert!(read_duration("3601s", SECOND, HOUR).is_err());
        assert!(read_size("64KiB", 1 << 16, 1 << 20, true).is_ok());
        assert!(read_size("1MiB", 1 << 16, 1 << 20, true).is_ok());
        assert!(read_size("32KiB", 1 << 16, 1 << 20, true).is_err());
        assert!(read_size("2MiB", 1 << 16, 1 << 20, true).is_err());
    }

    #[test]
    fn a_number_too_large_for_its_unit_is_refused_and_never_wraps() {
        assert!(read_duration("18446744073709551615h", SECOND, HOUR).is_err());
        assert!(read_size("99999999999999999999999GiB", 0, u64::MAX, false).is_err());
    }

    #[test]
    fn a_unit_of_another_dialect_is_recognised() {
        for (text, suggestion) in [
            ("30", Some("\"30s\"")),
            ("30 s", Some("\"30s\"")),
            ("30S", Some("\"30s\"")),
            ("30sec", Some("\"30s\"")),
            ("5 minutes", Some("\"5m\"")),
            ("30MiB", None),
            ("fast", None),
            ("", None),
            ("-1s", None),
        ] {
            assert_eq!(meant(read_duration(text, SECOND, HOUR)).as_deref(), suggestion, "{text}");
        }
        for (text, suggestion) in [
            ("16M", Some("\"16MiB\"")),
            ("16mb", Some("\"16MiB\"")),
            ("16 MiB", Some("\"16MiB\"")),
            ("1048576", Some("\"1048576B\"")),
            ("20MiB", Some("\"32MiB\"")),
            ("30s", None),
        ] {
            assert_eq!(meant(read_size(text, 1, 1 << 30, true)).as_deref(), suggestion, "{text}");
        }
    }

    #[test]
    fn a_misspelt_word_finds_its_neighbour_and_another_word_finds_none() {
        assert_eq!(nearest("nod", ["pod", "node"]), Some("node"));
        let words = ["interval", "state_dir", "cache_dir"];
        for (word, expected) in [
            ("intervall", Some("interval")),
            ("inetrval", Some("interval")),
            ("state-dir", Some("state_dir")),
            ("STATE_DIR", Some("state_dir")),
            ("state", Some("state_dir")),
            ("intervals_of_time", Some("interval")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, words), expected, "{word}");
        }
    }

    #[test]
    fn a_port_alone_is_one_of_loopback() {
        let check = |text: &str, expected: Result<&str, Option<&str>>| {
            let found = read_address(text);
            let found = found.map(|it| it.to_string()).map_err(|mismatch| mismatch.meant);
            let expected = expected.map(str::to_owned).map_err(|meant| meant.map(quoted));
            assert_eq!(found, expected, "{text}");
        };
        check("9479", Ok("127.0.0.1:9479"));
        check("0.0.0.0:9479", Ok("0.0.0.0:9479"));
        check("[::1]:80", Ok("[::1]:80"));
        check(":9479", Err(Some("0.0.0.0:9479")));
        check("localhost:9479", Err(Some("9479")));
        check("99999", Err(None));
        check("example.org:80", Err(None));
    }
}
