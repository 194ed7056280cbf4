//! From a dentry to the names of its path, in the mount namespace of the process.
//!
//! Gives the names from the file up to the root, because that is how the kernel links them; the daemon
//! turns them round. Symbolic links are behind us: a dentry is where they led.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use whodunit_ebpf::{COMPONENTS_MAX, NAME_MAX, PATH_MAX, file_flag};

use crate::maps::{Scratch, keep, offset, recall};
use crate::read::{Address, Place, mount_namespace, read_or_zero};

/// The most components of one path. Each is a turn of a loop that the verifier follows.
const TURNS: usize = 128;

/// Appends the components of a place to the scratch text, which begins with the requested path.
/// Returns how many bytes it added, and flags.
#[inline(always)]
pub(crate) fn components(scratch: *mut Scratch, task: Address, place: Place) -> (u32, u32) {
    // SAFETY: `scratch` is a map value of this CPU.
    let text = unsafe { core::ptr::addr_of_mut!((*scratch).text) }.cast::<u8>();
    let loops = Scratch::loops(scratch);
    keep!(loops.used, 0);
    keep!(loops.dentry, place.dentry);
    keep!(loops.mount, place.mount);
    keep!(loops.top, root_of(place.mount));
    let mut flags = file_flag::CUT;

    for _ in 0..TURNS {
        let dentry = recall!(loops.dentry);
        if dentry == recall!(loops.top) {
            let whole = recall!(loops.mount) - offset!(mount_mnt) as u64;
            let above: Address = read_or_zero(whole + offset!(mount_parent) as u64);
            if above == whole || above == 0 {
                // The root of a mount namespace, if it is the process's own. A mount that was never
                // attached, or was taken off, ends here as well and belongs to another or to none.
                flags = if namespace_of(whole) == mount_namespace(task) {
                    0
                } else {
                    file_flag::DETACHED
                };
                break;
            }
            let mount = above + offset!(mount_mnt) as u64;
            keep!(loops.dentry, read_or_zero(whole + offset!(mount_mountpoint) as u64));
            keep!(loops.mount, mount);
            keep!(loops.top, root_of(mount));
            continue;
        }
        let parent: Address = read_or_zero(dentry + offset!(dentry_parent) as u64);
        let name_at = (offset!(dentry_name) + offset!(qstr_name)) as u64;
        let name: Address = read_or_zero(dentry + name_at);
        let used = recall!(loops.used) as usize;
        if used >= COMPONENTS_MAX - NAME_MAX {
            break;
        }
        let requested = recall!(loops.requested_length) as usize & (PATH_MAX - 1);
        // SAFETY: the place is below PATH_MAX + COMPONENTS_MAX, and there is room for one name more.
        let length = unsafe {
            let place = text.add(requested).add(used);
            bpf_probe_read_kernel_str(place.cast(), NAME_MAX as u32, name as *const _)
        };
        if length <= 0 {
            flags = file_flag::FAULT;
            break;
        }
        keep!(loops.used, (used + length as usize) as u64);
        if parent == dentry {
            flags = file_flag::DETACHED;
            break;
        }
        keep!(loops.dentry, parent);
    }
    (recall!(loops.used) as u32, flags)
}

/// The dentry at the root of a mount.
#[inline(always)]
fn root_of(mount: Address) -> Address {
    read_or_zero(mount + offset!(vfsmount_root) as u64)
}

/// Whether a file has no place in any file system: a memfd, or a file of a mount that belongs to no
/// namespace of the task.
#[inline(always)]
pub(crate) fn is_detached(task: Address, place: Place) -> bool {
    let top = root_of(place.mount);
    let parent: Address = read_or_zero(place.dentry + offset!(dentry_parent) as u64);
    if parent == place.dentry && place.dentry != top {
        return true;
    }
    let whole = place.mount - offset!(mount_mnt) as u64;
    let above: Address = read_or_zero(whole + offset!(mount_parent) as u64);
    above == whole && namespace_of(whole) != mount_namespace(task)
}

/// The namespace that a `struct mount` is attached in; 0 is none.
#[inline(always)]
fn namespace_of(whole: Address) -> Address {
    read_or_zero(whole + offset!(mount_ns) as u64)
}
