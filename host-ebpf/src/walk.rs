//! From a dentry to the names of its path, in the mount namespace of the process.
//!
//! Gives the names from the file up to the root, because that is how the kernel links them; the daemon
//! turns them round. Symbolic links are behind us: a dentry is where they led.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel_str};
use whodunit_ebpf::{COMPONENTS_MAX, NAME_MAX, PATH_MAX, file_flag};

use crate::maps::{EXACT_ROOM, ROOM, Scratch, keep, offset, recall};
use crate::read::{Address, Place, read_or_zero};

/// The most components of one record, and mounts between them.
const TURNS: u32 = 160;

/// Appends the components of the place that the loops hold to the scratch text, which begins with the
/// requested path; then those of the process's root, if the loops say so. Leaves the lengths and the
/// flags in the loops.
#[inline(always)]
pub(crate) fn components<L: Looping>(scratch: *mut Scratch) {
    let loops = Scratch::loops(scratch);
    keep!(loops.used, 0);
    keep!(loops.components, 0);
    keep!(loops.at_root, u64::from(recall!(loops.dentry) == 0));
    // What the walk has not come to the end of is cut.
    keep!(loops.walked, u64::from(file_flag::CUT | file_flag::ROOT_LOST));
    if recall!(loops.dentry) == 0 {
        // Nothing is known of the place. An absolute request needs none.
        keep!(loops.walked, u64::from(file_flag::FAULT | file_flag::ROOT_LOST));
        if recall!(loops.with_root) == 0 {
            return;
        }
        to_root(scratch);
    } else if is_removed(recall!(loops.dentry)) {
        let walked = recall!(loops.walked) | u64::from(file_flag::REMOVED);
        keep!(loops.walked, walked);
    }
    keep!(loops.top, root_of(recall!(loops.mount)));
    L::walk(scratch);
    if recall!(loops.at_root) == 0 {
        keep!(loops.components, recall!(loops.used));
    }
}

/// How a walk goes round, which the kernel decides.
pub(crate) trait Looping {
    /// Takes steps until the walk ends, at most [`TURNS`].
    fn walk(scratch: *mut Scratch);
}

/// By `bpf_loop`, Linux 5.17: the verifier looks at one step, and is done at once.
pub(crate) struct HelperIn<const ROOM: u32>;

/// Of the base tier's programs, and of the exact tier's.
pub(crate) type Helper = HelperIn<ROOM>;
pub(crate) type ExactHelper = HelperIn<EXACT_ROOM>;

impl<const ROOM: u32> Looping for HelperIn<ROOM> {
    #[inline(always)]
    fn walk(_: *mut Scratch) {
        let step: unsafe extern "C" fn(u64, *mut c_void) -> i64 = step_again::<ROOM>;
        // SAFETY: a function of this program with the signature that the helper asks for, and no context.
        unsafe { bpf_loop(TURNS, step as *mut c_void, core::ptr::null_mut(), 0) };
    }
}

/// By jumps, which the verifier follows one by one, for some tenths of a second.
pub(crate) struct Unrolled;

impl Looping for Unrolled {
    #[inline(always)]
    fn walk(scratch: *mut Scratch) {
        for _ in 0..TURNS {
            if step(scratch) {
                break;
            }
        }
    }
}

/// A step for `bpf_loop`: 1 ends it.
#[inline(never)]
unsafe extern "C" fn step_again<const ROOM: u32>(_: u64, _: *mut c_void) -> i64 {
    // The room is occupied by whoever started the loop.
    match Scratch::of_this_cpu(ROOM) {
        Some(scratch) if !step(scratch) => 0,
        _ => 1,
    }
}

