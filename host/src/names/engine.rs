//! Names from the API of Docker's engine, and from Podman's service: HTTP at a Unix socket.
//!
//! Both answer the same questions, Podman better its own: there a container says which pod it is in, and whether it only
//! holds one. <https://docs.docker.com/reference/api/engine/>, <https://docs.podman.io/en/latest/_static/api.html>.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::http::{Asker, Limits};
use super::source::{Names, Source, Trouble, digest_of};
use super::{PAUSE, docker};
use crate::directory::Container;

/// Where Docker has its socket.
pub(super) const DOCKER: &str = "/run/docker.sock";
/// Where Podman's service has its socket.
pub(super) const PODMAN: &str = "/run/podman/podman.sock";

/// The largest answer: it is about one container, its image or its pod.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// The version of Podman's own API: the oldest that says what is asked here.
const LIBPOD: &str = "/v4.0.0/libpod";

/// Who is behind the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    Docker,
    Podman,
}

/// An engine at its socket.
pub(super) struct EngineApi {
    engine: Engine,
    socket: PathBuf,
    asker: Option<Asker>,
}

/// `ContainerInspect` of Docker.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfDocker {
    id: String,
    /// With a leading slash.
    name: String,
    /// Id of the image.
    #[serde(default)]
    image: String,
    #[serde(default)]
    config: docker::Config,
}

/// `ImageInspect` of Docker.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    #[serde(default)]
    repo_digests: Option<Vec<String>>,
}

/// `ContainerInspectLibpod` of Podman.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfPodman {
    id: String,
    name: String,
    #[serde(default)]
    image_name: String,
    #[serde(default)]
    image_digest: String,
    #[serde(default)]
    is_infra: bool,
    /// Id of the pod.
    #[serde(default)]
    pod: String,
    #[serde(default)]
    config: Labels,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Labels {
    labels: Option<BTreeMap<String, String>>,
}

/// `PodInspectLibpod` of Podman.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pod {
    name: String,
}

/// Who is behind the socket, as both say it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
}

impl EngineApi {
    pub(super) fn new(engine: Engine, socket: PathBuf) -> EngineApi {
        EngineApi { engine, socket, asker: None }
    }

    fn get<T: DeserializeOwned>(&mut self, path: &str, by: Instant) -> Result<Option<T>, Trouble> {
        if !self.socket.exists() {
            return Err(Trouble::Absent(format!("there is no {}", self.socket.display())));
        }
        if self.asker.is_none() {
            let made = Asker::new();
            self.asker = Some(made.map_err(|error| Trouble::Failed(error.to_string()))?);
        }
        let asker = self.asker.as_ref().expect("it was there, or was made");
        let at_most = by.saturating_duration_since(Instant::now());
        asker.at_socket(&self.socket, path, &Limits { at_most, max_bytes: MAX_ANSWER_BYTES })
    }

    fn of_docker(&mut self, id: &str, by: Instant) -> Result<Option<Names>, Trouble> {
        let found: Option<OfDocker> = self.get(&format!("/containers/{id}/json"), by)?;
        // The beginning of an id is enough for an engine, and not for us.
        let Some(found) = found.filter(|found| found.id == id) else {
            return Ok(None);
        };
        let image: Option<Image> = match is_plain(&found.image) {
            true => self.get(&format!("/images/{}/json", found.image), by)?,
            false => None,
        };
        let digests = image.and_then(|image| image.repo_digests).unwrap_or_default();
        let names = docker::names(&found.name, found.config);
        Ok(Some(Names { image_digest: digests.first().and_then(|it| digest_of(it)), ..names }))
    }

    fn of_podman(&mut self, id: &str, by: Instant) -> Result<Option<Names>, Trouble> {
        let found: Option<OfPodman> = self.get(&format!("{LIBPOD}/containers/{id}/json"), by)?;
        let Some(found) = found.filter(|found| found.id == id) else {
            return Ok(None);
        };
        let pod: Option<Pod> = match is_plain(&found.pod) {
            true => self.get(&format!("{LIBPOD}/pods/{}/json", found.pod), by)?,
            false => None,
        };
        let pod_name = pod.map(|pod| pod.name).filter(|name| !name.is_empty());
        // One of `podman kube play` is called by its pod and by what the manifest calls it.
        let own =
            pod_name.as_deref().and_then(|pod| found.name.strip_prefix(pod)?.strip_prefix('-'));
        let name = if found.is_infra { PAUSE } else { own.unwrap_or(&found.name) };
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        Ok(Some(Names {
            name: text(name.to_owned()),
            pod_name,
            pod_namespace: None,
            image: text(found.image_name),
            image_digest: text(found.image_digest).filter(|it| it.starts_with("sha256:")),
            image_id: None,
            labels: found.config.labels.unwrap_or_default(),
            is_pause: found.is_infra,
        }))
    }
}

