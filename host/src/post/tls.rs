//! Whom a server of HTTPS is trusted by.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::PostError;

/// How to speak TLS as a client: trusting the certificates of that file, or of the machine.
pub(crate) fn client(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, PostError> {
    let roots = match ca_file {
        Some(path) => of_file(path)?,
        None => of_machine(),
    };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("this provider speaks the default versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn of_file(path: &Path) -> Result<RootCertStore, PostError> {
    let failed = |reason: String| PostError::Certificates { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|it| failed(it.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|it| failed(it.to_string()))?;
        roots.add(certificate).map_err(|it| failed(it.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(failed("it holds no certificate".to_owned())),
        false => Ok(roots),
    }
}

/// Those of the machine; where it has none, as in an image of nothing but the daemon, those of Mozilla.
fn of_machine() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "certificates of the machine that cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused_in_one_sentence() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let check = |content: &str, words: &str| {
            std::fs::write(file.path(), content).unwrap();
            let error = client(Some(file.path())).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("in PEM"), "{error}");
        };
        check("", "it holds no certificate");
        check("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be used");
        assert!(client(Some(Path::new("/nowhere/ca.pem"))).is_err());
    }

    #[test]
    fn without_a_file_somebody_is_trusted() {
        assert!(!of_machine().is_empty());
    }
}
