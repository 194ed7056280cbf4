//! Pods that something else than these tests made: of Podman, from the manifest that is shipped, and of containerd, as a
//! kubelet makes them.

use std::fs;
use std::path::Path;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use whodunit_containers::Hierarchies;
use whodunit_containers::condition::{PATIENCE, wait_for, wait_until};
use whodunit_containers::podman::Podman;

use crate::kubelet::{APPLICATION, Images, KubePod, MANIFEST, NamesFrom, podman};
use crate::report::{expect, expect_eq, lists};
use crate::{Outcome, machine, needing};

/// What `podman kube play` makes of the manifest's Deployment.
const POD: &str = "example-app-pod-0";
/// Where the second container of the manifest begins, and where the daemon's.
const HELPER: &str = "      - command:\n        - sh\n";
const DAEMON: &str = "      - args:\n        - run\n";

pub(crate) fn trials(images: &Images) -> Vec<Trial> {
    let (two, three, alone) = (images.clone(), images.clone(), images.clone());
    let trial = |name: &str, run: fn() -> Outcome| needing(name, machine::lacks_for_podman, run);
    vec![
        trial("pods::the_shipped_sidecar_names_three_containers_in_podman", three_containers),
        trial("pods::the_shipped_sidecar_names_two_containers_in_podman", two_containers),
        trial("pods::a_pod_of_podman_with_only_the_daemon_is_an_error", only_us),
        needing(
            "pods::a_sidecar_names_three_containers_in_containerd",
            machine::lacks_for_containerd,
            move || {
                let expected = [("helper", "/srv/index.html"), ("web", "/bin/busybox")];
                in_containerd(&three, &expected)
            },
        ),
        needing(
            "pods::a_sidecar_names_two_containers_in_containerd",
            machine::lacks_for_containerd,
            move || in_containerd(&two, &[("web", "/srv/index.html")]),
        ),
        needing(
            "pods::a_native_sidecar_waits_for_the_others",
            machine::lacks_for_containerd,
            move || native(&alone),
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
    /// Podman 4 knows neither native sidecars, nor all of the Downward API, nor probes at named ports, nor
    /// projected volumes, and its network needs more than there may be here; so these are taken out. What it is about stays: image,
    /// arguments, capabilities, the read-only root, mounts and the configuration. The daemon reads names from
    /// Podman's files, as `docs/discovery.md` says.
    fn for_podman(podman: &Podman) -> Result<Manifest, Failed> {
        let cgroup = Hierarchies::find()?.unified.display().to_string();
        let objects = MANIFEST.find("apiVersion: v1\ndata:\n");
        let objects = objects.ok_or("the manifest has no ConfigMap")?;
        let mut manifest = Manifest(MANIFEST[objects..].to_owned());
        // Its list becomes one with that of the containers, which comes before it.
        manifest.replace("      initContainers:\n", "")?;
        manifest.replace("        restartPolicy: Always\n", "")?;
        manifest.replace("automountServiceAccountToken: false", "hostNetwork: true")?;
        manifest.cut(
            "        - mountPath: /var/run/secrets/kubernetes.io/serviceaccount\n",
            "      serviceAccountName:",
        )?;
        let volume = manifest.0.find("      - name: api\n");
        manifest.0.truncate(volume.ok_or("the manifest has no such volume")?);
        manifest.replace("alone = \"wait\"\n", "alone = \"end\"\n")?;
        manifest.cut("        - name: POD_NAMESPACE\n", "        image: whodunit:")?;
        manifest.cut("        livenessProbe:\n", "        name: whodunit\n")?;
        manifest.cut("        ports:\n", "        resources:\n")?;
        manifest.cut("        startupProbe:\n", "        volumeMounts:\n")?;
        manifest.replace("path: /sys/fs/cgroup\n", &format!("path: {cgroup}\n"))?;
        manifest.replace("0.0.0.0:9479", "127.0.0.1:0")?;
        manifest.replace(
            "cgroup_root = \"/host/cgroup\"\n",
            "cgroup_root = \"/host/cgroup\"\n    host_root = \"/host\"\n",
        )?;
        let faster = "    [daemon]\n    interval = \"500ms\"\n";
        manifest.replace("    [http]\n", &format!("{faster}    [http]\n"))?;
        let mount = "        - mountPath: /sys/kernel/tracing\n";
        let names = "        - mountPath: /host/var/lib/containers/storage/overlay-containers\n          name: names\n          \
                     readOnly: true\n";
        manifest.replace(mount, &format!("{names}{mount}"))?;
        let volume = "      - hostPath:\n          path: /sys/kernel/tracing\n";
        let bundles = podman.bundles().display().to_string();
        let names = format!(
            "      - hostPath:\n          path: {bundles}\n          type: Directory\n        name: names\n"
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
        let start = self.0.find(first).ok_or_else(|| format!("the manifest has no {first:?}"))?;
        let length = self.0[start..].find(behind);
        let end = start + length.ok_or_else(|| format!("no {behind:?} behind {first:?}"))?;
        self.0.replace_range(start..end, "");
        Ok(())
    }
}

fn three_containers() -> Outcome {
    let podman = podman(false)?;
    let manifest = Manifest::for_podman(&podman)?;
    names_are(&podman, &manifest, &[("helper", "/etc/hostname"), ("web", "/srv/index.html")])
}

fn two_containers() -> Outcome {
    let podman = podman(false)?;
    let mut manifest = Manifest::for_podman(&podman)?;
    manifest.cut(HELPER, DAEMON)?;
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

/// A pod with these containers beside the daemon. Each reads its file for ever.
fn in_containerd(images: &Images, expected: &[(&str, &str)]) -> Outcome {
    let pod = KubePod::new(images, "cart")?;
    // Like an init container: it is over before the daemon comes.
    pod.run("prepare", &["true"])?;
    for (name, file) in expected {
        let script = format!("while true; do cat {file} > /dev/null; sleep 1; done");
        pod.run(name, &["sh", "-c", &script])?;
    }
    pod.sidecar(NamesFrom::Bundles)?;
    let report = report_of(&pod.report_path(), expected, || pod.log())?;
    for container in report["containers"].as_array().into_iter().flatten() {
        let attributes = &container["attributes"];
        expect_eq("the pod of a container", &attributes["pod-name"], &Value::from("cart"))?;
        expect_eq("its namespace", &attributes["pod-namespace"], &Value::from("shop"))?;
        let image = attributes["image"].as_str().unwrap_or_default();
        expect_eq("its image", &image, &APPLICATION)?;
    }
    Ok(())
}

/// The daemon is the first in the pod, as a native sidecar is, and sees the others from their birth.
fn native(images: &Images) -> Outcome {
    let pod = KubePod::new(images, "cart")?;
    pod.native_sidecar(NamesFrom::Socket)?;
    let ready = pod.await_log("that it is ready", |line| line["message"] == "ready")?;
    expect_eq("containers", &ready["containers"], &Value::from(0))?;
    pod.run("web", &["sh", "-c", "cat /srv/index.html; sleep 3600"])?;
    let report = pod.await_report("the file of the other", |report| {
        lists(report, "web", "files", "/srv/index.html")
    })?;
    let containers = report["containers"].as_array().ok_or("no containers")?;
    expect_eq("containers", &containers.len(), &1)?;
    expect_eq("from birth", &containers[0]["from_birth"], &Value::from(true))
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
    manifest.cut("      - image: nginx:", DAEMON)?;
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
