//! One file access: counted always, sent once, absorbed when it comes again.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_ktime_get_boot_ns, bpf_probe_read_kernel_str,
    bpf_probe_read_user_str, bpf_ringbuf_output, bpf_ringbuf_query,
};
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid};
use whodunit_ebpf::{
    BUDGET_WINDOW_NS, CgroupCounters, FMODE_WRITE, PATH_MAX, RawFile, counter, file_flag,
    operation, record_kind,
};

use crate::maps::{
    FILES, Loops, REPEATS, RepeatKey, Scratch, TEXT_MAX, TRACED, epoch_of, keep, offset, recall,
    setting,
};
use crate::read::{
    Address, Place, current_task, file_of_descriptor, mount_namespace, namespace_number,
    process_start_ns, read_or_zero, root, working_directory,
};
use crate::setup;
use crate::syscall::AT_FDCWD;
use crate::walk::{self, Looping};

const EFAULT: i32 = 14;
const ENAMETOOLONG: i32 = 36;

/// A path as the program asked for it, and in whose memory it is.
#[derive(Clone, Copy)]
pub(crate) enum Requested {
    /// In the memory of the process.
    User(Address),
    /// In the kernel's.
    Kernel(Address),
}

impl Requested {
    #[inline(always)]
    fn address(self) -> Address {
        match self {
            Requested::User(address) | Requested::Kernel(address) => address,
        }
    }
}

/// One access. What was reached, the folder and the flags stand in the loops' numbers.
#[derive(Clone, Copy)]
pub(crate) struct Access {
    /// One of `operation`.
    pub(crate) operation: u16,
    /// 0, or a negative errno.
    pub(crate) outcome: i32,
    pub(crate) requested: Requested,
}

/// The counters of the running task's cgroup, if it is traced.
#[inline(always)]
pub(crate) fn traced_counters() -> Option<(u64, *mut CgroupCounters)> {
    // SAFETY: takes nothing and gives a number.
    let cgroup = unsafe { bpf_get_current_cgroup_id() };
    TRACED.get_ptr_mut(cgroup).map(|counters| (cgroup, counters))
}

/// Adds one to a counter.
#[inline(always)]
pub(crate) fn count(counters: *mut CgroupCounters, index: usize) {
    add(counters, index, 1);
}

/// Takes one from a counter.
#[inline(always)]
fn take_back(counters: *mut CgroupCounters, index: usize) {
    add(counters, index, u64::MAX);
}

/// Adds to a counter.
#[inline(always)]
pub(crate) fn add(counters: *mut CgroupCounters, index: usize, value: u64) {
    if index < counter::COUNT {
        // SAFETY: a map value of this CPU, and the index is below its length.
        unsafe { (*counters)[index] = (*counters)[index].wrapping_add(value) };
    }
}

