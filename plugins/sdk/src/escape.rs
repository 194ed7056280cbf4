//! Paths as text, and back. A path is bytes; a document is text.
//!
//! A byte that is not part of valid UTF-8 becomes `\xNN` with two lower case hexadecimal digits, and
//! a backslash becomes `\\`. Everything else stays as it is. So every path has one text, every such
//! text has one path, and nearly all paths are their own text.

use std::borrow::Cow;
use std::fmt::Write;

/// The text of some bytes. Borrows where nothing needs an escape.
pub fn escape(bytes: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(bytes) {
        Ok(text) if !bytes.contains(&b'\\') => Cow::Borrowed(text),
        Ok(_) | Err(_) => Cow::Owned(escaped(bytes)),
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        let mut parts = chunk.valid().split('\\');
        text.push_str(parts.next().unwrap_or_default());
        for part in parts {
            text.push_str("\\\\");
            text.push_str(part);
        }
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("writing to a string does not fail");
        }
    }
    text
}

/// The bytes of a text that [`escape`] made. None where it cannot have made that text.
pub fn unescape(text: &str) -> Option<Cow<'_, [u8]>> {
    if !text.contains('\\') {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = match (first, after) {
            (b'\\', [b'\\', after @ ..]) => {
                bytes.push(b'\\');
                after
            }
            (b'\\', [b'x', high, low, after @ ..]) => {
                bytes.push(hex_digit(*high)? << 4 | hex_digit(*low)?);
                after
            }
            (b'\\', _) => return None,
            (byte, after) => {
                bytes.push(*byte);
                after
            }
        };
    }
    // Another text may stand for the same bytes, such as `\x61` for `a`.
    (escape(&bytes) == text).then_some(Cow::Owned(bytes))
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8]) {
        let text = escape(bytes);
        assert_eq!(unescape(&text).as_deref(), Some(bytes), "{bytes:x?} as {text:?}");
    }

    #[test]
    fn known_texts() {
        assert_eq!(escape(b"/etc/passwd"), "/etc/passwd");
        assert_eq!(escape("/tmp/gr\u{fc}n\n".as_bytes()), "/tmp/gr\u{fc}n\n");
        assert_eq!(escape(b"/a\\x41"), "/a\\\\x41");
        assert_eq!(escape(b"/\xff\xc3"), "/\\xff\\xc3");
        assert!(matches!(escape(b"/usr/bin/env"), Cow::Borrowed(_)));
    }

    #[test]
    fn every_sequence_of_up_to_two_bytes_comes_back() {
        check(b"");
        for first in 0..=255 {
            check(&[first]);
            for second in 0..=255 {
                check(&[first, second]);
            }
        }
    }

    #[test]
    fn every_sequence_of_six_interesting_bytes_comes_back() {
        // What can be confused with an escape, and every role that a byte has in UTF-8.
        const BYTES: [u8; 8] = [b'\\', b'x', b'6', b'f', b'/', 0xc3, 0xa4, 0xf0];
        for number in 0..8_u32.pow(6) {
            let bytes: Vec<u8> =
                (0..6).map(|place| BYTES[(number >> (3 * place) & 7) as usize]).collect();
            check(&bytes);
        }
    }

    #[test]
    fn texts_that_no_path_has_are_refused() {
        for text in ["\\", "\\x", "\\x4", "\\xFF", "\\xzz", "\\n", "a\\x61", "\\xc3\\xa4"] {
            assert_eq!(unescape(text), None, "{text}");
        }
    }
}
