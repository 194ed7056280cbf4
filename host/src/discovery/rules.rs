//! What a cgroup is, by its path.
//!
//! Owns the table of path shapes that container runtimes make. Takes a path below the root of the
//! hierarchy and answers from its text alone: never reads the machine, never remembers anything.

/// What a cgroup is, as far as its path tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class<'p> {
    /// A container; everything below it is nested in it.
    Container(Shape<'p>),
    /// What keeps containers running: a monitor, a pause process. So is everything below it.
    Infra,
    /// No container, but it may come to hold some.
    Interior,
}

/// What the path of a container tells about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape<'p> {
    /// Path of the container's own cgroup.
    pub path: &'p [u8],
    /// The runtime, or `unknown` where several make the same shape.
    pub runtime: &'static str,
    /// The runtime's id of it.
    pub id: &'p [u8],
    /// Uid of the Kubernetes pod around it, with dashes where it is a UUID. The uid of a static pod is
    /// 32 hexadecimal digits without any.
    pub pod_uid: Option<String>,
}

/// What the last component of a path is, given that nothing above it decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Component<'p> {
    Container(Shape<'p>),
    Infra,
    /// A folder that is known to be no container: a pod, or a unit of systemd.
    Interior,
    /// No rule knows it.
    Unknown,
}

/// One shape.
///
/// Patterns match the end of a path; with a leading `/` the whole of it. A component is literal text
/// with placeholders: `{id}` is 64 lower-case hexadecimal digits, `{name}` and `{uid}` are anything,
/// `*` is anything or nothing, and the component `{pod}` is a folder that a `Pod` rule matches.
struct Rule {
    pattern: &'static str,
    means: Means,
    /// A path that the rule decides about: shown in the documentation.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "read by the test that writes the documentation")
    )]
    example: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// A container of this runtime.
    Container(&'static str),
    Infra,
    /// A Kubernetes pod: its children are containers.
    Pod,
    Interior,
}

use Means::{Container, Infra, Interior, Pod};

const fn rule(pattern: &'static str, means: Means, example: &'static str) -> Rule {
    Rule { pattern, means, example }
}

/// Length of the ids that runtimes generate, in hexadecimal digits.
const ID_DIGITS: usize = 64;

