//! The name of a plugin in a registry: `oci://registry/name:tag@sha256:...`.

use std::fmt;
use std::net::IpAddr;

/// What stands before every name.
pub const PREFIX: &str = "oci://";

/// A name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host of the registry, with its port where one is named.
    pub registry: String,
    /// Name of the repository in it.
    pub repository: String,
    /// What people call the version. It may be another one tomorrow.
    pub tag: Option<String>,
    /// The digest of the manifest, which is one version for good.
    pub digest: Option<Digest>,
}

/// SHA-256 of some bytes, in lower case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest(String);

impl Digest {
    /// Reads `sha256:` with 64 hexadecimal digits.
    pub fn read(text: &str) -> Option<Digest> {
        let digits = text.strip_prefix("sha256:")?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let fits = digits.len() == 64 && digits.bytes().all(is_digit);
        fits.then(|| Digest(digits.to_owned()))
    }

    /// The digits.
    pub fn digits(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// What a name is, to stand behind `expected`.
pub const EXPECTED: &str =
    "a name such as \"oci://registry.example/plugins/counts:1.0@sha256:...\"";

impl Reference {
    /// Reads a name with its prefix. None where it is none.
    pub fn read(text: &str) -> Option<Reference> {
        let (registry, rest) = text.strip_prefix(PREFIX)?.split_once('/')?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::read(digest)?)),
            None => (rest, None),
        };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (rest, None),
        };
        let fits = is_registry(registry) && is_repository(repository) && tag.is_none_or(is_tag);
        if !fits || (tag.is_none() && digest.is_none()) {
            return None;
        }
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        Some(Reference { registry, repository, tag: tag.map(str::to_owned), digest })
    }

    /// Where the registry is asked. One on this machine is spoken to without TLS, as the usual tools do it.
    pub(super) fn base(&self) -> String {
        let host = match self.registry.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &self.registry,
        };
        let number = host.trim_matches(['[', ']']).parse::<IpAddr>();
        let is_here = host == "localhost" || number.is_ok_and(|number| number.is_loopback());
        let scheme = if is_here { "http" } else { "https" };
        format!("{scheme}://{}", self.registry)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}/{}", self.registry, self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

fn is_registry(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

/// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests>
fn is_repository(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_part = |part: &str| {
        let allowed = |byte: u8| is_letter(byte) || b"._-".contains(&byte);
        part.bytes().all(allowed)
            && part.bytes().next().is_some_and(is_letter)
            && part.bytes().last().is_some_and(is_letter)
    };
    text.split('/').all(is_part)
}

fn is_tag(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_and_written_as_it_stands() {
        let hash = "0a".repeat(32);
        for name in [
            format!("oci://ghcr.io/team/counts:1.0@sha256:{hash}"),
            format!("oci://ghcr.io/team/counts@sha256:{hash}"),
            "oci://localhost:5000/counts:latest".to_owned(),
            "oci://[::1]:5000/a/b/c:v1_x".to_owned(),
        ] {
            assert_eq!(Reference::read(&name).unwrap().to_string(), name);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let hash = "0A".repeat(32);
        for name in [
            "oci://ghcr.io".to_owned(),
            "oci://ghcr.io/counts".to_owned(),
            "oci:///counts:1".to_owned(),
            "oci://ghcr.io/Counts:1".to_owned(),
            "oci://ghcr.io/../counts:1".to_owned(),
            "oci://ghcr.io/counts:a/b".to_owned(),
            "oci://user@ghcr.io/counts:1".to_owned(),
            format!("oci://ghcr.io/counts@sha256:{hash}"),
            "oci://ghcr.io/counts:1@sha256:12".to_owned(),
        ] {
            assert_eq!(Reference::read(&name), None, "{name}");
        }
    }

    #[test]
    fn only_a_registry_on_this_machine_is_asked_without_tls() {
        let base = |name: &str| Reference::read(name).unwrap().base();
        assert_eq!(base("oci://127.0.0.1:5000/a:1"), "http://127.0.0.1:5000");
        assert_eq!(base("oci://[::1]:5000/a:1"), "http://[::1]:5000");
        assert_eq!(base("oci://localhost/a:1"), "http://localhost");
        assert_eq!(base("oci://localhost.example/a:1"), "https://localhost.example");
        assert_eq!(base("oci://10.0.0.1:5000/a:1"), "https://10.0.0.1:5000");
    }
}
