//! Plugins from OCI registries: pulled once, verified, and kept.
//!
//! Takes a [`Reference`] and gives the component behind it, from the cache folder where it is there. A manifest and its
//! layer are taken only with the digests that they are asked for by; what a tag leads to is asked anew each time.
//! Speaks the pull half of the distribution specification, with anonymous tokens; writes nothing to a registry.

mod reference;
mod store;

use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use serde::Deserialize;

pub use reference::{Digest, EXPECTED, PREFIX, Reference};

use crate::config::Url;
use crate::post::{Got, get};
use store::{Store, digest_of};

/// How long pulling may take altogether.
const PATIENCE: Duration = Duration::from_secs(60);
/// A manifest of a plugin has some hundred bytes.
const MAX_MANIFEST_BYTES: usize = 1 << 20;
/// Times that a registry may send on to another place, or ask for a token.
const MAX_STEPS: usize = 6;
/// The kinds of manifests that are asked for.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json";
/// The kinds of layers that are components, the older one last.
const LAYERS: [&str; 2] = ["application/wasm", "application/vnd.wasm.content.layer.v1+wasm"];

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "`place` and `what` name what their variants are about")]
pub enum PullError {
    /// The cache folder.
    #[error("what is pulled cannot be kept in the cache folder: {0}")]
    Store(#[source] io::Error),
    /// The system gave no thread.
    #[error("the thread that pulls cannot be started: {0}")]
    NoThread(#[source] io::Error),
    /// Nothing came in time.
    #[error("it did not come within {} s", PATIENCE.as_secs())]
    Late,
    /// The registry does not answer.
    #[error("{place}: {reason}")]
    NoAnswer { place: String, reason: String },
    /// It is not there, or not for everybody.
    #[error("{place} answers {status}")]
    Refused { place: String, status: StatusCode },
    /// The registry sends on for ever.
    #[error("{place} sends on to other places without end")]
    Circle { place: String },
    /// What came is not what was asked for.
    #[error(
        "{what} has the digest {found} and not {asked}: the registry, or somebody on the way, gave another one"
    )]
    OtherDigest { what: &'static str, asked: Digest, found: Digest },
    /// It is no plugin.
    #[error("its manifest is not one of a component: {reason}")]
    Manifest { reason: String },
}

/// A component, and the digest of the manifest that names it.
pub(crate) struct Pulled {
    pub(crate) component: Vec<u8>,
    pub(crate) digest: Digest,
}

/// The component behind a name: from the cache where it is there, else from the registry.
///
/// # Errors
///
/// Why there is none.
pub(crate) fn pull(
    reference: &Reference,
    cache_dir: &Path,
    max_bytes: u64,
) -> Result<Pulled, PullError> {
    let store = Store::open(cache_dir).map_err(PullError::Store)?;
    if let Some(digest) = &reference.digest
        && let Some(manifest) = store.read(digest)
        && let Some(component) = store.read(&layer_of(&manifest, max_bytes)?.1)
    {
        return Ok(Pulled { component, digest: digest.clone() });
    }
    // On a thread of its own: who asks may be on one that drives other futures.
    thread::scope(|scope| {
        let pulling = thread::Builder::new().name("pull".to_owned()).spawn_scoped(scope, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(PullError::NoThread)?;
            let pulled = async {
                let asked = ask(reference, &store, max_bytes);
                tokio::time::timeout(PATIENCE, asked).await.map_err(|_| PullError::Late)?
            };
            runtime.block_on(pulled)
        });
        let pulled = pulling.map_err(PullError::NoThread)?.join();
        pulled.unwrap_or_else(|_| Err(PullError::NoThread(io::Error::other("it ended early"))))
    })
}

