//! The parts of a container image's name, for attributes of telemetry.
//!
//! For the daemon and for plugins, which tell of the same containers by the same conventions. Pure: says nothing of whether there
//! is such an image.

/// An image's name, taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageReference<'a> {
    /// Registry and repository, without tag and digest.
    pub name: &'a str,
    /// The tag, where there is one.
    pub tag: Option<&'a str>,
    /// The digest, where there is one: `sha256:...`.
    pub digest: Option<&'a str>,
}

impl<'a> ImageReference<'a> {
    /// Of a name such as `docker.io/library/nginx:1.27@sha256:...`. Whatever is no part is in the name.
    pub fn of(text: &'a str) -> ImageReference<'a> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // The colon of a port stands before the last slash.
        let folder = rest.rfind('/').map_or(0, |slash| slash + 1);
        match rest[folder..].split_once(':') {
            Some((last, tag)) => {
                ImageReference { name: &rest[..folder + last.len()], tag: Some(tag), digest }
            }
            None => ImageReference { name: rest, tag: None, digest },
        }
    }

    /// Name and digest, such as `example@sha256:...`: with the digest that is known of it elsewhere, or else with its own.
    pub fn with_digest(&self, known: Option<&str>) -> Option<String> {
        let digest = known.or(self.digest)?;
        Some(format!("{}@{digest}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_name_and_perhaps_a_tag_and_a_digest() {
        let check = |text: &str, name: &str, tag: Option<&str>, digest: Option<&str>| {
            assert_eq!(ImageReference::of(text), ImageReference { name, tag, digest }, "{text}");
        };
        check("nginx", "nginx", None, None);
        check("docker.io/library/nginx:1.27", "docker.io/library/nginx", Some("1.27"), None);
        check("localhost:5000/a", "localhost:5000/a", None, None);
        check("localhost:5000/a:b", "localhost:5000/a", Some("b"), None);
        check("a/b@sha256:00", "a/b", None, Some("sha256:00"));
        check("a:b@sha256:00", "a", Some("b"), Some("sha256:00"));
        check("", "", None, None);
    }

    #[test]
    fn a_digest_that_is_known_elsewhere_wins() {
        let with = |text: &str, known| ImageReference::of(text).with_digest(known);
        assert_eq!(with("a:1", None), None);
        assert_eq!(with("a:1@sha256:00", None).as_deref(), Some("a@sha256:00"));
        assert_eq!(with("a:1@sha256:00", Some("sha256:11")).as_deref(), Some("a@sha256:11"));
    }
}
