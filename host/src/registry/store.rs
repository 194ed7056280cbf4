//! What was pulled, kept under its digest in the cache folder. What is there is believed only after its digest was computed
//! again.

use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::reference::Digest;

/// The folder of what was pulled.
pub(super) struct Store {
    folder: PathBuf,
}

impl Store {
    /// In a cache folder that nobody else may write.
    pub(super) fn open(cache_dir: &Path) -> io::Result<Store> {
        let folder = cache_dir.join("oci");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Store { folder })
    }

    /// What has that digest, if it is there and whole.
    pub(super) fn read(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = fs::read(self.path(digest)).ok()?;
        (digest_of(&bytes) == *digest).then_some(bytes)
    }

    /// Keeps bytes under their digest.
    pub(super) fn write(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(self.path(digest)).map_err(|error| error.error)?;
        Ok(())
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("sha256-{}", digest.digits()))
    }
}

/// The digest of some bytes.
pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Digest::read(&format!("sha256:{digits}")).expect("a hash has 64 digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_what_was_changed_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let digest = digest_of(b"whole");
        assert_eq!(store.read(&digest), None);
        store.write(&digest, b"whole").unwrap();
        assert_eq!(store.read(&digest).unwrap(), b"whole");
        fs::write(store.path(&digest), "other").unwrap();
        assert_eq!(store.read(&digest), None);
    }
}
