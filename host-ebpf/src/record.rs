//! One file access: counted always, sent once, absorbed when it comes again.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_ktime_get_boot_ns, bpf_probe_read_kernel_str,
    bpf_probe_read_user_str, bpf_ringbuf_output, bpf_ringbuf_query,
};
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid};
use whodunit_ebpf::{
    COMPONENTS_MAX, CgroupCounters, FMODE_WRITE, PATH_MAX, RawFile, control, counter, file_flag,
    record_kind,
};

use crate::maps::{
    FILES, REPEATS, RepeatKey, SCRATCH, Scratch, TRACED, control_word, keep, offset, recall,
    setting,
};
use crate::read::{
    Address, Place, current_task, file_of_descriptor, process_start_ns, read_or_zero,
    working_directory,
};
use crate::setup;
use crate::walk;

/// `AT_FDCWD` of `include/uapi/linux/fcntl.h`.
pub(crate) const AT_FDCWD: i32 = -100;

/// A path as the program asked for it, and in whose memory it is.
#[derive(Clone, Copy)]
pub(crate) enum Requested {
    /// In the memory of the process.
    User(Address),
    /// In the kernel's.
    Kernel(Address),
}

/// One access.
#[derive(Clone, Copy)]
pub(crate) struct Access {
    pub(crate) operation: u16,
    /// 0, or a negative errno.
    pub(crate) outcome: i32,
    pub(crate) requested: Requested,
    /// The `struct file` that was reached; 0 where none was, or where it cannot be told here.
    pub(crate) file: Address,
    /// The descriptor of the folder that a relative request starts at.
    pub(crate) folder: i32,
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
    // SAFETY: a map value of this CPU, and every index is below its length.
    unsafe { (*counters)[index] += 1 };
}

/// Records an access of the running task.
#[inline(always)]
pub(crate) fn record(
    room: u32,
    cgroup: u64,
    counters: *mut CgroupCounters,
    in_setup: bool,
    access: Access,
) {
    let Some(scratch) = SCRATCH.get_ptr_mut(room) else { return };
    count(counters, if in_setup { counter::SETUP } else { counter::RECEIVED });
    let task = current_task();

    let loops = Scratch::loops(scratch);
    let mut flags = if in_setup { file_flag::SETUP } else { 0 };
    let requested_length = read_requested(scratch, access.requested);
    keep!(loops.requested_length, u64::from(requested_length));

    // What was reached, or where the path starts.
    let mut inode: Address = 0;
    let mut file_mode = 0u32;
    let place;
    if access.file != 0 {
        place = Place::read(access.file + offset!(file_path) as u64);
        inode = read_or_zero(access.file + offset!(file_inode) as u64);
        file_mode = read_or_zero(access.file + offset!(file_mode) as u64);
    } else {
        flags |= file_flag::BASE;
        // SAFETY: the text is a map value of this CPU.
        let absolute = requested_length > 0 && unsafe { (*scratch).text[0] } == b'/';
        place = if absolute {
            Place { mount: 0, dentry: 0 }
        } else if access.folder == AT_FDCWD {
            working_directory(task)
        } else {
            let file = file_of_descriptor(access.folder as u32);
            Place::read(file + offset!(file_path) as u64)
        };
    }
    keep!(loops.flags, u64::from(flags));
    keep!(loops.inode, inode);
    keep!(loops.file_mode, u64::from(file_mode));
    keep!(loops.dentry, place.dentry);
    keep!(loops.mount, place.mount);
    keep!(loops.in_setup, u64::from(in_setup));

    let requested = hash(scratch);
    let mut flags = recall!(loops.flags) as u32;
    let inode: Address = recall!(loops.inode);
    let file_mode = recall!(loops.file_mode) as u32;
    let place = Place { mount: recall!(loops.mount), dentry: recall!(loops.dentry) };
    let key = RepeatKey {
        cgroup,
        requested,
        dentry: place.dentry,
        inode,
        detail: u64::from(access.operation)
            | (recall!(loops.in_setup) << 16)
            | (u64::from(file_mode & FMODE_WRITE) << 17)
            | (u64::from(access.outcome as u32) << 32),
        epoch: control_word(control::EPOCH),
    };
    if REPEATS.get_ptr(&key).is_some() {
        count(counters, counter::ABSORBED);
        return;
    }

    let requested_length = recall!(loops.requested_length) as u32 & (PATH_MAX as u32 - 1);
    let mut components_length = 0;
    if place.dentry != 0 {
        let (length, walked) = walk::components(scratch, task, place);
        components_length = length;
        flags |= walked;
    }

    let mut file = RawFile {
        kind: record_kind::FILE,
        operation: access.operation,
        outcome: access.outcome,
        // SAFETY: takes nothing and gives a number.
        time_ns: unsafe { bpf_ktime_get_boot_ns() },
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
    };
    if inode != 0 {
        let whole_mount = place.mount - offset!(mount_mnt) as u64;
        let superblock: Address = read_or_zero(inode + offset!(inode_sb) as u64);
        file.inode = read_or_zero(inode + offset!(inode_ino) as u64);
        file.mode = u32::from(read_or_zero::<u16>(inode + offset!(inode_mode) as u64));
        file.device = read_or_zero(superblock + offset!(super_block_dev) as u64);
        file.file_system = read_or_zero(superblock + offset!(super_block_magic) as u64);
        file.mount = read_or_zero(whole_mount + offset!(mount_id) as u64);
    }
    // SAFETY: a map value of this CPU.
    unsafe { (*scratch).file = file };

    if send(scratch, requested_length, components_length) {
        count(counters, counter::SUBMITTED);
        // An access that could not be sent is not remembered: its next occurrence tries again.
        let _ = REPEATS.insert(&key, &0, 0);
    } else {
        count(counters, counter::LOST_RING_FULL);
    }
}