async fn ask(reference: &Reference, store: &Store, max_bytes: u64) -> Result<Pulled, PullError> {
    let mut session = Session { reference, token: None };
    let named = reference.digest.as_ref().map(Digest::to_string).or(reference.tag.clone());
    let named = named.unwrap_or_default();
    let manifest = session.fetch("manifests", &named, MAX_MANIFEST_BYTES).await?;
    let digest = verified("the manifest", &manifest, reference.digest.as_ref())?;
    let (size, layer) = layer_of(&manifest, max_bytes)?;
    let component = match store.read(&layer) {
        Some(component) => component,
        None => {
            let component = session.fetch("blobs", &layer.to_string(), size).await?;
            verified("the component", &component, Some(&layer))?;
            store.write(&layer, &component).map_err(PullError::Store)?;
            component.to_vec()
        }
    };
    store.write(&digest, &manifest).map_err(PullError::Store)?;
    tracing::info!(source = %reference, %digest, bytes = component.len(), "pulled");
    Ok(Pulled { component, digest })
}

/// The digest of what came, which has to be the one that was asked for.
fn verified(what: &'static str, bytes: &[u8], asked: Option<&Digest>) -> Result<Digest, PullError> {
    let found = digest_of(bytes);
    match asked {
        Some(asked) if *asked != found => {
            Err(PullError::OtherDigest { what, asked: asked.clone(), found })
        }
        _ => Ok(found),
    }
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: u64,
}

/// Size and digest of the one layer that is a component.
fn layer_of(manifest: &[u8], max_bytes: u64) -> Result<(usize, Digest), PullError> {
    let wrong = |reason: String| PullError::Manifest { reason };
    let read = serde_json::from_slice::<Manifest>(manifest);
    let manifest = read.map_err(|error| wrong(error.to_string()))?;
    let is_component = |layer: &&Layer| LAYERS.contains(&layer.media_type.as_str());
    let mut components = manifest.layers.iter().filter(is_component);
    let (Some(layer), None) = (components.next(), components.next()) else {
        return Err(wrong(format!("there is not one layer of the type {}", LAYERS[0])));
    };
    if layer.size > max_bytes {
        return Err(wrong(format!(
            "its component has {} bytes, and {max_bytes} are the most",
            layer.size
        )));
    }
    let digest = Digest::read(&layer.digest);
    let digest = digest.ok_or_else(|| wrong("its layer has no SHA-256 digest".to_owned()))?;
    Ok((layer.size as usize, digest))
}

/// Requests to one registry about one repository.
struct Session<'a> {
    reference: &'a Reference,
    token: Option<HeaderValue>,
}

impl Session<'_> {
    /// A manifest or a blob.
    async fn fetch(
        &mut self,
        kind: &str,
        named: &str,
        max_bytes: usize,
    ) -> Result<Bytes, PullError> {
        let base = self.reference.base();
        let home = format!("{base}/v2/{}/{kind}/{named}", self.reference.repository);
        let mut place = home.clone();
        for _ in 0..MAX_STEPS {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(MANIFESTS));
            // Nobody else gets the token.
            if let Some(token) =
                self.token.clone().filter(|_| place.starts_with(&format!("{base}/")))
            {
                headers.insert(header::AUTHORIZATION, token);
            }
            if kind == "blobs" {
                headers.remove(header::ACCEPT);
            }
            let got = at(&place, headers, max_bytes).await?;
            match got.status {
                StatusCode::OK => return Ok(got.body),
                StatusCode::UNAUTHORIZED if self.token.is_none() => {
                    self.token = Some(self.token(&place, &got).await?);
                }
                status if status.is_redirection() => {
                    place = sent_on(&base, &got).ok_or(PullError::Refused { place, status })?;
                }
                status => return Err(PullError::Refused { place, status }),
            }
        }
        Err(PullError::Circle { place: home })
    }

    /// A token for everybody, from where the registry says that there are some.
    async fn token(&self, place: &str, refused: &Got) -> Result<HeaderValue, PullError> {
        let refusal = || PullError::Refused { place: place.to_owned(), status: refused.status };
        let challenge = refused.headers.get(header::WWW_AUTHENTICATE);
        let challenge = challenge.and_then(|it| it.to_str().ok()).ok_or_else(refusal)?;
        let realm = parameter(challenge, "realm").ok_or_else(refusal)?;
        let service = parameter(challenge, "service").unwrap_or_default();
        let repository = &self.reference.repository;
        let question = format!("{realm}?service={service}&scope=repository:{repository}:pull");
        let got = at(&question, HeaderMap::new(), MAX_MANIFEST_BYTES).await?;
        if got.status != StatusCode::OK {
            return Err(PullError::Refused { place: realm.to_owned(), status: got.status });
        }
        #[derive(Deserialize)]
        struct Answer {
            #[serde(alias = "access_token")]
            token: String,
        }
        let answer: Answer = serde_json::from_slice(&got.body).map_err(|_| refusal())?;
        let mut token: HeaderValue =
            format!("Bearer {}", answer.token).parse().map_err(|_| refusal())?;
        token.set_sensitive(true);
        Ok(token)
    }
}

