//! Maps, rings and settings: everything that lives longer than one run of a program.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf};
use whodunit_ebpf::{
    CALLS, COMPONENTS_MAX, CgroupCounters, FateSettings, KernelLayout, NAME_MAX, PATH_MAX, RawFile,
    Road, Roads, Settings, control, epochs, machine_counter,
};

/// Offsets of the running kernel, filled in by the daemon before loading. Like each static of that kind it
/// begins with bytes that no other one has, or the compiler would merge those of one length.
#[unsafe(no_mangle)]
static LAYOUT: KernelLayout = unsafe {
    // SAFETY: a structure of integers; every bit pattern is a value of it.
    core::mem::transmute([0xa1u8; size_of::<KernelLayout>()])
};

/// Settings, filled in by the daemon before loading.
#[unsafe(no_mangle)]
static SETTINGS: Settings = unsafe {
    // SAFETY: a structure of integers; every bit pattern is a value of it.
    core::mem::transmute([0xa2u8; size_of::<Settings>()])
};

/// Settings of the programs about processes, filled in by the daemon before loading.
#[unsafe(no_mangle)]
static FATE: FateSettings = unsafe {
    // SAFETY: a structure of integers; every bit pattern is a value of it.
    core::mem::transmute([0xa3u8; size_of::<FateSettings>()])
};

/// The roads of all system calls, filled in by the daemon before loading. Begins with a value that no
/// other static has, or the compiler would merge them.
#[unsafe(no_mangle)]
static ROADS: Roads = Roads { native: [UNSET; CALLS], compat: [UNSET; CALLS] };

const UNSET: Road = Road {
    operation: 0xaa,
    reached: 0xaa,
    path: 0xaa,
    folder: 0xaa,
    second_path: 0xaa,
    second_folder: 0xaa,
    flags: 0xaa,
    follow: 0xaa,
};

/// The roads of a call, as native and as 32-bit one. Each is a [`Road`] in one word.
#[inline(always)]
pub(crate) fn roads(number: u32) -> (u64, u64) {
    let call = number as usize & (CALLS - 1);
    // SAFETY: a static of this program, filled in by the loader; eight bytes each, aligned below.
    unsafe {
        let roads = addr_of!(ROADS).cast::<u64>();
        (
            core::ptr::read_volatile(roads.add(call)),
            core::ptr::read_volatile(roads.add(CALLS + call)),
        )
    }
}

/// The settings. Volatile, or the compiler would use the zeroes that it sees here.
macro_rules! setting {
    ($field:ident $([$index:literal])?) => {
        // SAFETY: a static of this program, filled in by the loader.
        unsafe {
            core::ptr::read_volatile(core::ptr::addr_of!(
                (*crate::maps::settings()).$field $([$index])?
            ))
        }
    };
}
pub(crate) use setting;

/// A setting of the programs about processes.
macro_rules! fate {
    ($field:ident) => {
        // SAFETY: a static of this program, filled in by the loader.
        unsafe {
            core::ptr::read_volatile(core::ptr::addr_of!((*crate::maps::fate_settings()).$field))
        }
    };
}
pub(crate) use fate;

/// An offset of the running kernel.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: a static of this program, filled in by the loader.
        unsafe {
            core::ptr::read_volatile(core::ptr::addr_of!((*crate::maps::layout()).$field)) as usize
        }
    };
}
pub(crate) use offset;

#[inline(always)]
pub(crate) fn settings() -> *const Settings {
    addr_of!(SETTINGS)
}

#[inline(always)]
pub(crate) fn fate_settings() -> *const FateSettings {
    addr_of!(FATE)
}

#[inline(always)]
pub(crate) fn layout() -> *const KernelLayout {
    addr_of!(LAYOUT)
}

/// The cgroups whose accesses are captured, with their counters. The daemon sets the size.
#[map]
pub(crate) static TRACED: PerCpuHashMap<u64, CgroupCounters> =
    PerCpuHashMap::with_max_entries(4096, 0);

/// The cgroups whose new children are traced at once.
#[map]
pub(crate) static WATCHED: HashMap<u64, u8> = HashMap::with_max_entries(4096, 0);

/// Accesses that were sent already, and are only counted when they come again.
#[map]
pub(crate) static REPEATS: LruHashMap<RepeatKey, u8> = LruHashMap::with_max_entries(65_536, 0);

/// Processes in setup, by process id: see `setup.rs`.
#[map]
pub(crate) static ENTERING: HashMap<u32, u8> = HashMap::with_max_entries(8192, 0);

/// Processes of traced cgroups that are past setup, by process id, with their start times.
#[map]
pub(crate) static MEMBERS: LruHashMap<u32, u64> = LruHashMap::with_max_entries(16_384, 0);

/// What the exact tier knows of the program that a process is about to execute, by process id: see
/// `interpreter.rs`.
#[map]
pub(crate) static EXECUTING: LruHashMap<u32, Executing> = LruHashMap::with_max_entries(1024, 0);

