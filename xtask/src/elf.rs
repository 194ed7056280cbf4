//! Whether a program needs anything of the machine that it runs on.

use std::fs;
use std::io;
use std::path::Path;

const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;

/// What a program asks the machine for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Linkage {
    /// Nothing: it runs in an empty folder.
    Static,
    /// A loader, libraries, or both.
    Dynamic,
}

/// Reads how the program at `path` is linked.
///
/// # Errors
///
/// Where the file cannot be read, or is no 64-bit little-endian ELF file (`InvalidData`).
pub(crate) fn linkage(path: &Path) -> io::Result<Linkage> {
    parse(&fs::read(path)?).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "not a 64-bit little-endian ELF file")
    })
}

/// The layouts are those of `elf(5)`.
fn parse(file: &[u8]) -> Option<Linkage> {
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let headers_at = usize::try_from(u64_at(file, 32)?).ok()?;
    let header_size = usize::from(u16_at(file, 54)?);
    let header_count = usize::from(u16_at(file, 56)?);
    for index in 0..header_count {
        let header = file.get(headers_at.checked_add(index * header_size)?..)?;
        match u32_at(header, 0)? {
            PT_INTERP => return Some(Linkage::Dynamic),
            PT_DYNAMIC => {
                let offset = usize::try_from(u64_at(header, 8)?).ok()?;
                let size = usize::try_from(u64_at(header, 32)?).ok()?;
                let section = file.get(offset..offset.checked_add(size)?)?;
                let mut tags = section.chunks_exact(16).filter_map(|entry| u64_at(entry, 0));
                if tags.by_ref().take_while(|tag| *tag != DT_NULL).any(|tag| tag == DT_NEEDED) {
                    return Some(Linkage::Dynamic);
                }
            }
            _ => {}
        }
    }
    Some(Linkage::Static)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with one program header, whose content follows it.
    fn file(kind: u32, content: &[u64]) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01".to_vec();
        file.resize(64, 0);
        file[32] = 64;
        file[54] = 56;
        file[56] = 1;
        file.extend(kind.to_le_bytes());
        file.extend([0; 4]);
        for field in [120, 0, 0, 8 * content.len() as u64, 0, 0] {
            file.extend(u64::to_le_bytes(field));
        }
        file.extend(content.iter().flat_map(|word| word.to_le_bytes()));
        file
    }

    #[test]
    fn a_program_with_a_loader_is_dynamic() {
        assert_eq!(parse(&file(PT_INTERP, &[])), Some(Linkage::Dynamic));
    }

    #[test]
    fn a_program_with_a_library_is_dynamic() {
        assert_eq!(parse(&file(PT_DYNAMIC, &[5, 0, DT_NEEDED, 7])), Some(Linkage::Dynamic));
    }

    #[test]
    fn a_position_independent_program_without_libraries_is_static() {
        let after_the_end = [5, 0, DT_NULL, 0, DT_NEEDED, 7];
        assert_eq!(parse(&file(PT_DYNAMIC, &after_the_end)), Some(Linkage::Static));
        assert_eq!(parse(&file(1, &[])), Some(Linkage::Static));
    }

    #[test]
    fn a_cut_file_is_no_program() {
        let whole = file(PT_DYNAMIC, &[5, 0, DT_NULL, 0]);
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length} bytes");
        }
        assert_eq!(parse(&[0; 128]), None);
    }
}
