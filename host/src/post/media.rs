//! What a body looks like, as a media type.

use serde::de::IgnoredAny;

/// The media type of a body, by its content alone.
pub(super) fn media_type_of(body: &[u8]) -> &'static str {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if matches!(first, Some(b'{' | b'[')) {
        let values = serde_json::Deserializer::from_slice(body).into_iter::<IgnoredAny>();
        let mut count = 0_u64;
        if values.into_iter().all(|value| value.inspect(|_| count += 1).is_ok()) {
            return if count == 1 { "application/json" } else { "application/x-ndjson" };
        }
    }
    match std::str::from_utf8(body) {
        Ok(_) => "text/plain; charset=utf-8",
        Err(_) => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_lines_of_it_text_and_bytes_are_told_apart() {
        let check = |body: &[u8], expected: &str| {
            assert_eq!(media_type_of(body), expected, "{}", String::from_utf8_lossy(body));
        };
        check(b" {\"a\": [1, 2]}\n", "application/json");
        check(b"[1, 2]", "application/json");
        check(b"{\"a\": 1}\n{\"a\": 2}\n", "application/x-ndjson");
        check(b"{ no json }", "text/plain; charset=utf-8");
        check(b"profile a {\n}\n", "text/plain; charset=utf-8");
        check(b"", "text/plain; charset=utf-8");
        check(b"\xff\xfe", "application/octet-stream");
    }
}
