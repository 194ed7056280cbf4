//! Resources by the semantic conventions: the daemon, and a container that it tells of.

use image_reference::ImageReference;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::death::record::Container;
use crate::plugin::Surroundings;

/// Attributes in their order. What is empty is left out.
#[derive(Default)]
pub(super) struct Attributes(pub(super) Vec<KeyValue>);

impl Attributes {
    pub(super) fn text(self, key: &str, value: impl Into<String>) -> Attributes {
        let value = value.into();
        if value.is_empty() { self } else { self.with(key, Value::StringValue(value)) }
    }

    pub(super) fn maybe(self, key: &str, value: Option<&str>) -> Attributes {
        self.text(key, value.unwrap_or_default())
    }

    pub(super) fn number(self, key: &str, value: Option<u64>) -> Attributes {
        match value {
            Some(value) => {
                self.with(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
            }
            None => self,
        }
    }

    pub(super) fn texts<'a>(
        self,
        key: &str,
        values: impl IntoIterator<Item = &'a str>,
    ) -> Attributes {
        let value = |text: &str| any(Value::StringValue(text.to_owned()));
        let values: Vec<AnyValue> = values.into_iter().map(value).collect();
        match values.is_empty() {
            true => self,
            false => self.with(key, Value::ArrayValue(ArrayValue { values })),
        }
    }

    fn with(mut self, key: &str, value: Value) -> Attributes {
        let key = key.to_owned();
        self.0.push(KeyValue { key, value: Some(any(value)), ..KeyValue::default() });
        self
    }

    /// Puts these in the place of those of their names, or behind them.
    fn overridden(mut self, attributes: &[(String, String)]) -> Attributes {
        for (key, value) in attributes {
            self.0.retain(|known| known.key != *key);
            self = self.text(key, value.as_str());
        }
        self
    }
}

pub(super) fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn resource(attributes: Attributes) -> Resource {
    Resource { attributes: attributes.0, ..Resource::default() }
}

/// Whatever is told.
fn common(surroundings: &Surroundings) -> Attributes {
    Attributes::default()
        .text("service.name", "whodunit")
        .text("service.version", surroundings.daemon_version.as_str())
        .text("host.name", surroundings.node_name.as_str())
}

/// The daemon. `given` wins over what it finds.
pub(super) fn of_daemon(given: &[(String, String)], surroundings: &Surroundings) -> Resource {
    let pod = surroundings.pod_name.as_deref();
    let attributes = common(surroundings)
        .number("process.pid", Some(u64::from(std::process::id())))
        .maybe("k8s.pod.name", pod)
        .maybe("k8s.namespace.name", surroundings.namespace.as_deref())
        .maybe("k8s.node.name", pod.map(|_| surroundings.node_name.as_str()));
    resource(attributes.overridden(given))
}

/// A container that the daemon tells of. `given` wins over what it finds.
pub(super) fn of_container(
    given: &[(String, String)],
    surroundings: &Surroundings,
    container: &Container,
) -> Resource {
    let attribute = |name: &str| {
        let found = container.attributes.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    };
    // In a pod's own scope the daemon's pod is the container's.
    let is_own = surroundings.scope == "pod";
    let pod = attribute("pod-name").or(surroundings.pod_name.as_deref().filter(|_| is_own));
    let namespace =
        attribute("pod-namespace").or(surroundings.namespace.as_deref().filter(|_| is_own));
    let image = attribute("image").map(ImageReference::of).unwrap_or_default();
    let digest = image.with_digest(attribute("image-digest"));
    let runtime = Some(container.runtime.as_str()).filter(|runtime| *runtime != "unknown");
    let attributes = common(surroundings)
        .text("container.id", container.runtime_id.as_str())
        .text("container.name", container.name.as_str())
        .maybe("container.runtime.name", runtime)
        .maybe("container.image.id", attribute("image-id"))
        .text("container.image.name", image.name)
        .texts("container.image.tags", image.tag)
        .texts("container.image.repo_digests", digest.as_deref())
        .maybe("k8s.pod.name", pod)
        .maybe("k8s.pod.uid", attribute("pod-uid"))
        .maybe("k8s.namespace.name", namespace)
        .maybe("k8s.container.name", pod.map(|_| container.name.as_str()))
        .maybe("k8s.node.name", pod.map(|_| surroundings.node_name.as_str()));
    let labels = container
        .attributes
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("label.")?, value.as_str())));
    let attributes = labels.fold(attributes, |attributes, (key, value)| {
        attributes.text(&format!("container.label.{key}"), value)
    });
    resource(attributes.overridden(given))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::UnixNanos;

    fn surroundings(scope: &str) -> Surroundings {
        Surroundings {
            pod_name: Some("own-pod".to_owned()),
            namespace: Some("own-space".to_owned()),
            node_name: "node-1".to_owned(),
            boot_id: String::new(),
            scope: scope.to_owned(),
            daemon_version: "1.2.3".to_owned(),
            started: UnixNanos(0),
        }
    }

    fn web(attributes: &[(&str, &str)]) -> Container {
        let pairs = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Container {
            runtime_id: "web-id".to_owned(),
            name: "web".to_owned(),
            runtime: "containerd".to_owned(),
            attributes: pairs.collect(),
            ..Container::default()
        }
    }

    /// The text of an attribute, or of the first of a list.
    fn value<'a>(resource: &'a Resource, key: &str) -> Option<&'a str> {
        let found = resource.attributes.iter().find(|attribute| attribute.key == key)?;
        match found.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some(text),
            Value::ArrayValue(list) => match list.values.first()?.value.as_ref()? {
                Value::StringValue(text) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    #[test]
    fn a_container_of_a_pod_has_the_attributes_of_both() {
        let container = web(&[
            ("pod-name", "shop"),
            ("pod-namespace", "prod"),
            ("pod-uid", "u-1"),
            ("image", "shop/web:3"),
            ("image-digest", "sha256:0b"),
            ("label.app", "web"),
        ]);
        let resource = of_container(&[], &surroundings("node"), &container);
        for (key, expected) in [
            ("service.name", "whodunit"),
            ("container.id", "web-id"),
            ("container.name", "web"),
            ("container.runtime.name", "containerd"),
            ("container.image.name", "shop/web"),
            ("container.image.tags", "3"),
            ("container.image.repo_digests", "shop/web@sha256:0b"),
            ("container.label.app", "web"),
            ("k8s.pod.name", "shop"),
            ("k8s.pod.uid", "u-1"),
            ("k8s.namespace.name", "prod"),
            ("k8s.container.name", "web"),
            ("k8s.node.name", "node-1"),
        ] {
            assert_eq!(value(&resource, key), Some(expected), "{key}");
        }
    }

    #[test]
    fn what_is_given_wins_and_the_own_pod_counts_in_its_own_scope_alone() {
        let given =
            [("service.name".to_owned(), "mine".to_owned()), ("team".to_owned(), "ops".to_owned())];
        let in_pod = of_container(&given, &surroundings("pod"), &web(&[]));
        assert_eq!(value(&in_pod, "service.name"), Some("mine"));
        assert_eq!(value(&in_pod, "team"), Some("ops"));
        assert_eq!(value(&in_pod, "k8s.pod.name"), Some("own-pod"));
        let names = in_pod.attributes.iter().filter(|it| it.key == "service.name");
        assert_eq!(names.count(), 1);
        let on_node = of_container(&[], &surroundings("node"), &web(&[]));
        assert_eq!(value(&on_node, "k8s.pod.name"), None);
        assert_eq!(value(&of_daemon(&[], &surroundings("node")), "k8s.pod.name"), Some("own-pod"));
    }
}
