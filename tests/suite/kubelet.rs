//! Pods as a kubelet makes them, over the CRI of a real containerd, with the shipped image as their sidecar.
//!
//! There is no kubelet here: cgroup parents, labels, mounts and capabilities are what one would ask for. The images of the
//! application are stand-ins of busybox with known content.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use libtest_mimic::Failed;
use serde_json::Value;
use tempfile::TempDir;
use whodunit_containers::condition::{PATIENCE, wait_for};
use whodunit_containers::cri::{Containerd, CriContainer, CriPod, PAUSE_IMAGE};
use whodunit_containers::daemon::binary;
use whodunit_containers::podman::Podman;
use whodunit_containers::{Hierarchies, Pod, find_program};

use crate::report::expect;

/// The example that is shipped, and the configuration of its sidecar.
pub(crate) const MANIFEST: &str = include_str!("../../deploy/kubernetes/example-app.yaml");
const CONFIGURATION: &str = include_str!("../../deploy/kubernetes/base/configuration.yaml");
/// What the image is made with.
const CONTAINERFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/Containerfile");
/// Images as the manifest names them, as other runtimes get them from Podman.
pub(crate) const APPLICATION: &str = "localhost/nginx:1.29";
const DAEMON: &str = "localhost/whodunit:0.1.0";
/// What the sidecar is called.
pub(crate) const SIDECAR: &str = "whodunit";
/// Where the image has the daemon.
pub(crate) const PROGRAM: &str = "/usr/local/bin/whodunit";

/// A Podman that has the images of the manifest. The application's are stand-ins of busybox.
pub(crate) fn podman(has_seccomp: bool) -> Result<Podman, Failed> {
    let podman = Podman::new(has_seccomp)?;
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("root");
    let bin = root.join("bin");
    fs::create_dir_all(&bin)?;
    fs::copy(find_program("busybox").ok_or("there is no busybox")?, bin.join("busybox"))?;
    for applet in ["sh", "cat", "sleep", "true"] {
        symlink("busybox", bin.join(applet))?;
    }
    let path = "ENV PATH=/bin";
    podman.import(&root, &[path], "busybox:1.37")?;
    for (file, content) in [
        ("srv/index.html", "a page"),
        ("etc/nginx/nginx.conf", "events {}\n"),
        ("etc/passwd", "root:x:0:0:root:/:/bin/sh\n"),
    ] {
        let file = root.join(file);
        fs::create_dir_all(file.parent().ok_or("a file has a folder")?)?;
        fs::write(file, content)?;
    }
    let serve = "CMD [\"sh\", \"-c\", \"while true; do cat /srv/index.html; sleep 1; done\"]";
    podman.import(&root, &[path, serve], "nginx:1.29")?;
    let context = folder.path().join("context");
    fs::create_dir_all(&context)?;
    fs::copy(binary()?, context.join("whodunit"))?;
    podman.build(Path::new(CONTAINERFILE), &context, "whodunit:0.1.0")?;
    Ok(podman)
}

/// The images as containerd takes them, made once for all trials that share this.
#[derive(Clone, Default)]
pub(crate) struct Images(Arc<OnceLock<Result<Archives, String>>>);

struct Archives {
    _folder: TempDir,
    /// Archives, each with the name of the image that it holds.
    files: Vec<(PathBuf, &'static str)>,
}

impl Images {
    fn import_into(&self, containerd: &Containerd) -> Result<(), Failed> {
        let made = self.0.get_or_init(|| archives().map_err(|it| failure(&it)));
        for (file, image) in &made.as_ref().map_err(Failed::from)?.files {
            containerd.import(file, image)?;
        }
        Ok(())
    }
}

fn failure(failed: &Failed) -> String {
    failed.message().unwrap_or("the images cannot be made").to_owned()
}

fn archives() -> Result<Archives, Failed> {
    let podman = podman(false)?;
    // It does not even pause, and is left out all the same.
    podman.tag(APPLICATION, PAUSE_IMAGE)?;
    let folder = tempfile::tempdir()?;
    let mut files = Vec::new();
    for (index, image) in [PAUSE_IMAGE, APPLICATION, DAEMON].into_iter().enumerate() {
        let file = folder.path().join(format!("{index}.tar"));
        fs::copy(podman.save(image)?, &file)?;
        files.push((file, image));
    }
    Ok(Archives { _folder: folder, files })
}

/// How the sidecar learns what containers are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NamesFrom {
    /// The bundles of containerd are mounted into it.
    Bundles,
    /// The socket of containerd is, and nothing else of it.
    Socket,
}

/// A pod in the cgroup that a kubelet gives to a pod.
pub(crate) struct KubePod {
    /// What is mounted into the sidecar as its state.
    state: TempDir,
    pod: CriPod,
    _place: Pod,
    containerd: Containerd,
}

impl KubePod {
    /// A pod without a container, but for the one that holds its namespaces.
    pub(crate) fn new(images: &Images, name: &str) -> Result<KubePod, Failed> {
        let mut containerd = Containerd::start()?;
        images.import_into(&containerd)?;
        let place = Pod::new("cri")?;
        let uid = place.cgroup_path().rsplit_once("/pod").map(|(_, uid)| uid.to_owned());
        let pod = containerd.pod(name, &uid.ok_or("no uid")?, &place.cgroup_path())?;
        Ok(KubePod { state: tempfile::tempdir()?, pod, _place: place, containerd })
    }