/// The table. The first rule that matches a component decides about it, so the special goes before the
/// general. `<id>`, `<uid>` and `<uid_>` in the examples stand for an id, a uid, and a uid with
/// underscores.
const RULES: &[Rule] = &[
    // What keeps containers running.
    rule("crio-conmon-{id}.scope", Infra, "/system.slice/crio-conmon-<id>.scope"),
    rule("crio-conmon-{id}", Infra, "/kubepods/burstable/pod<uid>/crio-conmon-<id>"),
    rule("libpod-conmon-{id}.scope", Infra, "/machine.slice/libpod-conmon-<id>.scope"),
    rule("libpod_parent/conmon", Infra, "/libpod_parent/conmon"),
    rule(
        "podman-pause-{name}.scope",
        Infra,
        "/user.slice/user-1000.slice/user@1000.service/user.slice/podman-pause-6a1.scope",
    ),
    rule(
        "podman-{name}.scope",
        Infra,
        "/user.slice/user-1000.slice/user@1000.service/user.slice/podman-4711.scope",
    ),
    rule("lxc.monitor.{name}", Infra, "/lxc.monitor.web"),
    rule("/lxc.monitor/{name}", Infra, "/lxc.monitor/101"),
    rule("lxc.pivot", Infra, "/lxc.pivot"),
    rule("kata_overhead/{name}", Infra, "/kata_overhead/<id>"),
    // Pods.
    rule("kubepods/pod{uid}", Pod, "/kubepods/pod<uid>"),
    rule("kubepods/burstable/pod{uid}", Pod, "/kubepods/burstable/pod<uid>"),
    rule("kubepods/besteffort/pod{uid}", Pod, "/kubelet/kubepods/besteffort/pod<uid>"),
    rule(
        "*kubepods*-pod{uid}.slice",
        Pod,
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid_>.slice",
    ),
    // Containers whose own name says which runtime made them.
    rule(
        "cri-containerd-{id}.scope",
        Container("containerd"),
        "/kubepods.slice/kubepods-pod<uid_>.slice/cri-containerd-<id>.scope",
    ),
    rule(
        "*kubepods*-pod{uid}.slice:cri-containerd:{name}",
        Container("containerd"),
        "/system.slice/containerd.service/kubepods-burstable-pod<uid_>.slice:cri-containerd:<id>",
    ),
    rule("nerdctl-{id}.scope", Container("containerd"), "/system.slice/nerdctl-<id>.scope"),
    rule(
        "crio-{id}.scope",
        Container("cri-o"),
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod<uid_>.slice/crio-<id>.scope",
    ),
    rule("crio-{id}", Container("cri-o"), "/kubepods/besteffort/pod<uid>/crio-<id>"),
    rule("docker-{id}.scope", Container("docker"), "/system.slice/docker-<id>.scope"),
    rule("libpod-{id}.scope", Container("podman"), "/machine.slice/libpod-<id>.scope"),
    rule(
        "libpod-payload-{id}",
        Container("podman"),
        "/system.slice/web.service/libpod-payload-<id>",
    ),
    rule("libpod-{id}", Container("podman"), "/libpod_parent/libpod-<id>"),
    rule("lxc.payload.{name}", Container("lxc"), "/lxc.payload.web"),
    rule("runc-{name}.scope", Container("runc"), "/system.slice/runc-web.scope"),
    rule("crun-{name}.scope", Container("crun"), "/system.slice/crun-web.scope"),
    // Containers by the folder that they are in.
    rule("{pod}/{name}", Container("unknown"), "/kubepods/burstable/pod<uid>/<id>"),
    rule("docker/{id}", Container("docker"), "/docker/<id>"),
    rule("docker/buildkit", Interior, "/docker/buildkit"),
    rule("docker/buildkit/{name}", Container("buildkit"), "/docker/buildkit/u7x2k9"),
    rule("*:docker:{name}", Container("buildkit"), "/system.slice/system.slice:docker:u7x2k9"),
    rule("/buildkit/{name}", Container("buildkit"), "/buildkit/u7x2k9"),
    rule("/default/{name}", Container("containerd"), "/default/web"),
    rule("/k8s.io/{name}", Container("containerd"), "/k8s.io/<id>"),
    rule("/moby/{name}", Container("containerd"), "/moby/<id>"),
    rule("/ecs/*/{id}", Container("docker"), "/ecs/0a1b2c3d/<id>"),
    rule("/ecs/*/{name}", Container("unknown"), "/ecs/0a1b2c3d/0a1b2c3d-1234567890"),
    rule("/lxc.payload/{name}", Container("lxc"), "/lxc.payload/101"),
    rule("/lxc/{name}", Container("lxc"), "/lxc/101"),
    rule(
        "machine.slice/systemd-nspawn@{name}.service/payload",
        Container("systemd-nspawn"),
        "/machine.slice/systemd-nspawn@web.service/payload",
    ),
    rule(
        "machine.slice/machine-{name}.scope/payload",
        Container("systemd-nspawn"),
        "/machine.slice/machine-web.scope/payload",
    ),
    // A Podman pod of the cgroupfs driver looks like a container by its name.
    rule("libpod_parent/{id}", Interior, "/libpod_parent/<id>"),
    rule("{id}", Container("unknown"), "/<id>"),
    // Units of systemd.
    rule("*.slice", Interior, "/system.slice"),
    rule("*.service", Interior, "/system.slice/containerd.service"),
    rule("*.scope", Interior, "/init.scope"),
    rule("*.mount", Interior, "/dev-hugepages.mount"),
    rule("*.socket", Interior, "/system.slice/docker.socket"),
    rule("*.swap", Interior, "/system.slice/dev-sda2.swap"),
];

/// What the cgroup at `path` is. The outermost match decides: what looks like a container inside a
/// container is nested in it.
pub fn classify(path: &[u8]) -> Class<'_> {
    for prefix in prefixes(path) {
        match component(prefix) {
            Component::Container(shape) => return Class::Container(shape),
            Component::Infra => return Class::Infra,
            Component::Interior | Component::Unknown => {}
        }
    }
    Class::Interior
}

