//! One question, and its whole answer: what is at a URL. A connection is for one question.

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};

use super::connection::{NoAnswer, connect};
use super::endpoint::AGENT;
use super::tls;
use crate::config::Url;

/// An answer.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Asks for what is at a URL, with these headers: at most so many bytes of it.
///
/// # Errors
///
/// If there is no whole answer.
pub(crate) async fn get(url: &Url, headers: HeaderMap, max_bytes: usize) -> Result<Got, NoAnswer> {
    let mut request = Request::new(Full::new(Bytes::new()));
    // A server is asked for the path alone.
    *request.uri_mut() = url.path().parse().unwrap_or_default();
    *request.headers_mut() = headers;
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
    if let Ok(host) = HeaderValue::from_str(&url.authority()) {
        request.headers_mut().insert(header::HOST, host);
    }
    let tls = if url.is_secure() { Some(tls::client(None)?) } else { None };
    let mut sender = connect(url, tls.as_ref()).await?;
    let answer = sender.send_request(request).await?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = Limited::new(answer.into_body(), max_bytes).collect().await;
    let body = body.map_err(|error| NoAnswer::Body(error.to_string()))?.to_bytes();
    Ok(Got { status, headers, body })
}
