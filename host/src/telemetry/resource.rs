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
