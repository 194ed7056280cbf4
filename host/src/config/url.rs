//! Addresses of HTTP, as the TOML and the environment have them.
//!
//! Takes text and gives its parts, or says what was expected. Pure: asks no name server and no peer.

use std::fmt;

use hyper::Uri;
use serde::{Serialize, Serializer};

use super::values::{Mismatch, quoted};

/// An address of HTTP or HTTPS.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    text: String,
    is_secure: bool,
    host: String,
    port: u16,
    path: String,
}

/// What a URL is, to stand behind `expected`.
pub(crate) fn expected_url() -> String {
    String::from("a URL such as \"https://collector:4318/v1/logs\"")
}

impl Url {
    /// Reads a URL. One with a user or a password is refused: it would stand in the log and in the status.
    pub(crate) fn read(text: &str) -> Result<Url, Mismatch> {
        let mismatch = |expected: &str| Mismatch::expected(expected);
        let Some((scheme, rest)) = text.split_once("://") else {
            let begins_well = text.starts_with(|first: char| first.is_alphanumeric());
            return Err(Mismatch {
                expected: expected_url(),
                meant: begins_well.then(|| quoted(&format!("http://{text}"))),
            });
        };
        let is_secure = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(mismatch("a URL that begins with \"http://\" or \"https://\"")),
        };
        if rest.contains('#') {
            return Err(mismatch("a URL without a `#`, which no server gets to see"));
        }
        let parsed: Uri = text.parse().map_err(|_| Mismatch::expected(expected_url()))?;
        let authority = parsed.authority().ok_or_else(|| Mismatch::expected(expected_url()))?;
        if authority.as_str().contains('@') {
            return Err(mismatch(
                "a URL without a user and a password, which belong into `headers_file`",
            ));
        }
        let default = if is_secure { 443 } else { 80 };
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            // A colon with no number behind it, or one that is too large.
            None if authority.as_str().len() > authority.host().len() => {
                return Err(mismatch("a URL with a port from 1 to 65535"));
            }
            None => default,
        };
        if authority.host().is_empty() || port == 0 {
            return Err(Mismatch::expected(expected_url()));
        }
        let path = parsed.path_and_query().map_or("/", |path| path.as_str());
        Ok(Url {
            text: text.to_owned(),
            is_secure,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port,
            path: path.to_owned(),
        })
    }

    /// Whether it is one of HTTPS.
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// A name or a number, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, also where it is the usual one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, which begin with `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Host and port as a request names them.
    pub fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match (self.is_secure, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let check = |text: &str, parts: (bool, &str, u16, &str), authority: &str| {
            let url = Url::read(text).unwrap();
            assert_eq!((url.is_secure(), url.host(), url.port(), url.path()), parts, "{text}");
            assert_eq!(url.authority(), authority, "{text}");
            assert_eq!(url.to_string(), text);
        };
        check("http://a", (false, "a", 80, "/"), "a");
        check("https://a.b/c?d=e", (true, "a.b", 443, "/c?d=e"), "a.b");
        check(
            "HTTP://127.0.0.1:4318/v1/logs",
            (false, "127.0.0.1", 4318, "/v1/logs"),
            "127.0.0.1:4318",
        );
        check("https://[::1]:4318", (true, "::1", 4318, "/"), "[::1]:4318");
        check("http://[fe80::1]/", (false, "fe80::1", 80, "/"), "[fe80::1]");
    }

    #[test]
    fn what_is_no_url_is_told_with_what_was_expected() {
        let check = |text: &str, expected: &str, meant: Option<&str>| {
            let mismatch = Url::read(text).unwrap_err();
            assert!(mismatch.expected.contains(expected), "{text}: {mismatch:?}");
            assert_eq!(mismatch.meant, meant.map(quoted), "{text}");
        };
        check("collector:4318/v1/logs", "a URL such as", Some("http://collector:4318/v1/logs"));
        check("", "a URL such as", None);
        check("/v1/logs", "a URL such as", None);
        check("ftp://a/b", "begins with", None);
        check("http://", "a URL such as", None);
        check("http:///path", "a URL such as", None);
        check("http://a:b", "a URL", None);
        check("http://a:0/", "a URL such as", None);
        check("http://a:99999/", "a port from 1 to 65535", None);
        check("https://me:secret@a/", "headers_file", None);
        check("http://a/#b", "without a `#`", None);
        check("http://a b/", "a URL such as", None);
    }
}
