//! One question over HTTP to whoever names containers: at a Unix socket, or at an address with TLS.
//!
//! Takes a request, gives the body of the answer, within a time and a size. A connection is for one question.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use super::source::Trouble;
use crate::config::Url;
use crate::post::{self, NoAnswer};

/// Asks, one question at a time.
pub(super) struct Asker {
    runtime: Runtime,
}

/// An HTTPS server, and how to know it.
pub(super) struct Server {
    pub(super) url: Url,
    pub(super) tls: Arc<ClientConfig>,
    /// What it is told to let us in.
    pub(super) token: String,
}

impl Asker {
    pub(super) fn new() -> io::Result<Asker> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Asker { runtime })
    }

    /// What is at a path of a server behind a Unix socket. None where it says that there is nothing.
    pub(super) fn at_socket<T: DeserializeOwned>(
        &self,
        socket: &Path,
        path: &str,
        limits: &Limits,
    ) -> Result<Option<T>, Trouble> {
        let request = request("localhost", path, None)?;
        self.within(limits, async {
            let stream = UnixStream::connect(socket).await.map_err(failed("connect"))?;
            let sender = post::handshake(TokioIo::new(stream)).await.map_err(unreached)?;
            ask(sender, request, limits.max_bytes).await
        })
    }

    /// What is at a path of a server with TLS. None where it says that there is nothing.
    pub(super) fn at_server<T: DeserializeOwned>(
        &self,
        server: &Server,
        path: &str,
        limits: &Limits,
    ) -> Result<Option<T>, Trouble> {
        let request = request(&server.url.authority(), path, Some(&server.token))?;
        self.within(limits, async {
            let sender = post::connect(&server.url, Some(&server.tls)).await.map_err(unreached)?;
            ask(sender, request, limits.max_bytes).await
        })
    }

    fn within<T: DeserializeOwned>(
        &self,
        limits: &Limits,
        asked: impl Future<Output = Result<Option<Bytes>, Trouble>>,
    ) -> Result<Option<T>, Trouble> {
        let late = || Trouble::Failed(format!("no answer within {:?}", limits.at_most));
        let in_time =
            async { tokio::time::timeout(limits.at_most, asked).await.map_err(|_| late())? };
        let Some(body) = self.runtime.block_on(in_time)? else {
            return Ok(None);
        };
        let read = serde_json::from_slice(&body);
        read.map(Some).map_err(|error| Trouble::Failed(format!("the answer is not clear: {error}")))
    }
}

/// How long an answer may take, and how large it may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) at_most: Duration,
    pub(super) max_bytes: usize,
}

fn request(host: &str, path: &str, token: Option<&str>) -> Result<Request<Full<Bytes>>, Trouble> {
    let mut request = Request::get(path).header("Host", host).header("Accept", "application/json");
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let request = request.body(Full::new(Bytes::new()));
    request.map_err(|error| Trouble::Failed(format!("it cannot be asked: {error}")))
}

/// The body of the answer. None where it is that there is nothing.
async fn ask(
    mut sender: SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
    max_bytes: usize,
) -> Result<Option<Bytes>, Trouble> {
    let answer = sender.send_request(request).await.map_err(failed("ask"))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), max_bytes).collect().await;
    let body = body.map_err(|error| Trouble::Failed(format!("no whole answer: {error}")))?;
    match status {
        StatusCode::NOT_FOUND => Ok(None),
        status if status.is_success() => Ok(Some(body.to_bytes())),
        status => Err(Trouble::Failed(format!("it answers {status}"))),
    }
}

fn unreached(why: NoAnswer) -> Trouble {
    Trouble::Failed(why.to_string())
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Trouble {
    move |error| Trouble::Failed(format!("cannot {what}: {error}"))
}