/// Whether an id, which came over the socket, can be a part of a path and nothing else.
fn is_plain(id: &str) -> bool {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Source for EngineApi {
    fn name(&self) -> &'static str {
        match self.engine {
            Engine::Docker => "docker-api",
            Engine::Podman => "podman-api",
        }
    }

    fn place(&self) -> String {
        self.socket.display().to_string()
    }

    fn names_of(
        &mut self,
        container: &Container,
        at_most: Duration,
    ) -> Result<Option<Names>, Trouble> {
        let by = Instant::now() + at_most;
        match self.engine {
            Engine::Docker => self.of_docker(&container.runtime_id, by),
            Engine::Podman => self.of_podman(&container.runtime_id, by),
        }
    }

    fn greet(&mut self, at_most: Duration) -> Result<String, Trouble> {
        let version: Option<Version> = self.get("/version", Instant::now() + at_most)?;
        let version = version.map_or_else(|| "of no version".to_owned(), |it| it.version);
        let engine = match self.engine {
            Engine::Docker => "Docker",
            Engine::Podman => "Podman",
        };
        Ok(format!("{engine} {version}"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;

    use serde_json::{Value, json};

    use super::*;
    use crate::names::tests::container;

    const ID: &str = "0123456789abcdef";

    /// What comes of these answers by their paths. What is not among them is not there.
    fn names(engine: Engine, answers: &[(&str, Value)]) -> Result<Option<Names>, Trouble> {
        let answers: Vec<(String, String)> =
            answers.iter().map(|(path, body)| ((*path).to_owned(), body.to_string())).collect();
        served(engine, move |path| {
            let found = answers.iter().find(|(known, _)| known == path);
            found.map_or_else(
                || "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
                |(_, body)| {
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                },
            )
        })
    }

    fn served(
        engine: Engine,
        answer: impl Fn(&str) -> String + Send + 'static,
    ) -> Result<Option<Names>, Trouble> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let mut line = String::new();
                let mut reader = BufReader::new(connection.try_clone().unwrap());
                reader.read_line(&mut line).unwrap();
                let path = line.split(' ').nth(1).unwrap_or_default();
                let _ = connection.write_all(answer(path).as_bytes());
            }
        });
        let mut api = EngineApi::new(engine, socket);
        api.names_of(&container(ID), Duration::from_secs(10))
    }

    #[test]
    fn docker_gives_name_image_digest_and_labels() {
        let container = json!({
            "Id": ID, "Name": "/web", "Image": "sha256:0a",
            "Config": { "Image": "nginx:1.29", "Labels": { "app": "cart" } },
        });
        let image = json!({ "RepoDigests": ["nginx@sha256:0b"] });
        let answers =
            [("/containers/0123456789abcdef/json", container), ("/images/sha256:0a/json", image)];
        let names = names(Engine::Docker, &answers).unwrap().unwrap();
        assert_eq!(names.name.as_deref(), Some("web"));
        assert_eq!(names.image.as_deref(), Some("nginx:1.29"));
        assert_eq!(names.image_digest.as_deref(), Some("sha256:0b"));
        assert_eq!(names.labels.get("app").map(String::as_str), Some("cart"));
    }

    fn of_podman(name: &str, is_infra: bool) -> Names {
        let container = json!({
            "Id": ID, "Name": name, "ImageName": "localhost/nginx:1.29", "ImageDigest": "sha256:0b",
            "IsInfra": is_infra, "Pod": "0c", "Config": { "Labels": null },
        });
        let pod = json!({ "Name": "cart" });
        let answers = [
            ("/v4.0.0/libpod/containers/0123456789abcdef/json", container),
            ("/v4.0.0/libpod/pods/0c/json", pod),
        ];
        names(Engine::Podman, &answers).unwrap().unwrap()
    }

    #[test]
    fn a_container_of_podman_goes_by_the_name_of_the_manifest() {
        let names = of_podman("cart-web", false);
        assert_eq!((names.name.as_deref(), names.pod_name.as_deref()), (Some("web"), Some("cart")));
        assert_eq!(names.image_digest.as_deref(), Some("sha256:0b"));
        let infra = of_podman("0c-infra", true);
        assert_eq!((infra.name.as_deref(), infra.is_pause), (Some(PAUSE), true));
    }

    #[test]
    fn an_answer_about_somebody_else_names_nobody() {
        let other = json!({ "Id": "0123456789abcdefff", "Name": "/other" });
        let answers = [("/containers/0123456789abcdef/json", other)];
        assert_eq!(names(Engine::Docker, &answers), Ok(None));
        assert_eq!(names(Engine::Docker, &[]), Ok(None));
    }

    #[test]
    fn an_answer_that_is_none_is_a_failure() {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
            "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"Id\":7",
            "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
            "\x00\x01\x02 what is this\r\n\r\n",
            "",
        ] {
            let served = served(Engine::Docker, move |_| answer.to_owned());
            assert!(matches!(served, Err(Trouble::Failed(_))), "{answer:?}: {served:?}");
        }
    }

    #[test]
    fn an_answer_without_an_end_is_cut() {
        let begin = Instant::now();
        let served = served(Engine::Docker, |_| {
            let body = "x".repeat(MAX_ANSWER_BYTES + 1);
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", 1_u64 << 40)
        });
        assert!(matches!(served, Err(Trouble::Failed(_))), "{served:?}");
        assert!(begin.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn what_an_engine_calls_an_image_cannot_lead_elsewhere() {
        assert!(is_plain("sha256:0123abcdef"));
        for id in ["", "sha256:", "../version", "a/b", "0123?x=1"] {
            assert!(!is_plain(id), "{id}");
        }
    }
}
