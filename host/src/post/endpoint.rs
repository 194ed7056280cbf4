//! One endpoint: everything that a request to it is made of, but its body.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request};
use rustls::ClientConfig;

use super::media::media_type_of;
use super::{PostError, tls};
use crate::config::{HttpOutput, Url};

/// How the daemon calls itself.
pub(super) const AGENT: &str = concat!("whodunit/", env!("CARGO_PKG_VERSION"));
/// The largest file of headers that is read.
const MAX_HEADERS_BYTES: u64 = 64 << 10;

/// Where bodies go, and how.
pub(crate) struct Endpoint {
    pub(super) url: Url,
    headers: HeaderMap,
    headers_file: Option<PathBuf>,
    content_type: Option<HeaderValue>,
    /// None where the URL is one without TLS.
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) timeout: Duration,
    pub(super) retry_for: Duration,
    pub(super) queue_bytes: usize,
}

impl Endpoint {
    /// Reads the files that it names.
    ///
    /// # Errors
    ///
    /// If one of them cannot be used.
    pub(crate) fn open(config: &HttpOutput) -> Result<Endpoint, PostError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            // The configuration holds no others.
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), value.parse())
            {
                headers.append(name, value);
            }
        }
        if let Some(path) = &config.headers_file {
            read_headers(path)?;
        }
        let content_type = config.content_type.as_deref();
        Ok(Endpoint {
            url: config.url.clone(),
            headers,
            headers_file: config.headers_file.clone(),
            content_type: content_type.and_then(|text| HeaderValue::from_str(text).ok()),
            tls: match config.url.is_secure() {
                true => Some(tls::client(config.ca_file.as_deref())?),
                false => None,
            },
            timeout: config.timeout,
            retry_for: config.retry_for,
            queue_bytes: config.queue_bytes,
        })
    }

    /// A request with this body, and with the headers that the file has now.
    pub(super) fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, PostError> {
        let content_type = match &self.content_type {
            Some(content_type) => content_type.clone(),
            None => HeaderValue::from_static(media_type_of(&body)),
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        // A server is asked for the path alone.
        *request.uri_mut() = self.url.path().parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        headers.extend(self.headers.clone());
        if let Some(path) = &self.headers_file {
            headers.extend(read_headers(path)?);
        }
        headers.insert(header::CONTENT_TYPE, content_type);
        if let Ok(host) = HeaderValue::from_str(&self.url.authority()) {
            headers.insert(header::HOST, host);
        }
        Ok(request)
    }
}

/// The headers in a file: one `Name: value` a line. Empty lines, and those that begin with `#`, are none.
fn read_headers(path: &Path) -> Result<HeaderMap, PostError> {
    let failed = |reason: String| PostError::Headers { path: path.to_owned(), reason };
    let size = fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if size > MAX_HEADERS_BYTES {
        return Err(failed(format!("it is larger than {MAX_HEADERS_BYTES} bytes")));
    }
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let mut headers = HeaderMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The line itself may be a secret.
        let wrong = || failed(format!("line {} is no header", index + 1));
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
        let mut value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_a_file_are_read_anew_for_every_request() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = HttpOutput {
            headers: [("X-Scope".to_owned(), "team".to_owned())].into(),
            headers_file: Some(file.path().to_owned()),
            ..HttpOutput::new(Url::read("http://a:1/v1/logs?x=y").unwrap())
        };
        let endpoint = Endpoint::open(&config).unwrap();
        for token in ["one", "two"] {
            fs::write(file.path(), format!("# a token\n\nAuthorization: Bearer {token}\n"))
                .unwrap();
            let request = endpoint.request(Bytes::from_static(b"{}")).unwrap();
            let value = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(value("authorization"), format!("Bearer {token}"));
            assert_eq!((value("x-scope"), value("host")), ("team".into(), "a:1".into()));
            assert_eq!(value("content-type"), "application/json");
            assert_eq!(request.uri(), "/v1/logs?x=y");
        }
        fs::write(file.path(), "no header\n").unwrap();
        let error = endpoint.request(Bytes::new()).unwrap_err().to_string();
        assert!(error.contains("line 1 is no header") && !error.contains("no header\n"), "{error}");
        fs::remove_file(file.path()).unwrap();
        assert!(Endpoint::open(&config).is_err());
    }

    #[test]
    fn a_media_type_that_is_given_is_the_one_that_is_said() {
        let config = HttpOutput {
            content_type: Some("application/x-protobuf".to_owned()),
            ..HttpOutput::new(Url::read("http://a/").unwrap())
        };
        let request = Endpoint::open(&config).unwrap().request(Bytes::from_static(b"{}")).unwrap();
        assert_eq!(request.headers()["content-type"], "application/x-protobuf");
        assert_eq!(request.headers()["host"], "a");
    }
}
