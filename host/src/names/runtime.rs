//! Names from a runtime's CRI socket, as a kubelet sees them: containerd and CRI-O.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use whodunit_cri::{
    Call, Client, Code, ContainerFilter, ContainerStatusRequest, ListContainersRequest,
    ListPodSandboxRequest, PodSandbox, PodSandboxFilter, VersionRequest,
};

use super::PAUSE;
use super::source::{CALL, Names, Source, Trouble, digest_of};
use crate::directory::Container;

/// Where runtimes have their sockets: containerd, CRI-O, that of k3s, and what stands before Docker.
pub(super) const USUAL: [&str; 4] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/cri-dockerd.sock",
];

/// The largest answer: it is about one container.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// A runtime.
pub(super) struct Cri {
    socket: PathBuf,
    client: Option<Client>,
}

impl Cri {
    pub(super) fn new(socket: PathBuf) -> Cri {
        Cri { socket, client: None }
    }

    fn client(&mut self) -> Result<&Client, Trouble> {
        if !self.socket.exists() {
            self.client = None;
            return Err(Trouble::Absent(format!("there is no {}", self.socket.display())));
        }
        if self.client.is_none() {
            let made = Client::new(&self.socket);
            self.client = Some(made.map_err(|error| Trouble::Failed(error.to_string()))?);
        }
        Ok(self.client.as_ref().expect("it was there, or was made"))
    }
}

/// Questions about one container, all within the same time.
struct Inquiry<'a> {
    client: &'a Client,
    by: Instant,
}

impl Inquiry<'_> {
    /// None where the runtime says that there is nothing of that id.
    fn ask<Request: Call>(&self, request: Request) -> Result<Option<Request::Answer>, Trouble> {
        let at_most = self.by.saturating_duration_since(Instant::now());
        match self.client.call(request, at_most, MAX_ANSWER_BYTES) {
            Ok(answer) => Ok(Some(answer)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => {
                let (method, message) = (Request::METHOD, status.message());
                Err(Trouble::Failed(format!("{method}: {message}")))
            }
        }
    }

    fn sandbox(&self, id: &str) -> Result<Option<PodSandbox>, Trouble> {
        let filter = Some(PodSandboxFilter { id: id.to_owned() });
        let found = self.ask(ListPodSandboxRequest { filter })?;
        // The beginning of an id is enough for a runtime, and not for us.
        Ok(found.into_iter().flat_map(|found| found.items).find(|it| it.id == id))
    }

    fn names_of(&self, id: &str) -> Result<Option<Names>, Trouble> {
        let filter = Some(ContainerFilter { id: id.to_owned() });
        let listed = self.ask(ListContainersRequest { filter })?;
        let listed = listed.into_iter().flat_map(|listed| listed.containers);
        let Some(container) = listed.into_iter().find(|it| it.id == id) else {
            let is_pause = |pod: PodSandbox| Names {
                name: Some(PAUSE.to_owned()),
                is_pause: true,
                ..of_pod(&pod)
            };
            return Ok(self.sandbox(id)?.map(is_pause));
        };
        let pod = self.sandbox(&container.pod_sandbox_id)?;
        let mut names = pod.as_ref().map(of_pod).unwrap_or_default();
        names.labels.extend(container.labels);
        names.name = container.metadata.map(|metadata| metadata.name);
        // In a list the image is as the kubelet asked for it: by an id. Its status has the name.
        let status = self.ask(ContainerStatusRequest { container_id: id.to_owned() })?;
        let status = status.and_then(|answer| answer.status);
        let (image, reference) = match status {
            Some(status) => (status.image, status.image_ref),
            None => (container.image, container.image_ref),
        };
        names.image = image.map(|image| image.image).filter(|image| !image.is_empty());
        names.image_digest = digest_of(&reference);
        // One that was never pulled has no digest.
        let is_id = names.image_digest.is_none() && reference.starts_with("sha256:");
        names.image_id = is_id.then_some(reference);
        Ok(Some(names))
    }
}

/// What a container has of its pod.
fn of_pod(pod: &PodSandbox) -> Names {
    let metadata = pod.metadata.as_ref();
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    Names {
        pod_name: metadata.and_then(|it| text(&it.name)),
        pod_namespace: metadata.and_then(|it| text(&it.namespace)),
        labels: pod.labels.clone().into_iter().collect(),
        ..Names::default()
    }
}

impl Source for Cri {
    fn name(&self) -> &'static str {
        "cri"
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
        let inquiry = Inquiry { client: self.client()?, by };
        inquiry.names_of(&container.runtime_id)
    }

    fn greet(&mut self, at_most: Duration) -> Result<String, Trouble> {
        let by = Instant::now() + at_most.min(CALL);
        let inquiry = Inquiry { client: self.client()?, by };
        let version = inquiry.ask(VersionRequest { version: "v1".to_owned() })?;
        let version = version.unwrap_or_default();
        Ok(format!("{} {}", version.runtime_name, version.runtime_version))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// What becomes of a question to a server that does this with whoever comes.
    fn trouble(serve: impl FnOnce(UnixListener) + Send + 'static) -> (Trouble, Duration) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || serve(listener));
        let begin = Instant::now();
        let trouble = Cri::new(socket).greet(Duration::from_millis(300)).unwrap_err();
        (trouble, begin.elapsed())
    }

    #[test]
    fn a_socket_that_is_not_there_is_no_failure() {
        let mut cri = Cri::new("/no/such/socket".into());
        assert!(matches!(cri.greet(CALL), Err(Trouble::Absent(_))));
    }

    #[test]
    fn one_that_never_answers_costs_a_bounded_time() {
        let (trouble, took) = trouble(|listener| {
            let connection = listener.accept().unwrap();
            std::thread::sleep(Duration::from_secs(20));
            drop(connection);
        });
        assert!(
            matches!(&trouble, Trouble::Failed(why) if why.starts_with("Version: ")),
            "{trouble:?}"
        );
        assert!(took < Duration::from_secs(10), "{took:?}");
    }

    #[test]
    fn one_that_speaks_something_else_is_a_failure() {
        let (trouble, took) = trouble(|listener| {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let _ = connection.read(&mut [0; 1024]);
                let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
            }
        });
        assert!(matches!(trouble, Trouble::Failed(_)), "{trouble:?}");
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}