/// A step from a dentry to its folder, or from the root of a mount to where it is mounted. Says whether
/// the walk has ended.
#[inline(always)]
fn step(scratch: *mut Scratch) -> bool {
    // SAFETY: `scratch` is a map value of this CPU.
    let text = unsafe { core::ptr::addr_of_mut!((*scratch).text) }.cast::<u8>();
    let loops = Scratch::loops(scratch);
    let dentry = recall!(loops.dentry);
    let mut ended = u32::MAX;
    if dentry == recall!(loops.top) {
        let whole = recall!(loops.mount) - offset!(mount_mnt) as u64;
        let above: Address = read_or_zero(whole + offset!(mount_parent) as u64);
        if above != whole && above != 0 {
            let mount = above + offset!(mount_mnt) as u64;
            keep!(loops.dentry, read_or_zero(whole + offset!(mount_mountpoint) as u64));
            keep!(loops.mount, mount);
            keep!(loops.top, root_of(mount));
            return false;
        }
        // The root of a mount namespace, if it is the process's own. A mount that was never
        // attached, or was taken off, ends here as well and belongs to another or to none.
        let is_own = namespace_of(whole) == recall!(loops.namespace);
        ended = if is_own { 0 } else { file_flag::DETACHED };
    } else {
        let parent: Address = read_or_zero(dentry + offset!(dentry_parent) as u64);
        let name_at = (offset!(dentry_name) + offset!(qstr_name)) as u64;
        let name: Address = read_or_zero(dentry + name_at);
        let used = recall!(loops.used) as usize;
        if used >= COMPONENTS_MAX - NAME_MAX {
            return true;
        }
        let requested = recall!(loops.requested_length) as usize & (PATH_MAX - 1);
        // SAFETY: the place is below PATH_MAX + COMPONENTS_MAX, and there is room for one name.
        let length = unsafe {
            let place = text.add(requested).add(used);
            bpf_probe_read_kernel_str(place.cast(), NAME_MAX as u32, name as *const _)
        };
        if length <= 0 {
            ended = file_flag::FAULT;
        } else {
            keep!(loops.used, (used + length as usize) as u64);
            keep!(loops.dentry, parent);
            if parent == dentry {
                ended = file_flag::DETACHED;
            }
        }
    }
    if ended == u32::MAX {
        return false;
    }
    if recall!(loops.at_root) != 0 {
        if ended == 0 {
            let walked = recall!(loops.walked) & !u64::from(file_flag::ROOT_LOST);
            keep!(loops.walked, walked);
        }
        return true;
    }
    let walked = recall!(loops.walked) & !u64::from(file_flag::CUT);
    keep!(loops.walked, walked | u64::from(ended));
    if recall!(loops.with_root) == 0 {
        return true;
    }
    keep!(loops.components, recall!(loops.used));
    keep!(loops.at_root, 1);
    to_root(scratch);
    keep!(loops.top, root_of(recall!(loops.mount)));
    false
}

/// Lets the walk begin at the process's root.
#[inline(always)]
fn to_root(scratch: *mut Scratch) {
    let loops = Scratch::loops(scratch);
    keep!(loops.dentry, recall!(loops.root_dentry));
    keep!(loops.mount, recall!(loops.root_mount));
}

/// Whether a dentry's name was taken from its folder (`d_unlinked` of `include/linux/dcache.h`).
#[inline(always)]
fn is_removed(dentry: Address) -> bool {
    let back_at = (offset!(dentry_hash) + offset!(hash_node_back)) as u64;
    let hashed = read_or_zero::<u64>(dentry + back_at) != 0;
    // The root of a file system is in no folder.
    !hashed && read_or_zero::<u64>(dentry + offset!(dentry_parent) as u64) != dentry
}

/// The dentry at the root of a mount.
#[inline(always)]
fn root_of(mount: Address) -> Address {
    read_or_zero(mount + offset!(vfsmount_root) as u64)
}

/// Whether a file has no place in any file system: a memfd, or a file of a mount that belongs to another
/// namespace.
#[inline(always)]
pub(crate) fn is_detached(namespace: Address, place: Place) -> bool {
    let top = root_of(place.mount);
    let parent: Address = read_or_zero(place.dentry + offset!(dentry_parent) as u64);
    if parent == place.dentry && place.dentry != top {
        return true;
    }
    let whole = place.mount - offset!(mount_mnt) as u64;
    let above: Address = read_or_zero(whole + offset!(mount_parent) as u64);
    above == whole && namespace_of(whole) != namespace
}

/// The namespace that a `struct mount` is attached in; 0 is none.
#[inline(always)]
fn namespace_of(whole: Address) -> Address {
    read_or_zero(whole + offset!(mount_ns) as u64)
}
