//! A container as a resource, by the semantic conventions
//! (<https://opentelemetry.io/docs/specs/semconv/resource/container/> and `/k8s/`).

use image_reference::ImageReference;
use whodunit_sdk::directory::{Container, Surroundings};

use crate::record::Attributes;

/// The resource of what is told about a container; of none, where it is not known.
pub fn of(container: Option<&Container>, surroundings: &Surroundings, service: &str) -> Attributes {
    let resource = Attributes::new()
        .text("service.name", service)
        .text("service.version", surroundings.daemon_version.as_str())
        .text("host.name", surroundings.node_name.as_str());
    let Some(container) = container else {
        return resource;
    };
    let attribute = |name: &str| {
        let found = container.attributes.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    };
    // In a pod's own scope the daemon's pod is the container's.
    let own = |text: &'_ Option<String>| text.clone().filter(|_| surroundings.scope == "pod");
    let (own_pod, own_namespace) = (own(&surroundings.pod_name), own(&surroundings.namespace));
    let pod = attribute("pod-name").or(own_pod.as_deref());
    let image = attribute("image").map(ImageReference::of).unwrap_or_default();
    let digest = image.with_digest(attribute("image-digest"));
    let resource = resource
        .text("container.id", container.runtime_id.as_str())
        .text("container.name", container.name.as_str())
        .text(
            "container.runtime.name",
            Some(container.runtime.as_str()).filter(|it| *it != "unknown"),
        )
        .text("container.image.id", attribute("image-id"))
        .text("container.image.name", image.name)
        .texts("container.image.tags", image.tag)
        .texts("container.image.repo_digests", digest.as_deref())
        .text("k8s.pod.name", pod)
        .text("k8s.pod.uid", attribute("pod-uid"))
        .text("k8s.namespace.name", attribute("pod-namespace").or(own_namespace.as_deref()))
        .text("k8s.container.name", pod.map(|_| container.name.as_str()))
        .text("k8s.node.name", pod.map(|_| surroundings.node_name.as_str()));
    let labels = container
        .attributes
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("label.")?, value.as_str())));
    labels.fold(resource, |resource, (key, value)| {
        resource.text(&format!("container.label.{key}"), value)
    })
}

#[cfg(test)]
mod tests {
    use whodunit_sdk::testing::container;

    use super::*;

    fn surroundings(scope: &str) -> Surroundings {
        Surroundings {
            pod_name: Some("own-pod".to_owned()),
            namespace: Some("own-space".to_owned()),
            node_name: "node-1".to_owned(),
            boot_id: String::new(),
            scope: scope.to_owned(),
            daemon_version: "1.2.3".to_owned(),
            started: 0,
        }
    }

    #[test]
    fn a_container_of_a_pod_has_the_attributes_of_both() {
        let mut web = container(1, "web");
        let pairs = [
            ("pod-name", "shop"),
            ("pod-namespace", "prod"),
            ("pod-uid", "u-1"),
            ("image", "shop/web:3"),
            ("image-digest", "sha256:0b"),
            ("label.app", "web"),
        ];
        web.attributes = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let expected = Attributes::new()
            .text("service.name", "s")
            .text("service.version", "1.2.3")
            .text("host.name", "node-1")
            .text("container.id", "web-id")
            .text("container.name", "web")
            .text("container.runtime.name", "containerd")
            .text("container.image.name", "shop/web")
            .texts("container.image.tags", ["3"])
            .texts("container.image.repo_digests", ["shop/web@sha256:0b"])
            .text("k8s.pod.name", "shop")
            .text("k8s.pod.uid", "u-1")
            .text("k8s.namespace.name", "prod")
            .text("k8s.container.name", "web")
            .text("k8s.node.name", "node-1")
            .text("container.label.app", "web");
        assert_eq!(of(Some(&web), &surroundings("node"), "s"), expected);
    }

    #[test]
    fn one_without_a_pod_has_none_but_in_the_scope_of_a_pod() {
        let web = container(1, "web");
        let on_node = of(Some(&web), &surroundings("node"), "s");
        assert!(!format!("{on_node:?}").contains("k8s."), "{on_node:?}");
        let in_pod = format!("{:?}", of(Some(&web), &surroundings("pod"), "s"));
        assert!(in_pod.contains("own-pod") && in_pod.contains("own-space"), "{in_pod}");
        let unknown = format!("{:?}", of(None, &surroundings("pod"), "s"));
        assert!(!unknown.contains("container"), "{unknown}");
    }
}
