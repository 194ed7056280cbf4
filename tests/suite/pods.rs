//! Pods that something else than these tests made: of Podman, from the manifest that is shipped, and of containerd, as a
//! kubelet makes them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use whodunit_containers::condition::{PATIENCE, wait_for, wait_until};
use whodunit_containers::cri::{Containerd, CriContainer, CriPod, PAUSE_IMAGE};
use whodunit_containers::daemon::binary;
use whodunit_containers::podman::Podman;
use whodunit_containers::{Hierarchies, Pod, find_program};

use crate::report::{expect, expect_eq, lists};
use crate::{Outcome, machine, needing};

/// The sidecar that is shipped, and its configuration.
const MANIFEST: &str = include_str!("../../deploy/kubernetes/overlays/sidecar/example-app.yaml");
const CONFIGURATION: &str = include_str!("../../deploy/kubernetes/base/configuration.yaml");
/// What the image is made with.
const CONTAINERFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/Containerfile");
/// Images as the manifest names them, as other runtimes get them from Podman.
const APPLICATION: &str = "localhost/nginx:1.29";
const DAEMON: &str = "localhost/whodunit:0.1.0";
/// What `podman kube play` makes of the manifest's Deployment.
const POD: &str = "example-app-pod-0";

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |name: &str, run: fn() -> Outcome| needing(name, machine::lacks_for_podman, run);
    vec![
        trial("pods::the_shipped_sidecar_names_three_containers_in_podman", three_containers),
        trial("pods::the_shipped_sidecar_names_two_containers_in_podman", two_containers),
        trial("pods::a_pod_of_podman_with_only_the_daemon_is_an_error", only_us),
        needing(
            "pods::a_sidecar_names_three_containers_in_containerd",
            machine::lacks_for_containerd,
            || in_containerd(&[("helper", "/srv/index.html"), ("web", "/bin/busybox")]),
        ),
        needing(
            "pods::a_sidecar_names_two_containers_in_containerd",
            machine::lacks_for_containerd,
            || in_containerd(&[("web", "/srv/index.html")]),
        ),
        needing(
            "pods::a_seccomp_profile_that_forbids_bpf_is_named",
            || machine::lacks_for_podman().or_else(lacks_old_profile),
            under_seccomp,
        ),
    ]
}

/// What is missing for a profile that forbids `bpf`: newer ones go by the capabilities.
fn lacks_old_profile() -> Option<&'static str> {
    let profile = fs::read_to_string("/usr/share/containers/seccomp.json").unwrap_or_default();
    let goes_by_capability = profile.contains("CAP_BPF");
    (profile.is_empty() || goes_by_capability)
        .then_some("Podman's own seccomp profile allows `bpf` to whoever has CAP_BPF")
}

/// The manifest as Podman can play it, where the daemon's state is the volume `state`.
struct Manifest(String);

impl Manifest {
    /// Podman 4 knows neither native sidecars, nor all of the Downward API, nor probes at named ports, and
    /// its network needs more than there may be here; so these are taken out. What it is about stays: image,
    /// arguments, capabilities, the read-only root, mounts and the configuration. The daemon reads names from
    /// Podman's files, as `docs/discovery.md` says.
    fn for_podman(podman: &Podman) -> Result<Manifest, Failed> {
        let cgroup = Hierarchies::find()?.unified.display().to_string();
        let mut manifest = Manifest(format!("{CONFIGURATION}---\n{MANIFEST}"));
        manifest.replace("\n      containers:\n", "\n")?;
        manifest.replace("      initContainers:\n", "      containers:\n")?;
        manifest.replace("          restartPolicy: Always\n", "")?;
        manifest.replace("automountServiceAccountToken: false", "hostNetwork: true")?;
        manifest.cut("            - name: POD_NAMESPACE\n", "          resources:\n")?;
        manifest.replace("{ path: /sys/fs/cgroup,", &format!("{{ path: {cgroup},"))?;
        manifest.replace("0.0.0.0:9479", "127.0.0.1:0")?;
        manifest.replace(
            "cgroup_root = \"/host/cgroup\"\n",
            "cgroup_root = \"/host/cgroup\"\n    host_root = \"/host\"\n    \
             [daemon]\n    interval = \"500ms\"\n",
        )?;
        let mount = "            - { name: tracing, mountPath";
        let names = "            - { name: names, mountPath: /host/var/lib/containers/storage/overlay-containers, \
                     readOnly: true }\n";
        manifest.replace(mount, &format!("{names}{mount}"))?;
        let volume = "        - name: tracing\n";
        let bundles = podman.bundles().display().to_string();
        let names = format!(
            "        - name: names\n          hostPath: {{ path: {bundles}, type: Directory }}\n"
        );
        manifest.replace(volume, &format!("{names}{volume}"))?;
        Ok(manifest)
    }