    /// Starts a container of the application. Returns its id.
    pub(crate) fn run(&self, name: &str, command: &[&str]) -> Result<String, Failed> {
        let container =
            CriContainer { name, image: APPLICATION, command, ..CriContainer::default() };
        Ok(self.containerd.run(&self.pod, &container)?)
    }

    /// Starts a container that does nothing until something is executed in it. Returns its id.
    pub(crate) fn idle(&self, name: &str) -> Result<String, Failed> {
        self.run(name, &["sleep", "3600"])
    }

    /// Executes a program in a container and waits for its end. Returns what it wrote.
    pub(crate) fn exec(&self, id: &str, command: &[&str]) -> Result<String, Failed> {
        Ok(self.containerd.exec(id, command)?)
    }

    /// Starts the daemon of the shipped image as a container of the pod, with the capabilities of the shipped
    /// manifest and a root that it cannot write to. Returns its id.
    pub(crate) fn sidecar(&self, names: NamesFrom) -> Result<String, Failed> {
        self.sidecar_that(names, "end")
    }

    /// The same, where nobody else needs to be there yet.
    pub(crate) fn native_sidecar(&self, names: NamesFrom) -> Result<String, Failed> {
        self.sidecar_that(names, "wait")
    }

    fn sidecar_that(&self, names: NamesFrom, alone: &str) -> Result<String, Failed> {
        let state = self.state.path();
        let configuration = CONFIGURATION
            .split_once("whodunit.toml: |\n")
            .map(|(_, toml)| toml.lines().map(|line| line.trim_start().to_owned() + "\n"))
            .ok_or("the ConfigMap has no TOML")?
            .collect::<String>()
            .replace("0.0.0.0:9479", "127.0.0.1:0")
            .replace("alone = \"wait\"", &format!("alone = {alone:?}"))
            .replace(
                "cgroup_root = \"/host/cgroup\"\n",
                "cgroup_root = \"/host/cgroup\"\nhost_root = \"/host\"\n",
            );
        let etc = state.join("etc");
        fs::create_dir(&etc)?;
        let faster = "[daemon]\ninterval = \"500ms\"\n";
        fs::write(etc.join("whodunit.toml"), configuration + faster)?;
        let cache = state.join("cache");
        fs::create_dir(&cache)?;
        let cgroup = Hierarchies::find()?.unified;
        let (bundles, socket) = (self.containerd.bundles(), self.containerd.socket());
        let mut mounts = vec![
            (etc.as_path(), "/etc/whodunit", true),
            (state, "/var/lib/whodunit", false),
            (cache.as_path(), "/var/cache/whodunit", false),
            (cgroup.as_path(), "/host/cgroup", true),
            (Path::new("/sys/kernel/tracing"), "/sys/kernel/tracing", true),
        ];
        match names {
            NamesFrom::Bundles => mounts.push((
                bundles.as_path(),
                "/host/run/containerd/io.containerd.runtime.v2.task",
                true,
            )),
            NamesFrom::Socket => {
                mounts.push((socket.as_path(), "/host/run/containerd/containerd.sock", true));
            }
        }
        let capabilities = ["BPF", "PERFMON", "DAC_READ_SEARCH", "SYS_PTRACE"];
        let shipped = format!("add:\n            - {}\n", capabilities.join("\n            - "));
        expect("these are the capabilities of the manifest", MANIFEST.contains(&shipped))?;
        let daemon = CriContainer {
            name: SIDECAR,
            image: DAEMON,
            arguments: &["run", "-c", "/etc/whodunit/whodunit.toml", "--scope", "pod"],
            mounts: &mounts,
            capabilities: Some(&capabilities),
            environment: &[("POD_NAME", "cart"), ("POD_NAMESPACE", "shop")],
            ..CriContainer::default()
        };
        Ok(self.containerd.run(&self.pod, &daemon)?)
    }

    /// Where the report is written.
    pub(crate) fn report_path(&self) -> PathBuf {
        self.state.path().join("report.json")
    }

    /// What the sidecar wrote to its log.
    pub(crate) fn log(&self) -> String {
        self.containerd.logs(&self.pod, SIDECAR)
    }

    /// Waits for a line in the log of the sidecar that fits.
    pub(crate) fn await_log(
        &self,
        what: &str,
        mut fits: impl FnMut(&Value) -> bool,
    ) -> Result<Value, Failed> {
        let found = wait_for(PATIENCE, || {
            let log = self.log();
            let mut lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
            lines.find(|line: &Value| fits(line))
        });
        found.ok_or_else(|| format!("the sidecar never says {what}: {}", self.log()).into())
    }

    /// Waits for a report that fits.
    pub(crate) fn await_report(
        &self,
        what: &str,
        mut fits: impl FnMut(&Value) -> bool,
    ) -> Result<Value, Failed> {
        let mut last = Value::Null;
        let found = wait_for(PATIENCE, || {
            let text = fs::read_to_string(self.report_path()).unwrap_or_default();
            last = serde_json::from_str(&text).unwrap_or_default();
            fits(&last).then(|| last.clone())
        });
        found.ok_or_else(|| {
            format!("no report has {what}: {last:#}; the daemon: {}", self.log()).into()
        })
    }
}