/// The innermost container around the cgroup at `path`, itself included. This is the container that a
/// process in that cgroup takes for its own, also where it is nested in another one.
pub(crate) fn nearest_container(path: &[u8]) -> Option<Shape<'_>> {
    let prefixes: Vec<&[u8]> = prefixes(path).collect();
    prefixes.into_iter().rev().find_map(|prefix| match component(prefix) {
        Component::Container(shape) => Some(shape),
        Component::Infra | Component::Interior | Component::Unknown => None,
    })
}

/// What the last component of `path` is, whatever stands above it.
pub(crate) fn component(path: &[u8]) -> Component<'_> {
    let Some((rule, captured)) = first_match(path) else {
        return Component::Unknown;
    };
    match rule.means {
        Container(runtime) => Component::Container(Shape {
            path,
            runtime,
            id: captured.id.unwrap_or_else(|| last_component(path)),
            pod_uid: captured.uid.map(pod_uid).or_else(|| enclosing_pod_uid(path)),
        }),
        Infra => Component::Infra,
        Pod | Interior => Component::Interior,
    }
}

/// What the placeholders of a pattern stand for.
#[derive(Clone, Copy, Default)]
struct Captured<'p> {
    id: Option<&'p [u8]>,
    uid: Option<&'p [u8]>,
}

fn first_match(path: &[u8]) -> Option<(&'static Rule, Captured<'_>)> {
    RULES.iter().find_map(|rule| Some((rule, matches(rule.pattern, path)?)))
}

/// Compares from the last component upward.
fn matches<'p>(pattern: &str, path: &'p [u8]) -> Option<Captured<'p>> {
    let mut captured = Captured::default();
    let mut rest = path;
    for component in pattern.rsplit('/') {
        if component.is_empty() {
            // The pattern's leading slash: nothing may stand above.
            return rest.is_empty().then_some(captured);
        }
        if component == "{pod}" {
            let (rule, of_pod) = first_match(rest)?;
            return (rule.means == Pod).then_some(Captured { uid: of_pod.uid, ..captured });
        }
        let (above, name) = super::root::split(rest)?;
        match_component(component, name, &mut captured)?;
        rest = above;
    }
    Some(captured)
}

/// Compares one component. A placeholder takes as little as it can.
fn match_component<'p>(pattern: &str, text: &'p [u8], captured: &mut Captured<'p>) -> Option<()> {
    let Some(start) = pattern.find(['{', '*']) else {
        return (text == pattern.as_bytes()).then_some(());
    };
    let text = text.strip_prefix(&pattern.as_bytes()[..start])?;
    let pattern = &pattern[start..];
    let end = pattern.find('}').filter(|_| pattern.starts_with('{')).map_or(1, |brace| brace + 1);
    let (placeholder, pattern) = pattern.split_at(end);
    let lengths = match placeholder {
        "*" => 0..=text.len(),
        "{id}" => ID_DIGITS..=ID_DIGITS,
        _ => 1..=text.len(),
    };
    for length in lengths {
        let (taken, rest) = text.split_at_checked(length)?;
        if placeholder == "{id}"
            && !taken.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            return None;
        }
        if match_component(pattern, rest, captured).is_some() {
            match placeholder {
                "{id}" | "{name}" => captured.id = Some(taken),
                "{uid}" => captured.uid = Some(taken),
                _ => {}
            }
            return Some(());
        }
    }
    None
}

/// Every path from the top down to `path` itself.
fn prefixes(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    (1..=path.len())
        .filter(|end| path.get(*end).is_none_or(|next| *next == b'/'))
        .map(|end| &path[..end])
}

fn last_component(path: &[u8]) -> &[u8] {
    super::root::split(path).map_or(path, |(_, name)| name)
}

fn enclosing_pod_uid(path: &[u8]) -> Option<String> {
    let (mut above, _) = super::root::split(path)?;
    loop {
        if let Some((rule, captured)) = first_match(above)
            && rule.means == Pod
        {
            return captured.uid.map(pod_uid);
        }
        above = super::root::split(above)?.0;
    }
}