/// A program about to be executed.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Executing {
    /// The `struct file` of the interpreter that was opened last.
    pub(crate) opened: u64,
    /// The `struct file` that is executed now, if it is an interpreter that was opened before.
    pub(crate) told: u64,
    /// 1 where the file that is executed has a place in the file system.
    pub(crate) placed: u64,
}

/// What the workers of rings are doing, by thread: see `ring.rs`. The daemon sets the size.
#[map]
pub(crate) static RINGS: LruHashMap<u64, RingWork> = LruHashMap::with_max_entries(1, 0);

/// A request of a ring that is about one or two paths.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct RingWork {
    /// The `struct io_kiocb`.
    pub(crate) request: u64,
    /// One of `operation`.
    pub(crate) operation: u32,
    /// 1 if a link that the first path names is followed.
    pub(crate) follow: u32,
    /// How many paths there are.
    pub(crate) names: u32,
    /// Fills the structure.
    pub(crate) reserved: u32,
    /// The descriptors of the folders that they start at.
    pub(crate) folders: [i32; 2],
    /// The paths as they were asked for, each with its NUL.
    pub(crate) texts: [[u8; PATH_MAX]; 2],
}

/// Words by which daemon and programs steer each other: `control`.
#[map]
pub(crate) static CONTROL: Array<u64> = Array::with_max_entries(control::COUNT, 0);

/// Counters of the machine: `machine_counter`.
#[map]
pub(crate) static MACHINE: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(machine_counter::COUNT, 0);

/// File records. The daemon sets the size.
#[map]
pub(crate) static FILES: RingBuf = RingBuf::with_byte_size(16 << 20, 0);

/// Cgroup records. A ring of their own, so that a flood of files cannot push them out.
#[map]
pub(crate) static LIFECYCLE: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Size of the ring of deaths.
pub(crate) const DEATHS_BYTES: u32 = 2 << 20;

/// Records about processes. A ring of their own, so that a flood of files can neither delay nor push out a death.
#[map]
pub(crate) static DEATHS: RingBuf = RingBuf::with_byte_size(DEATHS_BYTES, 0);

/// When a signal that its process handles or ignores was sent to the daemon, by process and signal.
#[map]
pub(crate) static HANDLED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(4096, 0);

/// Room for two records of each CPU. All programs that use the first run in the context of a process, one
/// at a time on a CPU, unless the kernel lets one interrupt the other (from Linux 6.19 on): `occupy`. The
/// kernel lets the programs of the exact tier be interrupted at any time: theirs is the second, so that they
/// never stand in the way of the others.
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(2, 0);

/// The room of the base tier's programs, and that of the exact tier's.
pub(crate) const ROOM: u32 = 0;
pub(crate) const EXACT_ROOM: u32 = 1;

/// Takes this CPU's room. None if it is in use by a program that was interrupted.
#[inline(always)]
pub(crate) fn occupy() -> Option<*mut Scratch> {
    occupy_room(ROOM)
}

/// Takes this CPU's room of the exact tier. None if it is in use by a program that was interrupted.
#[inline(always)]
pub(crate) fn occupy_exact() -> Option<*mut Scratch> {
    occupy_room(EXACT_ROOM)
}

#[inline(always)]
fn occupy_room(room: u32) -> Option<*mut Scratch> {
    let scratch = Scratch::of_this_cpu(room)?;
    let loops = Scratch::loops(scratch);
    if recall!(loops.busy) != 0 {
        return None;
    }
    keep!(loops.busy, 1);
    Some(scratch)
}

/// Gives it back.
#[inline(always)]
pub(crate) fn vacate(scratch: *mut Scratch) {
    let loops = Scratch::loops(scratch);
    keep!(loops.busy, 0);
}

/// Epochs of the dedup by the lower bits of a cgroup's id. The daemon raises one to make what a cgroup
/// accesses news once more; what shares the bits is sent once more too, which is a repeat to the daemon.
#[map]
static EPOCHS: Array<u64> = Array::with_max_entries(epochs::COUNT, 0);

/// The epoch of a cgroup's dedup.
#[inline(always)]
pub(crate) fn epoch_of(cgroup: u64) -> u64 {
    let own = match EPOCHS.get_ptr(epochs::of(cgroup)) {
        // SAFETY: a map value.
        Some(word) => unsafe { read_volatile(word) },
        None => 0,
    };
    control_word(control::EPOCH) + own
}

/// What makes an access the same as one before it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct RepeatKey {
    pub(crate) cgroup: u64,
    /// Hash of the requested path.
    pub(crate) requested: u64,
    /// The dentry that was reached, or the one that a relative path starts at.
    pub(crate) dentry: u64,
    /// The inode that was reached, or the root and the mount namespace that a request starts in.
    pub(crate) inode: u64,
    /// Operation, outcome, how it was opened, flags.
    pub(crate) detail: u64,
    /// Epoch of the dedup.
    pub(crate) epoch: u64,
}

