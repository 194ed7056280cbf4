//! The connection to one endpoint: made when it is needed, kept while the server keeps it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::{Read, Write};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Endpoint, PostError, resolve, retry};
use crate::config::Url;

/// What is read of an answer at most. Those that say something are far smaller.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// What a server said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// How long it wants to be left alone.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("the name {host} cannot be resolved: {source}")]
    Name { host: String, source: resolve::ResolveError },
    #[error("{authority} cannot be reached: {source}")]
    Connect { authority: String, source: io::Error },
    #[error("{authority} cannot be spoken to with TLS: {source}")]
    Tls { authority: String, source: io::Error },
    #[error("the request failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer cannot be read: {0}")]
    Body(String),
    #[error(transparent)]
    Request(#[from] PostError),
}

/// The connection, if there is one.
pub(super) struct Connection {
    endpoint: Arc<Endpoint>,
    kept: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Connection {
        Connection { endpoint, kept: None }
    }

    /// Sends a body and waits for the answer. Whoever drops the future loses the connection, and nothing else.
    pub(super) async fn post(&mut self, body: &Bytes) -> Result<Answer, NoAnswer> {
        if let Some(mut kept) = self.kept.take()
            && kept.ready().await.is_ok()
        {
            match self.ask(kept, self.endpoint.request(body.clone())?).await {
                // The server may have hung up at this very moment.
                Err(NoAnswer::Http(error))
                    if error.is_incomplete_message() || error.is_canceled() => {}
                answered => return answered,
            }
        }
        let request = self.endpoint.request(body.clone())?;
        let fresh = connect(&self.endpoint.url, self.endpoint.tls.as_ref()).await?;
        self.ask(fresh, request).await
    }

    async fn ask(
        &mut self,
        mut sender: SendRequest<Full<Bytes>>,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, NoAnswer> {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let wish = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = wish.and_then(|wish| retry::asked_for(wish, SystemTime::now()));
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| NoAnswer::Body(error.to_string()))?.to_bytes();
        self.kept = Some(sender);
        Ok(Answer { status, retry_after, body })
    }
}

/// A connection to the server of a URL.
pub(crate) async fn connect(
    url: &Url,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<SendRequest<Full<Bytes>>, NoAnswer> {
    let authority = || url.authority();
    let addresses = resolve::addresses(url.host(), url.port()).await;
    let addresses =
        addresses.map_err(|source| NoAnswer::Name { host: url.host().to_owned(), source })?;
    let stream = TcpStream::connect(addresses.as_slice()).await;
    let stream = stream.map_err(|source| NoAnswer::Connect { authority: authority(), source })?;
    // A body is written at once; where this is refused, it only takes longer.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return handshake(TokioIo::new(stream)).await;
    };
    let failed = |source| NoAnswer::Tls { authority: authority(), source };
    let name = ServerName::try_from(url.host().to_owned());
    let name = name.map_err(|error| failed(io::Error::other(error)))?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
    handshake(TokioIo::new(stream.map_err(failed)?)).await
}

/// HTTP over a stream that is there already.
pub(crate) async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, NoAnswer>
where
    S: Read + Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(stream).await?;
    tokio::spawn(async move {
        // What goes wrong here, whoever waits for an answer is told as well.
        let _ = connection.await;
    });
    Ok(sender)
}