/// Records an access of the running task.
#[inline(always)]
pub(crate) fn record<L: Looping>(
    scratch: *mut Scratch,
    cgroup: u64,
    counters: *mut CgroupCounters,
    access: Access,
) {
    let task = current_task();
    let loops = Scratch::loops(scratch);
    let mut flags = recall!(loops.flags) as u32;
    let in_setup = recall!(loops.in_setup) != 0;
    if in_setup {
        flags |= file_flag::SETUP;
    }
    let read = read_requested(scratch, access.requested);
    let requested_length = if read <= 1 { 0 } else { (read as u32 - 1) & (PATH_MAX as u32 - 1) };
    // What the kernel read when the call began, and nobody can read any more.
    let is_gone = read < 0 && access.requested.address() != 0;
    keep!(loops.requested_length, u64::from(requested_length));
    if access.outcome == -ENAMETOOLONG && requested_length as usize == PATH_MAX - 1 {
        flags |= file_flag::REQUEST_CUT;
    }

    let mut file = recall!(loops.file);
    let mut place =
        Place { mount: recall!(loops.place_mount), dentry: recall!(loops.place_dentry) };
    let nothing = requested_length == 0 && file == 0 && place.dentry == 0;
    if nothing && access.outcome == 0 && !is_gone {
        // No path at all, or an empty one: the descriptor is what the call is about
        // (`AT_EMPTY_PATH`, `futimens`).
        let folder = recall!(loops.folder) as i32;
        if access.operation == operation::STAT || folder == AT_FDCWD {
            // As `fstat`: it names nothing that was not opened before.
            return;
        }
        file = file_of_descriptor(folder as u32);
        if file == 0 {
            return;
        }
    }
    if nothing && access.outcome != 0 && (access.outcome == -EFAULT || !is_gone) {
        // The kernel could not read the path either, or it was empty, so it looked for no file. Programs do
        // this to ask whether there is such a call at all, as Rust's standard library does with `statx`.
        return;
    }
    let operation = access.operation as usize & 31;
    if operation >= operation::COUNT {
        return;
    }
    count(counters, if in_setup { counter::SETUP } else { counter::RECEIVED + operation });

    // What was reached, or where the path starts.
    let mut inode: Address = 0;
    let mut file_mode = 0u32;
    let mut starts_in = 0;
    if file != 0 {
        place = Place::read(file + offset!(file_path) as u64);
        inode = read_or_zero(file + offset!(file_inode) as u64);
        file_mode = read_or_zero(file + offset!(file_mode) as u64);
    } else if place.dentry != 0 {
        inode = read_or_zero(place.dentry + offset!(dentry_inode) as u64);
    } else {
        flags |= file_flag::BASE;
        // SAFETY: the text is a map value of this CPU.
        let absolute = requested_length > 0 && unsafe { (*scratch).text[0] } == b'/';
        let folder = recall!(loops.folder) as i32;
        if absolute {
            // From the root, wherever the folder is.
        } else if folder == AT_FDCWD {
            place = working_directory();
        } else {
            let file = file_of_descriptor(folder as u32);
            place = Place::read(file + offset!(file_path) as u64);
        }
        // The same request leads elsewhere from another root, or in another mount namespace.
        let root = root();
        keep!(loops.root_dentry, root.dentry);
        keep!(loops.root_mount, root.mount);
        keep!(loops.namespace, mount_namespace(task));
        // Read back as numbers: the verifier lets nobody calculate with addresses of known type.
        starts_in = recall!(loops.root_dentry) ^ recall!(loops.namespace).rotate_left(32);
    }
    keep!(loops.flags, u64::from(flags));
    keep!(loops.inode, inode);
    keep!(loops.file_mode, u64::from(file_mode));
    keep!(loops.dentry, place.dentry);
    keep!(loops.mount, place.mount);
    keep!(loops.reached_mount, place.mount);
    keep!(loops.starts_in, starts_in);
    keep!(loops.operation, u64::from(access.operation));
    keep!(loops.outcome, access.outcome as u64);

    let requested = hash(scratch);

    // Read back from memory: the verifier must not follow each way of before through the rest.
    let flags = recall!(loops.flags) as u32;
    let operation = recall!(loops.operation) as u16;
    let outcome = recall!(loops.outcome) as i32;
    let inode = recall!(loops.inode);
    let file_mode = recall!(loops.file_mode) as u32;
    keep!(loops.with_root, u64::from(flags & file_flag::BASE));
    let mut key = RepeatKey {
        cgroup,
        requested,
        dentry: recall!(loops.dentry),
        inode: inode | recall!(loops.starts_in),
        detail: u64::from(operation)
            | (u64::from(flags & file_flag::ALL) << 8)
            | (u64::from(file_mode & FMODE_WRITE) << 22)
            | (u64::from(outcome as u32) << 32),
        epoch: epoch_of(cgroup),
    };
    if is_known(scratch) && REPEATS.get_ptr(&key).is_some() {
        count(counters, counter::ABSORBED);
        return;
    }

    // SAFETY: takes nothing and gives a number.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if is_over_budget(counters, now) {
        // Not remembered: its next occurrence tries again.
        count(counters, counter::THROTTLED);
        return;
    }
    // Repeats are not asked: the answer takes two looks into maps.
    let may_be_setup = flags & file_flag::SETUP == 0 && recall!(loops.is_own) == 0;
    if may_be_setup && setup::is_unannounced(task, cgroup) {
        key.detail |= u64::from(file_flag::SETUP) << 8;
        count(counters, counter::SETUP);
        take_back(counters, counter::RECEIVED + usize::from(operation));
        keep!(loops.flags, u64::from(flags | file_flag::SETUP));
    }
    keep!(loops.namespace, mount_namespace(task));
    let namespace = recall!(loops.namespace);
    let requested_length = recall!(loops.requested_length) as u32 & (PATH_MAX as u32 - 1);
    walk::components::<L>(scratch);
    let flags = recall!(loops.flags) as u32 | recall!(loops.walked) as u32;
    let used = recall!(loops.used) as u32;
    let components_length = recall!(loops.components) as u32;

    let mut file = RawFile {
        kind: record_kind::FILE,
        operation: recall!(loops.operation) as u16,
        outcome: recall!(loops.outcome) as i32,
        time_ns: now,
        cgroup,
        started_ns: process_start_ns(task),
        pid: (bpf_get_current_pid_tgid() >> 32) as u32,
        flags,
        comm: bpf_get_current_comm().unwrap_or([0; 16]),
        inode: 0,
        file_system: 0,
        device: 0,
        mount: 0,
        mode: 0,
        file_mode,
        requested_length,
        components_length,
        root_length: used - components_length,
        mount_namespace: namespace_number(namespace),
        syscall: recall!(loops.number) as u32,
        reserved: 0,
    };
    if inode != 0 {
        let mount = recall!(loops.reached_mount);
        let whole_mount = mount - offset!(mount_mnt) as u64;
        let superblock: Address = read_or_zero(inode + offset!(inode_sb) as u64);
        file.inode = read_or_zero(inode + offset!(inode_ino) as u64);
        file.mode = u32::from(read_or_zero::<u16>(inode + offset!(inode_mode) as u64));
        file.device = read_or_zero(superblock + offset!(super_block_dev) as u64);
        file.file_system = read_or_zero(superblock + offset!(super_block_magic) as u64);
        file.mount = read_or_zero(whole_mount + offset!(mount_id) as u64);
    }
    // SAFETY: a map value of this CPU.
    unsafe { (*scratch).file = file };

    let length = size_of::<RawFile>() as u64 + u64::from(requested_length) + u64::from(used);
    if send(scratch, length) {
        count(counters, counter::SUBMITTED);
        add(counters, counter::SPENT, length);
        // An access that could not be sent is not remembered: its next occurrence tries again.
        if is_known(scratch) {
            let _ = REPEATS.insert(&key, &0, 0);
        }
    } else {
        count(counters, counter::LOST_RING_FULL);
    }
}

