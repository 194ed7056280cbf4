//! The certificate that HTTP is answered with, and its renewal while connections go on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::HttpError;

/// A certificate with its key, as their files held them when they were last read.
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    current: ArcSwap<ServerConfig>,
}

impl Identity {
    /// Reads both files.
    ///
    /// # Errors
    ///
    /// If one of them cannot be used, or if they do not belong together.
    pub(super) fn open(certificate: &Path, key: &Path) -> Result<Identity, HttpError> {
        let current = ArcSwap::new(read(certificate, key)?);
        Ok(Identity { certificate: certificate.to_owned(), key: key.to_owned(), current })
    }

    /// Reads both files again. Connections that are there keep what they were made with.
    ///
    /// # Errors
    ///
    /// As at the start: what was read last goes on to be used then.
    pub fn renew(&self) -> Result<(), HttpError> {
        self.current.store(read(&self.certificate, &self.key)?);
        Ok(())
    }

    /// Takes the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, HttpError> {
    let failed = |path: &Path, what: &'static str, reason: String| HttpError::Tls {
        path: path.to_owned(),
        what,
        reason,
    };
    let no_certificate = |reason| failed(certificate, "certificate", reason);
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| no_certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(no_certificate("it holds none".to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_file(key);
    let secret = secret.map_err(|error| failed(key, "key", error.to_string()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("this provider speaks the default versions of TLS")
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| failed(key, "key", error.to_string()))?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_told_in_one_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("a.pem"), folder.path().join("a.key"));
        let check = |words: &str| {
            let Err(error) = Identity::open(&certificate, &key) else { panic!("it is refused") };
            let error = error.to_string();
            assert!(error.contains(words) && error.lines().count() == 1, "{error}");
        };
        check("a.pem");
        std::fs::write(&certificate, "").unwrap();
        check("it holds none");
        std::fs::write(
            &certificate,
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        check("a.key");
        std::fs::write(&key, "no key").unwrap();
        check("`http.tls_key`");
    }
}
