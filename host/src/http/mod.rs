//! What is told over HTTP: metrics, health, a read-only API and a page.
//!
//! Owns the listener and its thread. Takes an [`Observer`], changes nothing: whatever changes the daemon's
//! state is at the control socket. A slow or hostile client costs one of a few places, never capture.

mod answer;
mod files;
mod metrics;
pub mod openapi;
mod tls;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

use crate::config;
use crate::exit::{Exit, Exits};
use crate::status::Observer;

pub use metrics::{Kind as MetricKind, METRICS, Metric};
pub(crate) use metrics::{Value as MetricValue, each as each_metric};
pub use openapi::{ROUTES, openapi};
pub use tls::Identity;

use answer::Desk;

/// Connections at once. More wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to send the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may live, whatever it does.
const CONNECTION_WITHIN: Duration = Duration::from_secs(300);
/// The pause after a connection that could not be accepted, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest token that is read from a file, in bytes.
const MAX_TOKEN_BYTES: usize = 4096;

/// Why there is no HTTP.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is not to be had.
    #[error("cannot listen on {address} ({source}): choose another address with `http.listen`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// There is no token in the file.
    #[error(
        "the token file {} cannot be used ({reason}): put one line of text into it, or change \
         `http.token_file`",
        .path.display()
    )]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The certificate or its key cannot be used.
    #[error(
        "the {what} {} cannot be used ({reason}): name a file in PEM with `http.tls_{what}`",
        .path.display()
    )]
    Tls {
        /// The file.
        path: PathBuf,
        /// `certificate` or `key`.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The system gave no thread or no runtime.
    #[error("the thread for HTTP cannot be started ({0}): raise the limit of threads")]
    NoThread(io::Error),
}

impl Exits for HttpError {
    fn exit(&self) -> Exit {
        match self {
            HttpError::Listen { .. } | HttpError::NoThread(_) => Exit::Failure,
            HttpError::Token { .. } | HttpError::Tls { .. } => Exit::Configuration,
        }
    }
}

/// The running server. Dropped, it ends.
pub struct Server {
    address: SocketAddr,
    identity: Option<Arc<Identity>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens and answers, on a thread of its own. None where no address is configured.
    ///
    /// # Errors
    ///
    /// If the address cannot be had, or if the token or the certificate cannot be read.
    pub fn start(config: &config::Http, observer: Observer) -> Result<Option<Server>, HttpError> {
        let Some(wanted) = config.listen else {
            return Ok(None);
        };
        let token = config.token_file.as_deref().map(read_token).transpose()?;
        let identity = match (&config.tls_certificate, &config.tls_key) {
            (Some(certificate), Some(key)) => Some(Arc::new(Identity::open(certificate, key)?)),
            (Some(_), None) | (None, Some(_)) | (None, None) => None,
        };
        let listen = |source| HttpError::Listen { address: wanted, source };
        let listener = StdListener::bind(wanted).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(HttpError::NoThread)?;
        let desk = Arc::new(Desk::new(
            observer,
            token,
            address.ip().is_loopback(),
            config.metrics_containers,
        ));
        let shown = identity.clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    tokio::select! {
                        ended = serve(listener, desk, identity) => {
                            if let Err(error) = ended {
                                tracing::error!(%error, "HTTP has ended");
                            }
                        }
                        _ = stopped => {}
                    }
                });
            })
            .map_err(HttpError::NoThread)?;
        tracing::info!(%address, tls = shown.is_some(), "HTTP answers");
        Ok(Some(Server { address, identity: shown, stop: Some(stop), thread: Some(thread) }))
    }

    /// Where it listens, with the port that the system chose where the configured one was 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that it answers with, to be renewed. None where it answers without TLS.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread for HTTP ended early");
        }
    }
}

async fn serve(
    listener: StdListener,
    desk: Arc<Desk>,
    identity: Option<Arc<Identity>>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let (desk, identity) = (Arc::clone(&desk), identity.clone());
                tokio::spawn(async move {
                    match identity {
                        None => converse(stream, desk).await,
                        Some(identity) => converse_in_private(stream, desk, &identity).await,
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection for HTTP cannot be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The same behind a handshake, which may take as long as the head of a request.
async fn converse_in_private(stream: TcpStream, desk: Arc<Desk>, identity: &Identity) {
    match tokio::time::timeout(HEAD_WITHIN, identity.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => converse(stream, desk).await,
        Ok(Err(error)) => tracing::debug!(%error, "a connection for HTTP speaks no TLS"),
        Err(_) => {}
    }
}

async fn converse<S>(stream: S, desk: Arc<Desk>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let desk = Arc::clone(&desk);
        // What a GET carries in its body is nobody's business.
        let (head, _) = request.into_parts();
        async move { Ok::<_, std::convert::Infallible>(desk.answer(&head).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_WITHIN, connection).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for HTTP ended early"),
    }
}

/// The first line of a file.
fn read_token(path: &Path) -> Result<String, HttpError> {
    let failed = |reason: String| HttpError::Token { path: path.to_owned(), reason };
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(failed("it is empty".to_owned())),
        token if token.len() > MAX_TOKEN_BYTES || token.contains('\n') => {
            Err(failed("it holds more than one line".to_owned()))
        }
        token => Ok(token.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_line_that_is_not_empty() {
        let check = |content: &str, expected: Option<&str>| {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), content).unwrap();
            assert_eq!(read_token(file.path()).ok().as_deref(), expected, "{content:?}");
        };
        check("secret\n", Some("secret"));
        check("secret", Some("secret"));
        check("two words\r\n", Some("two words"));
        check("\n", None);
        check("a\nb\n", None);
        assert!(read_token(Path::new("/nowhere/token")).is_err());
    }
}