/// A parameter of `Bearer realm="...",service="..."`.
fn parameter<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    let rest = challenge.strip_prefix("Bearer ")?;
    let start = rest.find(&format!("{name}=\""))? + name.len() + 2;
    let value = &rest[start..];
    Some(&value[..value.find('"')?])
}

/// Where a registry sends on to.
fn sent_on(base: &str, got: &Got) -> Option<String> {
    let place = got.headers.get(header::LOCATION)?.to_str().ok()?;
    Some(if place.starts_with('/') { format!("{base}{place}") } else { place.to_owned() })
}

async fn at(place: &str, headers: HeaderMap, max_bytes: usize) -> Result<Got, PullError> {
    let failed = |reason: String| PullError::NoAnswer { place: place.to_owned(), reason };
    let url = Url::read(place).map_err(|_| failed("it is no URL".to_owned()))?;
    get(&url, headers, max_bytes).await.map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_that_is_a_component_is_found() {
        let hash = format!("sha256:{}", "0a".repeat(32));
        let manifest = |kinds: &[&str], size: u64| {
            let layer =
                |kind| serde_json::json!({ "mediaType": kind, "digest": hash, "size": size });
            let layers: Vec<_> = kinds.iter().map(layer).collect();
            serde_json::json!({ "schemaVersion": 2, "layers": layers }).to_string().into_bytes()
        };
        let found = |kinds: &[&str]| layer_of(&manifest(kinds, 7), 10);
        assert_eq!(found(&["application/wasm"]).unwrap().0, 7);
        assert_eq!(found(&["text/plain", LAYERS[1]]).unwrap().1.to_string(), hash);
        assert!(found(&[]).is_err());
        assert!(found(&["application/wasm", "application/wasm"]).is_err());
        let large = layer_of(&manifest(&["application/wasm"], 11), 10).unwrap_err().to_string();
        assert!(large.contains("11 bytes"), "{large}");
        assert!(layer_of(b"{\"manifests\": []}", 10).is_err());
    }

    #[test]
    fn a_challenge_names_where_tokens_are() {
        let challenge = "Bearer realm=\"https://a/token\",service=\"a\",scope=\"x\"";
        assert_eq!(parameter(challenge, "realm"), Some("https://a/token"));
        assert_eq!(parameter(challenge, "service"), Some("a"));
        assert_eq!(parameter("Basic realm=\"a\"", "realm"), None);
        assert_eq!(parameter("Bearer realm=\"a", "realm"), None);
    }

    #[test]
    fn what_came_with_another_digest_is_not_taken() {
        let asked = digest_of(b"whole");
        assert!(verified("the component", b"whole", Some(&asked)).is_ok());
        let error = verified("the component", b"other", Some(&asked)).unwrap_err();
        assert!(matches!(error, PullError::OtherDigest { .. }), "{error}");
    }
}
