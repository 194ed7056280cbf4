//! A stand-in for the API server of Kubernetes: there is none in any registry that these trials could run.
//!
//! Speaks TLS with a certificate that its own authority signed, asks for the token, and answers what it is told to. What it
//! cannot show is how a real one behaves: its permissions, its caches, its load.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::Failed;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What a pod has to show.
const TOKEN: &str = "the-token-of-the-pod";

/// A server that answers until this process ends.
pub(crate) struct ApiServer {
    port: u16,
    /// What a kubelet mounts into a pod: the token, and the authority.
    credentials: TempDir,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Answers by their paths.
    answers: Mutex<Vec<(String, Value)>>,
    /// Paths that were asked for with the token.
    asked: Mutex<Vec<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ApiServer {
    pub(crate) fn start() -> Result<ApiServer, Failed> {
        let credentials = tempfile::tempdir()?;
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        fs::write(credentials.path().join("ca.crt"), authority.self_signed(&key)?.pem())?;
        fs::write(credentials.path().join("token"), format!("{TOKEN}\n"))?;
        let issuer = Issuer::new(authority, key);
        let own_key = KeyPair::generate()?;
        let own = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
        let own = own.signed_by(&own_key, &issuer)?;
        let own_key = PrivateKeyDer::try_from(own_key.serialize_der())?;
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], own_key)?;
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::default());
        let server = ApiServer { port, credentials, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // Whoever does not trust it, or hangs up, is nobody to answer.
                let _ = answer(connection, Arc::clone(&config), &shared);
            }
        });
        Ok(server)
    }

    pub(crate) fn port(&self) -> String {
        self.port.to_string()
    }

    pub(crate) fn credentials(&self) -> &Path {
        self.credentials.path()
    }

    /// Answers this at a path from now on.
    pub(crate) fn put(&self, path: &str, answer: Value) {
        locked(&self.shared.answers).push((path.to_owned(), answer));
    }

    /// What was asked for, each once.
    pub(crate) fn asked(&self) -> Vec<String> {
        let mut asked = locked(&self.shared.asked).clone();
        asked.sort_unstable();
        asked.dedup();
        asked
    }
}

fn answer(
    connection: TcpStream,
    config: Arc<ServerConfig>,
    shared: &Shared,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(config)?, connection));
    let (mut request, mut has_token) = (String::new(), false);
    stream.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").unwrap_or_default();
        has_token |=
            name.eq_ignore_ascii_case("authorization") && value == format!("Bearer {TOKEN}");
    }
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let found = locked(&shared.answers).iter().rev().find(|it| it.0 == path).cloned();
    let (status, body) = match (has_token, found) {
        (false, _) => ("401 Unauthorized", Value::Null),
        (true, None) => ("404 Not Found", Value::Null),
        (true, Some((_, answer))) => ("200 OK", answer),
    };
    if has_token {
        locked(&shared.asked).push(path);
    }
    let body = body.to_string();
    let length = body.len();
    write!(stream.get_mut(), "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}")?;
    stream.get_mut().flush()?;
    Ok(())
}