    fn replace(&mut self, from: &str, to: &str) -> Outcome {
        expect(format!("the manifest has {from:?}"), self.0.contains(from))?;
        self.0 = self.0.replacen(from, to, 1);
        Ok(())
    }

    /// Takes out what stands between, with the first of both.
    fn cut(&mut self, first: &str, behind: &str) -> Outcome {
        let place = self.0.find(first).zip(self.0.find(behind));
        let (start, end) = place.ok_or("the manifest has no such part")?;
        self.0.replace_range(start..end, "");
        Ok(())
    }
}

/// A Podman that has the images of the manifest. The application's are stand-ins of busybox.
fn podman(has_seccomp: bool) -> Result<Podman, Failed> {
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
    fs::create_dir_all(root.join("srv"))?;
    fs::write(root.join("srv/index.html"), "a page")?;
    let serve = "CMD [\"sh\", \"-c\", \"while true; do cat /srv/index.html; sleep 1; done\"]";
    podman.import(&root, &[path, serve], "nginx:1.29")?;
    let context = folder.path().join("context");
    fs::create_dir_all(&context)?;
    fs::copy(binary()?, context.join("whodunit"))?;
    podman.build(Path::new(CONTAINERFILE), &context, "whodunit:0.1.0")?;
    Ok(podman)
}

fn three_containers() -> Outcome {
    let podman = podman(false)?;
    let manifest = Manifest::for_podman(&podman)?;
    names_are(&podman, &manifest, &[("helper", "/etc/hostname"), ("web", "/srv/index.html")])
}

fn two_containers() -> Outcome {
    let podman = podman(false)?;
    let mut manifest = Manifest::for_podman(&podman)?;
    manifest.cut("        - name: helper\n", "      volumes:\n")?;
    names_are(&podman, &manifest, &[("web", "/srv/index.html")])
}

fn names_are(podman: &Podman, manifest: &Manifest, expected: &[(&str, &str)]) -> Outcome {
    podman.play(&manifest.0)?;
    let report = podman.volume("state").join("report.json");
    let logs = || podman.logs(&format!("{POD}-whodunit")).unwrap_or_else(|it| it.to_string());
    let report = report_of(&report, expected, logs)?;
    for container in report["containers"].as_array().into_iter().flatten() {
        let pod = &container["attributes"]["pod-name"];
        expect_eq("the pod of a container", pod, &Value::from(POD))?;
        expect_eq("its runtime", &container["runtime"], &Value::from("podman"))?;
    }
    Ok(())
}

/// A pod with these containers beside the daemon, in the cgroup that a kubelet gives to a pod. Each reads
/// its file for ever.
fn in_containerd(expected: &[(&str, &str)]) -> Outcome {
    let images = podman(false)?;
    let mut containerd = Containerd::start()?;
    // It does not even pause, and is left out all the same.
    images.tag(APPLICATION, PAUSE_IMAGE)?;
    for image in [PAUSE_IMAGE, APPLICATION, DAEMON] {
        containerd.import(&images.save(image)?)?;
    }
    let place = Pod::new("cri")?;
    let uid = place.cgroup_path().rsplit_once("/pod").map(|(_, uid)| uid.to_owned());
    let pod = containerd.pod("cart", &uid.ok_or("no uid")?, &place.cgroup_path())?;
    // Like an init container: it is over before the daemon comes.
    let over = CriContainer { name: "prepare", command: &["true"], ..application() };
    containerd.run(&pod, &over)?;
    for (name, file) in expected {
        let script = format!("while true; do cat {file} > /dev/null; sleep 1; done");
        let command = ["sh", "-c", &script];
        containerd.run(&pod, &CriContainer { name, command: &command, ..application() })?;
    }
    let state = tempfile::tempdir()?;
    let daemon = sidecar(&containerd, &pod, state.path())?;
    let report = report_of(&state.path().join("report.json"), expected, || daemon)?;
    for container in report["containers"].as_array().into_iter().flatten() {
        let attributes = &container["attributes"];
        expect_eq("the pod of a container", &attributes["pod-name"], &Value::from("cart"))?;
        expect_eq("its namespace", &attributes["pod-namespace"], &Value::from("shop"))?;
        let image = attributes["image"].as_str().unwrap_or_default();
        expect_eq("its image", &image, &APPLICATION)?;
    }
    Ok(())
}