/// Room for the text of a record: the requested path, the components, and one name to spare, because
/// the verifier knows only that a name begins below the end of the components.
pub(crate) const TEXT_MAX: usize = PATH_MAX + COMPONENTS_MAX + NAME_MAX;

/// Where a record is put together before it goes into a ring.
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) file: RawFile,
    pub(crate) text: [u8; TEXT_MAX],
    pub(crate) loops: Loops,
}

/// What `record` knows when it comes to its loops, and what the loops carry from turn to turn. Kept in
/// memory, and read back by `recall`, so that the verifier forgets how each number came to be: in
/// registers it would follow every way into a loop, and every turn, on its own through everything
/// behind it, and give up after a million instructions.
#[repr(C)]
pub(crate) struct Loops {
    /// Length of the requested path, without a NUL.
    pub(crate) requested_length: u64,
    /// How many bytes of it are hashed, and the hash so far.
    pub(crate) hashed: u64,
    pub(crate) hash: u64,
    /// How many bytes of components there are.
    pub(crate) used: u64,
    /// Where the walk is: the dentry, its mount, the root of that mount.
    pub(crate) dentry: u64,
    pub(crate) mount: u64,
    pub(crate) top: u64,
    /// The mount of what was reached.
    pub(crate) reached_mount: u64,
    /// The root and the mount namespace that a request starts in, mixed; 0 where a file was reached.
    pub(crate) starts_in: u64,
    /// The mount namespace of the process.
    pub(crate) namespace: u64,
    /// The root of the process.
    pub(crate) root_dentry: u64,
    pub(crate) root_mount: u64,
    /// Bits of `file_flag` that the walk found.
    pub(crate) walked: u64,
    /// Bits of `file_flag` so far.
    pub(crate) flags: u64,
    /// The inode that was reached, or 0, and how it was opened.
    pub(crate) inode: u64,
    pub(crate) file_mode: u64,
    /// 1 if what is executed is a `#!` script, and 1 if its interpreter was told when it was opened.
    pub(crate) is_script: u64,
    pub(crate) is_told: u64,
    /// 1 in setup.
    pub(crate) in_setup: u64,
    /// 1 if it is sure to be the container's own.
    pub(crate) is_own: u64,
    /// What was done, and what came of it.
    pub(crate) operation: u64,
    pub(crate) outcome: u64,
    /// 1 while a program is at work in this room.
    pub(crate) busy: u64,
    /// Bytes of the components of what was reached; the root's follow them.
    pub(crate) components: u64,
    /// Not 0 if the walk is about the process's root, too.
    pub(crate) with_root: u64,
    /// 1 while the walk is about the root.
    pub(crate) at_root: u64,
    /// The arguments of the system call, by index, and what `argument` says.
    pub(crate) arguments: [u64; 8],
    /// One access, as `record` takes it: the `struct file` that was reached, or else the place, or else
    /// neither; the request's address and the descriptor of the folder that a relative one starts at.
    pub(crate) file: u64,
    pub(crate) place_dentry: u64,
    pub(crate) place_mount: u64,
    pub(crate) path: u64,
    pub(crate) folder: u64,
    /// The call's road, result, number and flags.
    pub(crate) road: u64,
    pub(crate) result: u64,
    pub(crate) number: u64,
    pub(crate) call_flags: u64,
}

impl Scratch {
    /// A room of this CPU, in use or not.
    #[inline(always)]
    pub(crate) fn of_this_cpu(room: u32) -> Option<*mut Scratch> {
        SCRATCH.get_ptr_mut(room)
    }

    /// The loops' numbers of a scratch room, which must be a map value of this CPU.
    #[inline(always)]
    pub(crate) fn loops(room: *mut Scratch) -> *mut Loops {
        // SAFETY: a map value of this CPU.
        unsafe { core::ptr::addr_of_mut!((*room).loops) }
    }
}

/// Writes a number of a scratch room that the verifier shall know nothing about.
macro_rules! keep {
    ($loops:ident . $field:ident $([$index:literal])?, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: a map value of this CPU.
        unsafe { core::ptr::write_volatile(core::ptr::addr_of_mut!((*$loops).$field $([$index])?), value) }
    }};
}
pub(crate) use keep;

/// Reads it back.
macro_rules! recall {
    ($loops:ident . $field:ident $([$index:literal])?) => {
        // SAFETY: a map value of this CPU.
        unsafe { core::ptr::read_volatile(core::ptr::addr_of!((*$loops).$field $([$index])?)) }
    };
}
pub(crate) use recall;

/// Adds one to a counter of the machine.
#[inline(always)]
pub(crate) fn count_machine(index: u32) {
    if let Some(counter) = MACHINE.get_ptr_mut(index) {
        // SAFETY: a map value of this CPU.
        unsafe { *counter += 1 };
    }
}

/// A control word.
#[inline(always)]
pub(crate) fn control_word(index: u32) -> u64 {
    match CONTROL.get_ptr(index) {
        // SAFETY: a map value.
        Some(word) => unsafe { read_volatile(word) },
        None => 0,
    }
}
