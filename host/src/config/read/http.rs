//! Outputs that go to a server: its address, headers and limits.

use std::collections::BTreeMap;

use hyper::header::{self, HeaderName, HeaderValue};
use toml::de::DeValue;

use super::section::{Entry, Reader, Section};
use crate::config::values::Mismatch;
use crate::config::{HttpOutput, Url};

/// Headers that the daemon writes itself.
const OWN: [HeaderName; 6] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::EXPECT,
];

/// The keys that mean something only beside `http`.
const BESIDE: [&str; 7] =
    ["headers", "headers_file", "content_type", "ca_file", "timeout", "retry_for", "queue"];

impl Reader<'_> {
    /// The server of an output, where it names one.
    pub(super) fn http_output(&mut self, section: &Section<'_>) -> Option<HttpOutput> {
        let url = self.take(section, "http", |_, text| Url::read(text));
        let headers = self.headers(section);
        let headers_file = self.path(section, "headers_file");
        let content_type = self.take(section, "content_type", |key, text| {
            let fits = HeaderValue::from_str(text).is_ok() && text.contains('/');
            let mismatch = || Mismatch::expected(key.shape.expected());
            fits.then(|| text.to_owned()).ok_or_else(mismatch)
        });
        let ca_file = self.path(section, "ca_file");
        let timeout = self.duration(section, "timeout");
        let retry_for = self.duration(section, "retry_for");
        let queue_bytes = self.size(section, "queue");
        if section.entry("http").is_none() {
            for Entry { path, span, .. } in BESIDE.iter().filter_map(|name| section.entry(name)) {
                self.problem(span, format!("`{path}` is for an output with `http`"), None, None);
            }
        }
        let default = HttpOutput::new(url?);
        if ca_file.is_some() && !default.url.is_secure() {
            let span = section.span_of("ca_file").unwrap_or_default();
            let wrong = format!("`{}.ca_file` is given and the URL is no `https`", section.path);
            self.problem(span, wrong, None, None);
        }
        Some(HttpOutput {
            headers,
            headers_file,
            content_type,
            ca_file,
            timeout: timeout.unwrap_or(default.timeout),
            retry_for: retry_for.unwrap_or(default.retry_for),
            queue_bytes: queue_bytes.unwrap_or(default.queue_bytes),
            ..default
        })
    }

    fn headers(&mut self, section: &Section<'_>) -> BTreeMap<String, String> {
        let mut headers = BTreeMap::new();
        let Some(Entry { path, key, value, span }) = section.entry("headers") else {
            return headers;
        };
        let DeValue::Table(table) = value else {
            self.mismatch(&path, span, value, Mismatch::expected(key.shape.expected()));
            return headers;
        };
        for (name, value) in table {
            let path = format!("{path}.{}", name.get_ref().escape_debug());
            let fits = |text: &&str| HeaderValue::from_str(text).is_ok();
            let Some(text) = value.get_ref().as_str().filter(fits) else {
                let mismatch = Mismatch::expected("text on one line");
                self.mismatch(&path, value.span(), value.get_ref(), mismatch);
                continue;
            };
            match HeaderName::from_bytes(name.get_ref().as_bytes()) {
                Ok(known) if OWN.contains(&known) => self.problem(
                    name.span(),
                    format!("`{path}` is written by the daemon"),
                    Some(String::from("another header")),
                    (known == header::CONTENT_TYPE)
                        .then(|| String::from("write `content_type` beside `headers`")),
                ),
                Ok(_) => {
                    headers.insert(name.get_ref().to_string(), text.to_owned());
                }
                Err(_) => self.problem(
                    name.span(),
                    format!("`{path}` is no name of a header"),
                    None,
                    None,
                ),
            }
        }
        headers
    }
}