/// Whether the running task is in setup.
#[inline(always)]
pub(crate) fn in_setup() -> bool {
    setup::anybody() && setup::is_entering((bpf_get_current_pid_tgid() >> 32) as u32)
}

/// Puts the requested path at the beginning of the text. Returns its length, without a NUL.
#[inline(always)]
fn read_requested(scratch: *mut Scratch, requested: Requested) -> u32 {
    // SAFETY: a map value of this CPU.
    let text = unsafe { core::ptr::addr_of_mut!((*scratch).text) }.cast();
    // SAFETY: the text is longer than PATH_MAX; the helpers fail instead of faulting.
    let length = unsafe {
        match requested {
            Requested::User(path) => {
                bpf_probe_read_user_str(text, PATH_MAX as u32, path as *const _)
            }
            Requested::Kernel(path) => {
                bpf_probe_read_kernel_str(text, PATH_MAX as u32, path as *const _)
            }
        }
    };
    if length <= 1 { 0 } else { (length as u32 - 1) & (PATH_MAX as u32 - 1) }
}

/// Sends the record in the scratch room. The daemon looks at the ring by itself every now and then: a
/// wakeup for each record would cost more than everything else here together.
#[inline(always)]
fn send(scratch: *mut Scratch, requested_length: u32, components_length: u32) -> bool {
    let ring = core::ptr::addr_of!(FILES).cast_mut().cast();
    let text_length = (requested_length as u64 & (PATH_MAX as u64 - 1))
        + (components_length as u64 & (COMPONENTS_MAX as u64 - 1));
    // SAFETY: a ring of this program.
    let waiting = unsafe { bpf_ringbuf_query(ring, u64::from(BPF_RB_AVAIL_DATA)) };
    let wake =
        if waiting >= setting!(wake_at_bytes) { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    let length = size_of::<RawFile>() as u64 + text_length;
    // SAFETY: the length is at most that of the scratch room.
    unsafe { bpf_ringbuf_output(ring, scratch.cast(), length, u64::from(wake)) == 0 }
}

/// Hash of the requested path: seeded at start, eight bytes at a time.
#[inline(always)]
fn hash(scratch: *mut Scratch) -> u64 {
    // An odd constant with well spread bits: the golden ratio in 64 bits.
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    // SAFETY: a map value of this CPU.
    let text = unsafe { core::ptr::addr_of!((*scratch).text) }.cast::<u8>();
    let loops = Scratch::loops(scratch);
    keep!(loops.hashed, 0);
    let mut state = setting!(seed) ^ recall!(loops.requested_length);
    for _ in 0..PATH_MAX / 8 {
        let length = recall!(loops.requested_length);
        let hashed = recall!(loops.hashed);
        if hashed >= length {
            break;
        }
        let at = hashed as usize & (PATH_MAX - 8);
        // SAFETY: `at` is a multiple of eight below PATH_MAX, and the text begins at one.
        let mut word = unsafe { core::ptr::read_volatile(text.add(at).cast::<u64>()) };
        let rest = length - hashed;
        if rest < 8 {
            // Behind the path stand the bytes of a path before it.
            word &= u64::MAX >> ((64 - 8 * rest) & 63);
        }
        state = (state ^ word).wrapping_mul(MIX);
        state ^= state >> 29;
        keep!(loops.hashed, hashed + 8);
    }
    state
}
