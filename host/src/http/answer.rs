//! One request, one answer.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, Response, StatusCode};
use serde::Serialize;

use super::files::files_of;
use super::metrics;
use super::openapi::{ContainersAnswer, ErrorAnswer, PluginsAnswer, ProbesAnswer, openapi};
use crate::status::document::ContainerStatus;
use crate::status::{Observer, Status};

/// What an answer is made of.
type Answer = Response<Full<Bytes>>;

const PAGE: &str = include_str!("page/page.html");
const SCRIPT: &str = include_str!("page/page.js");
const STYLE: &str = include_str!("page/page.css");

/// The media type of the text format of Prometheus.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Only what this daemon serves, and no frame around it.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers requests.
pub(super) struct Desk {
    observer: Observer,
    token: Option<String>,
    /// Whether it listens where only this machine, or this pod, comes from.
    on_loopback: bool,
    metrics_containers: usize,
}

impl Desk {
    pub(super) fn new(
        observer: Observer,
        token: Option<String>,
        on_loopback: bool,
        metrics_containers: usize,
    ) -> Desk {
        Desk { observer, token, on_loopback, metrics_containers }
    }

    /// Never fails: what cannot be answered is an answer too.
    pub(super) async fn answer(&self, request: &Parts) -> Answer {
        let mut answer = if !matches!(request.method, Method::GET | Method::HEAD) {
            let mut refusal = refused(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD: what changes the daemon is at its control socket",
            );
            refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            refusal
        } else if self.on_loopback && !names_this_machine(&request.headers) {
            refused(
                StatusCode::FORBIDDEN,
                "this address is for this machine: ask for it as localhost or by its number",
            )
        } else {
            self.route(request).await
        };
        let headers = answer.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_POLICY));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        answer
    }

    async fn route(&self, request: &Parts) -> Answer {
        let path = request.uri.path();
        let authorized = self.authorizes(&request.headers);
        // What tells nothing about containers is for everybody.
        match path {
            "/" => return text("text/html; charset=utf-8", PAGE),
            "/page.js" => return text("text/javascript; charset=utf-8", SCRIPT),
            "/page.css" => return text("text/css; charset=utf-8", STYLE),
            "/api/v1/openapi.json" => return json(StatusCode::OK, &openapi()),
            "/healthz" => {
                let mut health = self.observer.vitals.health();
                if !authorized {
                    health.checks.clear();
                }
                return json(status_of(health.ok), &health);
            }
            "/readyz" => {
                let status = self.observer.status().await;
                let mut readiness = self.observer.vitals.readiness(&status);
                if !authorized {
                    readiness.checks.clear();
                    readiness.notes.clear();
                }
                return json(status_of(readiness.ok), &readiness);
            }
            _ => {}
        }
        if !authorized {
            let mut refusal = refused(
                StatusCode::UNAUTHORIZED,
                "a token is needed: send it as `Authorization: Bearer TOKEN`",
            );
            refusal
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return refusal;
        }
        if path == "/metrics" {
            let status = self.observer.status().await;
            return text(METRICS_TYPE, &metrics::text(&status, self.metrics_containers));
        }
        match path.strip_prefix("/api/v1/") {
            Some(path) => self.api(path).await,
            None => {
                refused(StatusCode::NOT_FOUND, "there is nothing here: see /api/v1/openapi.json")
            }
        }
    }

    async fn api(&self, path: &str) -> Answer {
        let status = self.observer.status().await;
        let steps: Vec<&str> = path.split('/').collect();
        match steps.as_slice() {
            ["status"] => json(StatusCode::OK, &status),
            ["containers"] => json(StatusCode::OK, &ContainersAnswer::from(status)),
            ["containers", id, "files"] => self.files(id, &status),
            ["deaths"] => json(StatusCode::OK, &self.observer.ledger.list()),
            ["deaths", id] => match self.observer.ledger.find(id) {
                Some(death) => json(StatusCode::OK, &death),
                None => refused(StatusCode::NOT_FOUND, "no death among the newest has this id"),
            },
            ["plugins"] => json(StatusCode::OK, &PluginsAnswer::from(status)),
            ["probes"] => json(StatusCode::OK, &ProbesAnswer::from(status)),
            _ => {
                refused(StatusCode::NOT_FOUND, "the API has no such path: see /api/v1/openapi.json")
            }
        }
    }

    fn files(&self, id: &str, status: &Status) -> Answer {
        let wanted = |container: &&ContainerStatus| {
            container.runtime_id == id || id.parse() == Ok(container.id)
        };
        let Some(container) = status.containers.iter().find(wanted) else {
            return refused(StatusCode::NOT_FOUND, "no container that is watched has this id");
        };
        match files_of(container, &status.plugins, &self.observer.sinks) {
            Ok(files) => json(StatusCode::OK, &files),
            Err(error) => refused(StatusCode::NOT_FOUND, &error.to_string()),
        }
    }

    fn authorizes(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        given
            .and_then(|value| value.strip_prefix("Bearer "))
            .is_some_and(|given| same(given, token))
    }
}

/// Whether two texts are equal, in a time that does not tell where they differ.
fn same(given: &str, expected: &str) -> bool {
    let differences = given.bytes().zip(expected.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    given.len() == expected.len() && differences == 0
}

/// Whether the client asked for this machine and not for a name that somebody made lead here: a page
/// of another origin could read the answers otherwise (DNS rebinding).
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else {
        // No browser leaves it out.
        return true;
    };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else {
        return false;
    };
    let name = authority.host();
    let number = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || number.parse::<std::net::IpAddr>().is_ok()
}

fn status_of(ok: bool) -> StatusCode {
    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn text(media_type: &'static str, body: &str) -> Answer {
    answer(StatusCode::OK, media_type, body.as_bytes().to_vec())
}

fn json(status: StatusCode, document: &impl Serialize) -> Answer {
    match serde_json::to_vec(document) {
        Ok(body) => answer(status, "application/json", body),
        Err(error) => refused(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("the answer cannot be written as JSON: {error}"),
        ),
    }
}

fn refused(status: StatusCode, sentence: &str) -> Answer {
    let body = serde_json::to_vec(&ErrorAnswer { error: sentence.to_owned() });
    answer(status, "application/json", body.unwrap_or_default())
}

fn answer(status: StatusCode, media_type: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_opens() {
        assert!(same("secret", "secret"));
        for given in ["", "secre", "secret2", "Secret", "xecret"] {
            assert!(!same(given, "secret"), "{given}");
        }
    }

    #[test]
    fn a_name_that_leads_here_is_not_this_machine() {
        let check = |host: &str, expected: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
            assert_eq!(names_this_machine(&headers), expected, "{host}");
        };
        for host in ["localhost", "LocalHost:9479", "127.0.0.1:9479", "[::1]:9479", "10.0.0.3"] {
            check(host, true);
        }
        for host in ["evil.example", "localhost.evil.example:9479", "127.0.0.1.evil.example", ""] {
            check(host, false);
        }
        assert!(names_this_machine(&HeaderMap::new()));
    }
}