fn application() -> CriContainer<'static> {
    CriContainer { image: APPLICATION, ..CriContainer::default() }
}

/// Starts the daemon of the shipped image as a container of the pod, with the capabilities of the shipped
/// manifest and a root that it cannot write to. Returns its id.
fn sidecar(containerd: &Containerd, pod: &CriPod, state: &Path) -> Result<String, Failed> {
    let configuration = CONFIGURATION
        .split_once("whodunit.toml: |\n")
        .map(|(_, toml)| toml.lines().map(|line| line.trim_start().to_owned() + "\n"))
        .ok_or("the ConfigMap has no TOML")?
        .collect::<String>()
        .replace("0.0.0.0:9479", "127.0.0.1:0")
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
    let bundles = containerd.bundles();
    let mounts = [
        (etc.as_path(), "/etc/whodunit", true),
        (state, "/var/lib/whodunit", false),
        (cache.as_path(), "/var/cache/whodunit", false),
        (cgroup.as_path(), "/host/cgroup", true),
        (Path::new("/sys/kernel/tracing"), "/sys/kernel/tracing", true),
        (bundles.as_path(), "/host/run/containerd/io.containerd.runtime.v2.task", true),
    ];
    let capabilities = ["BPF", "PERFMON", "DAC_READ_SEARCH", "SYS_PTRACE"];
    let shipped = format!("add: [{}]", capabilities.join(", "));
    expect("these are the capabilities of the manifest", MANIFEST.contains(&shipped))?;
    let daemon = CriContainer {
        name: "whodunit",
        image: DAEMON,
        command: &[],
        arguments: &["run", "-c", "/etc/whodunit/whodunit.toml", "--scope", "pod"],
        mounts: &mounts,
        capabilities: Some(&capabilities),
    };
    Ok(containerd.run(pod, &daemon)?)
}

/// The report, once it has these containers, each with its file: and nobody else.
fn report_of(
    path: &Path,
    expected: &[(&str, &str)],
    logs: impl FnOnce() -> String,
) -> Result<Value, Failed> {
    let mut last = Value::Null;
    let is_whole = wait_until(PATIENCE, || {
        let text = fs::read_to_string(path).unwrap_or_default();
        last = serde_json::from_str(&text).unwrap_or_default();
        expected.iter().all(|(name, file)| lists(&last, name, "files", file))
    });
    if !is_whole {
        return Err(format!("the report is {last:#}; the daemon: {}", logs()).into());
    }
    let names = |list: &str| -> Vec<Value> {
        last[list].as_array().into_iter().flatten().map(|it| it["name"].clone()).collect()
    };
    let wanted: Vec<Value> = expected.iter().map(|(name, _)| Value::from(*name)).collect();
    let mut found = names("containers");
    found.sort_by_key(Value::to_string);
    expect_eq("containers", &found, &wanted)?;
    expect_eq("ended containers", &names("ended_containers"), &Vec::new())?;
    for container in last["containers"].as_array().into_iter().flatten() {
        expect_eq("what named it", &container["name_source"], &Value::from("oci"))?;
    }
    expect_eq("lost", &last["dropped_events"], &Value::from(0))?;
    Ok(last)
}

/// The container that holds the pod's namespaces is no company.
fn only_us() -> Outcome {
    let podman = podman(false)?;
    let mut manifest = Manifest::for_podman(&podman)?;
    manifest.cut("        - name: web\n", "      volumes:\n")?;
    says(&podman, &manifest, "whodunit: error: no containers discovered (pod has only whodunit?)")
}

/// Podman's own profile, which allows less than the capabilities do.
fn under_seccomp() -> Outcome {
    let podman = podman(true)?;
    let manifest = Manifest::for_podman(&podman)?;
    says(&podman, &manifest, "whodunit: error: something forbids BPF to this process")
}

/// Expects these words of the daemon.
fn says(podman: &Podman, manifest: &Manifest, words: &str) -> Outcome {
    podman.play(&manifest.0)?;
    let said = wait_for(PATIENCE, || {
        let said = podman.logs(&format!("{POD}-whodunit")).unwrap_or_default();
        said.contains("error: ").then_some(said)
    });
    let said = said.ok_or("the daemon says nothing")?;
    expect(format!("it says {words:?}: {said}"), said.contains(words))
}
