//! Names and numbers as people say them.

/// Name of a signal (`man 7 signal`, x86_64 and aarch64).
pub(crate) fn signal(number: u8) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    match number.checked_sub(1).and_then(|index| NAMES.get(usize::from(index))) {
        Some(name) => format!("SIG{name}"),
        None => format!("signal {number}"),
    }
}

/// A time span with the unit that fits.
pub(crate) fn duration(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        1_000_000_000..120_000_000_000 => format!("{:.1} s", ns as f64 / 1e9),
        120_000_000_000..7_200_000_000_000 => format!("{} min", ns / 60_000_000_000),
        _ => format!("{} h", ns / 3_600_000_000_000),
    }
}

/// A number of bytes with the unit that fits.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64;
    let mut unit = "bytes";
    for next in UNITS {
        if amount < 1024.0 {
            break;
        }
        amount /= 1024.0;
        unit = next;
    }
    if amount.fract() == 0.0 { format!("{amount} {unit}") } else { format!("{amount:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_names_of_the_manual() {
        let names = [(1, "SIGHUP"), (9, "SIGKILL"), (15, "SIGTERM"), (31, "SIGSYS")];
        for (number, name) in names {
            assert_eq!(signal(number), name);
        }
        assert_eq!(signal(0), "signal 0");
        assert_eq!(signal(37), "signal 37");
    }

    #[test]
    fn numbers_have_the_unit_that_fits() {
        assert_eq!(duration(400_000), "0.4 ms");
        assert_eq!(duration(20_000_000), "20 ms");
        assert_eq!(duration(30_000_000_000), "30.0 s");
        assert_eq!(duration(600_000_000_000), "10 min");
        assert_eq!(duration(7_200_000_000_000), "2 h");
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(64 << 20), "64 MiB");
        assert_eq!(bytes(1_500_000), "1.4 MiB");
        assert_eq!(bytes(u64::MAX), "16777216 TiB");
    }
}
