//! One question over HTTP to whoever names containers: at a Unix socket, or at an address with TLS.
//!
//! Takes a request, gives the body of the answer, within a time and a size. A connection is for one question.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::source::Trouble;

/// Asks, one question at a time.
pub(super) struct Asker {
    runtime: Runtime,
}

/// An HTTPS server, and how to know it.
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) trusted: RootCertStore,
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
            ask(stream, request, limits.max_bytes).await
        })
    }

    /// What is at a path of a server with TLS. None where it says that there is nothing.
    pub(super) fn at_server<T: DeserializeOwned>(
        &self,
        server: &Server,
        path: &str,
        limits: &Limits,
    ) -> Result<Option<T>, Trouble> {
        let request = request(&server.host, path, Some(&server.token))?;
        let name = ServerName::try_from(server.host.clone())
            .map_err(|_| Trouble::Failed(format!("{:?} is no host", server.host)))?;
        let config = ClientConfig::builder()
            .with_root_certificates(server.trusted.clone())
            .with_no_client_auth();
        self.within(limits, async {
            let address = (server.host.as_str(), server.port);
            let stream = TcpStream::connect(address).await.map_err(failed("connect"))?;
            let connector = TlsConnector::from(Arc::new(config));
            let stream = connector.connect(name, stream).await.map_err(failed("trust it"))?;
            ask(stream, request, limits.max_bytes).await
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

fn request(host: &str, path: &str, token: Option<&str>) -> Result<Request<Empty<Bytes>>, Trouble> {
    let mut request = Request::get(path).header("Host", host).header("Accept", "application/json");
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let request = request.body(Empty::new());
    request.map_err(|error| Trouble::Failed(format!("it cannot be asked: {error}")))
}

/// The body of the answer. None where it is that there is nothing.
async fn ask<Stream>(
    stream: Stream,
    request: Request<Empty<Bytes>>,
    max_bytes: usize,
) -> Result<Option<Bytes>, Trouble>
where
    Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(failed("connect"))?;
    // It ends with the connection, which ends with the sender.
    let connection = tokio::spawn(connection);
    let answered = async {
        let answer = sender.send_request(request).await.map_err(failed("ask"))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), max_bytes).collect().await;
        let body = body.map_err(|error| Trouble::Failed(format!("no whole answer: {error}")))?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(body.to_bytes())),
            status => Err(Trouble::Failed(format!("it answers {status}"))),
        }
    };
    let answer = answered.await;
    connection.abort();
    answer
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Trouble {
    move |error| Trouble::Failed(format!("cannot {what}: {error}"))
}