/// Whether anything is known of the path. One that nobody can read may be any, and is a repeat of none.
#[inline(always)]
fn is_known(scratch: *mut Scratch) -> bool {
    let loops = Scratch::loops(scratch);
    recall!(loops.requested_length) != 0 || recall!(loops.flags) & u64::from(file_flag::BASE) == 0
}

/// Whether a cgroup has to stand back: the ring is short of room, and the cgroup has sent its share of
/// the running window. So a flood fills half of the ring, and the other half stays for its neighbours.
#[inline(always)]
fn is_over_budget(counters: *mut CgroupCounters, now: u64) -> bool {
    let window = now / BUDGET_WINDOW_NS;
    // SAFETY: a map value of this CPU.
    let spent = unsafe {
        if (*counters)[counter::WINDOW] != window {
            (*counters)[counter::WINDOW] = window;
            (*counters)[counter::SPENT] = 0;
        }
        (*counters)[counter::SPENT]
    };
    spent >= setting!(budget_bytes) && waiting() >= setting!(short_at_bytes)
}

/// Bytes that wait in the file ring.
#[inline(always)]
fn waiting() -> u64 {
    // SAFETY: a ring of this program.
    unsafe { bpf_ringbuf_query(file_ring(), u64::from(BPF_RB_AVAIL_DATA)) }
}