/// systemd has a dash mean a folder, so the kubelet writes underscores in the names of slices.
fn pod_uid(uid: &[u8]) -> String {
    super::escaped(uid).replace('_', "-")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "6f2b1c1e-8d3a-4c55-9b0e-3f1d2a4b5c6d";

    fn spelled(example: &str) -> String {
        example.replace("<id>", ID).replace("<uid>", UID).replace("<uid_>", &UID.replace('-', "_"))
    }

    /// The table for the documentation, as Markdown.
    fn markdown() -> String {
        let mut table = String::from("| path ends with | is | for example |\n|---|---|---|\n");
        for rule in RULES {
            let means = match rule.means {
                Container("unknown") => "a container".to_owned(),
                Container(runtime) => format!("a container ({runtime})"),
                Infra => "infrastructure".to_owned(),
                Pod => "a pod".to_owned(),
                Interior => "a folder".to_owned(),
            };
            let anchored = if rule.pattern.starts_with('/') { " (whole path)" } else { "" };
            table += &format!("| `{}`{anchored} | {means} | `{}` |\n", rule.pattern, rule.example);
        }
        table
    }

    /// Short form of a classification: `runtime id below-or-at pod`.
    fn said(path: &str) -> String {
        match classify(path.as_bytes()) {
            Class::Container(shape) => {
                let nested = if shape.path.len() < path.len() { " nested" } else { "" };
                let pod = shape.pod_uid.map(|uid| format!(" pod={uid}")).unwrap_or_default();
                let id = String::from_utf8_lossy(shape.id).into_owned();
                format!("{} {id}{pod}{nested}", shape.runtime)
                    .replace(ID, "<id>")
                    .replace(UID, "<uid>")
            }
            Class::Infra => "infra".to_owned(),
            Class::Interior => "interior".to_owned(),
        }
    }

    /// Every shape that is known to be in use: path, and what is to be said of it.
    const SHAPES: &[(&str, &str)] = &[
        // kubelet, cgroupfs driver.
        ("/kubepods", "interior"),
        ("/kubepods/besteffort", "interior"),
        ("/kubepods/burstable/pod<uid>", "interior"),
        ("/kubepods/burstable/pod<uid>/<id>", "unknown <id> pod=<uid>"),
        ("/kubepods/pod<uid>/<id>", "unknown <id> pod=<uid>"),
        ("/kubepods/burstable/pod<uid>/<id>/init.scope", "unknown <id> pod=<uid> nested"),
        ("/kubepods/burstable/pod<uid>/web", "unknown web pod=<uid>"),
        ("/kubepods/burstable/poddemo/web", "unknown web pod=demo"),
        (
            "/kubepods/burstable/pod0123456789abcdef0123456789abcdef/<id>",
            "unknown <id> pod=0123456789abcdef0123456789abcdef",
        ),
        ("/kubepods/burstable/pod<uid>/crio-<id>", "cri-o <id> pod=<uid>"),
        ("/kubepods/burstable/pod<uid>/crio-conmon-<id>", "infra"),
        // kubelet, systemd driver.
        ("/kubepods.slice", "interior"),
        ("/kubepods.slice/kubepods-burstable.slice", "interior"),
        ("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid_>.slice", "interior"),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid_>.slice/cri-containerd-<id>.scope",
            "containerd <id> pod=<uid>",
        ),
        (
            "/kubepods.slice/kubepods-pod<uid_>.slice/cri-containerd-<id>.scope",
            "containerd <id> pod=<uid>",
        ),
        ("/kubepods.slice/kubepods-pod<uid_>.slice/docker-<id>.scope", "docker <id> pod=<uid>"),
        ("/kubepods.slice/kubepods-pod<uid_>.slice/crio-<id>.scope", "cri-o <id> pod=<uid>"),
        (
            "/kubepods.slice/kubepods-pod<uid_>.slice/crio-<id>.scope/container",
            "cri-o <id> pod=<uid> nested",
        ),
        ("/kubepods.slice/kubepods-pod<uid_>.slice/crio-conmon-<id>.scope", "infra"),
        ("/kubepods.slice/kubepods-pod<uid_>.slice/odd", "unknown odd pod=<uid>"),
        (
            "/kubepods.slice/kubepods-pod0123456789abcdef0123456789abcdef.slice/cri-containerd-<id>.scope",
            "containerd <id> pod=0123456789abcdef0123456789abcdef",
        ),
        (
            "/system.slice/containerd.service/kubepods-burstable-pod<uid_>.slice:cri-containerd:<id>",
            "containerd <id> pod=<uid>",
        ),
        // kind, k3s, k3d: a prefix before the kubelet's folders.
        ("/kubelet/kubepods/besteffort/pod<uid>/<id>", "unknown <id> pod=<uid>"),
        (
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod<uid_>.slice/cri-containerd-<id>.scope",
            "containerd <id> pod=<uid>",
        ),
        ("/docker/<id>/kubelet/kubepods/besteffort/pod<uid>/<id>", "docker <id> nested"),
        (
            "/system.slice/docker-<id>.scope/kubelet.slice/kubelet-kubepods.slice",
            "docker <id> nested",
        ),
        // containerd by itself.
        ("/default/web", "containerd web"),
        ("/default/<id>", "containerd <id>"),
        ("/k8s.io/<id>", "containerd <id>"),
        ("/moby/<id>", "containerd <id>"),
        ("/system.slice/nerdctl-<id>.scope", "containerd <id>"),
        ("/elsewhere/default/web", "interior"),
        // CRI-O's monitor outside of the pod.
        ("/system.slice/crio-conmon-<id>.scope", "infra"),
        ("/system.slice/crio.service", "interior"),
        // Docker.
        ("/docker", "interior"),
        ("/docker/<id>", "docker <id>"),
        ("/docker/<id>/docker/<id>", "docker <id> nested"),
        ("/docker/buildkit", "interior"),
        ("/docker/buildkit/u7x2k9", "buildkit u7x2k9"),
        ("/system.slice/system.slice:docker:u7x2k9", "buildkit u7x2k9"),
        ("/system.slice/docker-<id>.scope", "docker <id>"),
        ("/system.slice/docker-<id>.scope/docker/<id>", "docker <id> nested"),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-<id>.scope",
            "docker <id>",
        ),
        ("/system.slice/docker.service", "interior"),
        ("/my.slice/docker-<id>.scope", "docker <id>"),
        // Podman.
        ("/machine.slice/libpod-<id>.scope", "podman <id>"),
        ("/machine.slice/libpod-<id>.scope/container", "podman <id> nested"),
        ("/machine.slice/libpod-conmon-<id>.scope", "infra"),
        ("/machine.slice/machine-libpod_pod_<id>.slice", "interior"),
        ("/machine.slice/machine-libpod_pod_<id>.slice/libpod-<id>.scope", "podman <id>"),
        ("/machine.slice/machine-libpod_pod_<id>.slice/libpod-conmon-<id>.scope", "infra"),
        ("/libpod_parent/libpod-<id>", "podman <id>"),
        ("/libpod_parent/conmon", "infra"),
        ("/libpod_parent/<id>", "interior"),
        ("/libpod_parent/<id>/libpod-<id>", "podman <id>"),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-<id>.scope/container",
            "podman <id> nested",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-conmon-<id>.scope",
            "infra",
        ),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/podman-4711.scope", "infra"),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/podman-pause-6a1.scope",
            "infra",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_<id>.slice/libpod-<id>.scope",
            "podman <id>",
        ),
        ("/system.slice/web.service/libpod-payload-<id>", "podman <id>"),
        ("/system.slice/web.service/runtime", "interior"),
        // runc and crun by themselves.
        ("/<id>", "unknown <id>"),
        ("/custom/parent/<id>", "unknown <id>"),
        ("/system.slice/runc-web.scope", "runc web"),
        ("/system.slice/crun-web.scope", "crun web"),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/crun-web.scope", "crun web"),
        // LXC and LXD.
        ("/lxc.payload.web", "lxc web"),
        ("/lxc.payload.web/system.slice/ssh.service", "lxc web nested"),
        ("/lxc.payload/101", "lxc 101"),
        ("/lxc/101/ns", "lxc 101 nested"),
        ("/lxc.monitor.web", "infra"),
        ("/lxc.monitor/101", "infra"),
        ("/lxc.pivot", "infra"),
        // systemd-nspawn.
        ("/machine.slice/systemd-nspawn@web.service", "interior"),
        (
            "/machine.slice/systemd-nspawn@web.service/payload/init.scope",
            "systemd-nspawn web nested",
        ),
        ("/machine.slice/systemd-nspawn@web.service/supervisor", "interior"),
        ("/machine.slice/machine-web.scope/payload", "systemd-nspawn web"),
        ("/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt", "interior"),
        // Amazon ECS.
        ("/ecs/0a1b2c3d", "interior"),
        ("/ecs/0a1b2c3d/<id>", "docker <id>"),
        ("/ecs/0a1b2c3d/0a1b2c3d-1234567890", "unknown 0a1b2c3d-1234567890"),
        ("/ecstasks.slice/ecstasks-0a1b2c3d.slice/docker-<id>.scope", "docker <id>"),
        // Kata Containers' own processes.
        ("/kata_overhead/<id>", "infra"),
        // systemd, and what nobody knows.
        ("", "interior"),
        ("/init.scope", "interior"),
        ("/system.slice/nginx.service", "interior"),
        ("/user.slice/user-0.slice/session-1.scope", "interior"),
        ("/web", "interior"),
        // Nearly a shape.
        ("/docker/0123456789abcdef", "interior"),
        ("/docker/0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef", "interior"),
        ("/docker/<id>0", "interior"),
        ("/system.slice/docker-<id>.service", "interior"),
        ("/system.slice/docker-.scope", "interior"),
        ("/notkubepods/burstable/pod<uid>/web", "interior"),
    ];

    #[test]
    fn every_shape_is_read() {
        for (path, expected) in SHAPES {
            assert_eq!(said(&spelled(path)), *expected, "{path}");
        }
    }

    #[test]
    fn every_rule_decides_about_its_own_example() {
        for rule in RULES {
            let example = spelled(rule.example);
            let (first, _) = first_match(example.as_bytes()).expect(rule.pattern);
            assert_eq!(first.pattern, rule.pattern, "decides about {}", rule.example);
        }
    }

    #[test]
    fn every_rule_stands_once() {
        let mut patterns: Vec<_> = RULES.iter().map(|rule| rule.pattern).collect();
        patterns.sort_unstable();
        patterns.dedup();
        assert_eq!(patterns.len(), RULES.len());
    }

    #[test]
    fn the_nearest_container_is_the_innermost() {
        let path = spelled("/docker/<id>/kubelet/kubepods/besteffort/pod<uid>/web/deeper");
        let nearest = nearest_container(path.as_bytes()).unwrap();
        assert_eq!(nearest.id, b"web");
        assert_eq!(nearest.pod_uid.as_deref(), Some(UID));
        assert!(path.as_bytes().starts_with(nearest.path) && nearest.path.ends_with(b"/web"));
        assert_eq!(nearest_container(b"/system.slice/whodunit.service"), None);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        for path in [&b"/"[..], b"//", b"a", b"/\xff/\xfe", b"/pod", b"/kubepods/pod", b"/*/{id}"] {
            assert_eq!(classify(path), Class::Interior, "{path:?}");
        }
        let odd = classify(b"/kubepods/pod1/\xff\n");
        assert!(matches!(odd, Class::Container(Shape { id: b"\xff\n", .. })), "{odd:?}");
    }

    #[test]
    fn the_documentation_shows_this_table() {
        const BEGIN: &str = "<!-- rules: begin -->\n";
        const END: &str = "<!-- rules: end -->\n";
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/discovery.md");
        let text = std::fs::read_to_string(&page).expect("docs/discovery.md is there");
        let (before, rest) = text.split_once(BEGIN).expect("the begin marker is there");
        let (shown, after) = rest.split_once(END).expect("the end marker is there");
        let table = markdown();
        if std::env::var_os("WHODUNIT_BLESS").is_some_and(|value| value == "1") {
            let fresh = format!("{before}{BEGIN}{table}{END}{after}");
            std::fs::write(&page, fresh).expect("docs/discovery.md can be written");
            return;
        }
        assert_eq!(shown, table, "docs/discovery.md drifted: run this test with WHODUNIT_BLESS=1");
    }
}