#[inline(always)]
fn file_ring() -> *mut core::ffi::c_void {
    core::ptr::addr_of!(FILES).cast_mut().cast()
}

/// Says for an access whether it is of the setup, and whether it is sure to be the container's own.
#[inline(always)]
pub(crate) fn stands(loops: *mut Loops, in_setup: bool, is_own: bool) {
    keep!(loops.in_setup, u64::from(in_setup));
    keep!(loops.is_own, u64::from(is_own));
}

/// Whether the running task is in setup.
#[inline(always)]
pub(crate) fn in_setup() -> bool {
    setup::anybody() && setup::is_entering((bpf_get_current_pid_tgid() >> 32) as u32)
}

/// Puts the requested path at the beginning of the text. Returns its length with its NUL, or a negative errno.
#[inline(always)]
fn read_requested(scratch: *mut Scratch, requested: Requested) -> i64 {
    // SAFETY: a map value of this CPU.
    let text = unsafe { core::ptr::addr_of_mut!((*scratch).text) }.cast();
    // SAFETY: the text is longer than PATH_MAX; the helpers fail instead of faulting.
    unsafe {
        match requested {
            Requested::User(path) => {
                bpf_probe_read_user_str(text, PATH_MAX as u32, path as *const _)
            }
            Requested::Kernel(path) => {
                bpf_probe_read_kernel_str(text, PATH_MAX as u32, path as *const _)
            }
        }
    }
}

/// Sends the record in the scratch room. The daemon looks at the ring by itself every now and then: a
/// wakeup for each record would cost more than everything else here together.
#[inline(always)]
fn send(scratch: *mut Scratch, length: u64) -> bool {
    let wake =
        if waiting() >= setting!(wake_at_bytes) { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    if length > (size_of::<RawFile>() + TEXT_MAX) as u64 {
        return false;
    }
    // SAFETY: the length is at most that of the scratch room.
    unsafe { bpf_ringbuf_output(file_ring(), scratch.cast(), length, u64::from(wake)) == 0 }
}

/// Hash of the requested path: seeded at start, four words at a time.
#[inline(always)]
fn hash(scratch: *mut Scratch) -> u64 {
    // An odd constant with well spread bits: the golden ratio in 64 bits.
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    const WORDS: usize = 4;
    const BLOCK: usize = WORDS * size_of::<u64>();
    // SAFETY: a map value of this CPU.
    let text = unsafe { core::ptr::addr_of_mut!((*scratch).text) }.cast::<u8>();
    let loops = Scratch::loops(scratch);
    keep!(loops.hashed, 0);
    // Behind the path stand the bytes of a path before it.
    let end = recall!(loops.requested_length) as usize & (PATH_MAX - 1);
    let bits = 8 * (end % size_of::<u64>()) as u64;
    // SAFETY: aligned, and below PATH_MAX and a block, which is below the end of the text.
    unsafe {
        let last = text.add(end & !(size_of::<u64>() - 1)).cast::<u64>();
        *last &= (1 << bits) - 1;
        for word in 1..WORDS {
            *last.add(word) = 0;
        }
    }
    keep!(loops.hash, setting!(seed) ^ recall!(loops.requested_length));
    for _ in 0..PATH_MAX / BLOCK {
        let hashed = recall!(loops.hashed);
        if hashed >= recall!(loops.requested_length) {
            break;
        }
        let at = hashed as usize & (PATH_MAX - BLOCK);
        let mut state = recall!(loops.hash);
        for word in 0..WORDS {
            // SAFETY: `at` is a multiple of a block below PATH_MAX, and the text begins at one.
            let word = unsafe { core::ptr::read_volatile(text.add(at).cast::<u64>().add(word)) };
            state = (state ^ word).wrapping_mul(MIX);
            state ^= state >> 29;
        }
        keep!(loops.hash, state);
        keep!(loops.hashed, hashed + BLOCK as u64);
    }
    recall!(loops.hash)
}
