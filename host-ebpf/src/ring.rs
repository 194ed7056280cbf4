//! What io_uring does with paths beside opening files: it asks about them, removes them, gives them names.
//!
//! A part of the exact tier. A ring has all of this done by its workers, and all that workers do goes through one
//! function of the kernel. The names are read when it begins, because they are gone when it is over; what came of it
//! is read then. Both ends are in the same thread.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use aya_ebpf::macros::{fentry, fexit};
use aya_ebpf::programs::{FEntryContext, FExitContext};
use whodunit_ebpf::{CgroupCounters, PATH_MAX, counter, file_flag, operation};

use crate::maps::{EXACT_ROOM, RINGS, RingWork, Scratch, keep, occupy_exact, offset, vacate};
use crate::read::{Address, read_or_zero};
use crate::record::{Access, Requested, count, in_setup, record, stands, traced_counters};
use crate::run;
use crate::syscall::{AT_FDCWD, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW};
use crate::walk::ExactHelper;

/// `IORING_OP_*` of `include/uapi/linux/io_uring.h`, for what leads to a path and is no opening.
mod opcode {
    pub(super) const STATX: u8 = 21;
    pub(super) const RENAMEAT: u8 = 35;
    pub(super) const UNLINKAT: u8 = 36;
    pub(super) const MKDIRAT: u8 = 37;
    pub(super) const SYMLINKAT: u8 = 38;
    pub(super) const LINKAT: u8 = 39;
    pub(super) const SETXATTR: u8 = 42;
    pub(super) const GETXATTR: u8 = 44;
}

const ECANCELED: i32 = 125;

/// `void io_wq_submit_work(struct io_wq_work *work)`: a worker takes up a request.
#[fentry]
pub fn ring_work_begun(ctx: FEntryContext) -> i32 {
    run::on_function(|| {
        if traced_counters().is_none() {
            return 0;
        }
        let request = request(ctx.arg(0));
        if let Some(way) = way(request) {
            // Where there is no room for it, that is counted when it is done.
            let _ = keep_names(request, &way);
        }
        0
    })
}

/// The same when the worker has done it. The request is there until the worker lets go of it, which is later.
#[fexit]
pub fn ring_work_done(ctx: FExitContext) -> i32 {
    run::on_function(|| {
        let Some((cgroup, counters)) = traced_counters() else { return 0 };
        let request = request(ctx.arg(0));
        if !is_about_paths(opcode_of(request)) {
            return 0;
        }
        let thread = bpf_get_current_pid_tgid();
        let Some(work) = RINGS.get_ptr_mut(&thread) else {
            count(counters, counter::BUSY);
            return 0;
        };
        // SAFETY: a map value.
        let is_this = unsafe { (*work).request == request };
        match occupy_exact() {
            Some(scratch) if is_this => {
                tell(scratch, work, cgroup, counters, request);
                vacate(scratch);
            }
            Some(scratch) => {
                count(counters, counter::BUSY);
                vacate(scratch);
            }
            None => count(counters, counter::BUSY),
        }
        let _ = RINGS.remove(&thread);
        0
    })
}

#[inline(always)]
fn request(work: Address) -> Address {
    work - offset!(io_kiocb_work) as u64
}

#[inline(always)]
fn opcode_of(request: Address) -> u8 {
    read_or_zero(request + offset!(io_kiocb_opcode) as u64)
}

#[inline(always)]
fn is_about_paths(code: u8) -> bool {
    matches!(code, opcode::STATX | opcode::SETXATTR | opcode::GETXATTR)
        || (opcode::RENAMEAT..=opcode::LINKAT).contains(&code)
}

/// What a request does, and where it has its one or two paths.
struct Way {
    operation: u16,
    follow: bool,
    /// Folders that relative paths start at.
    folders: [i32; 2],
    /// Each a `struct filename`, or none.
    names: [Address; 2],
}

#[inline(always)]
fn way(request: Address) -> Option<Way> {
    let command = request + offset!(io_kiocb_cmd) as u64;
    let one = |operation, folder: usize, name: usize| Way {
        operation,
        follow: false,
        folders: [read_or_zero(command + folder as u64), AT_FDCWD],
        names: [read_or_zero(command + name as u64), 0],
    };
    let two = |operation, folders: [usize; 2], names: [usize; 2]| Way {
        operation,
        follow: false,
        folders: folders.map(|at| read_or_zero(command + at as u64)),
        names: names.map(|at| read_or_zero(command + at as u64)),
    };
    let here = |operation, name: usize| Way {
        operation,
        follow: true,
        folders: [AT_FDCWD; 2],
        names: [read_or_zero(command + name as u64), 0],
    };
    Some(match opcode_of(request) {
        opcode::STATX => {
            let flags: u32 = read_or_zero(command + offset!(io_statx_flags) as u64);
            let way = one(operation::STAT, offset!(io_statx_dfd), offset!(io_statx_filename));
            Way { follow: u64::from(flags) & AT_SYMLINK_NOFOLLOW == 0, ..way }
        }
        opcode::UNLINKAT => {
            one(operation::UNLINK, offset!(io_unlink_dfd), offset!(io_unlink_filename))
        }
        opcode::MKDIRAT => one(operation::MAKE, offset!(io_mkdir_dfd), offset!(io_mkdir_filename)),
        // The text of a link is no path yet.
        opcode::SYMLINKAT => {
            one(operation::MAKE, offset!(io_link_new_dfd), offset!(io_link_newpath))
        }
        opcode::RENAMEAT => two(
            operation::RENAME,
            [offset!(io_rename_old_dfd), offset!(io_rename_new_dfd)],
            [offset!(io_rename_oldpath), offset!(io_rename_newpath)],
        ),
        opcode::LINKAT => {
            let flags: u32 = read_or_zero(command + offset!(io_link_flags) as u64);
            let way = two(
                operation::LINK,
                [offset!(io_link_old_dfd), offset!(io_link_new_dfd)],
                [offset!(io_link_oldpath), offset!(io_link_newpath)],
            );
            Way { follow: u64::from(flags) & AT_SYMLINK_FOLLOW != 0, ..way }
        }
        opcode::SETXATTR => here(operation::ATTRIBUTES, offset!(io_xattr_filename)),
        opcode::GETXATTR => here(operation::OTHER_USE, offset!(io_xattr_filename)),
        _ => return None,
    })
}

/// Keeps what a request is about until it is done. None where there is no room for it.
#[inline(always)]
fn keep_names(request: Address, way: &Way) -> Option<()> {
    let thread = bpf_get_current_pid_tgid();
    let room = Scratch::of_this_cpu(EXACT_ROOM)?;
    // SAFETY: a map value, which is longer than this. What stands there does not matter: all that is read
    // of it later is written below.
    let any = unsafe { &*core::ptr::addr_of!((*room).text).cast::<RingWork>() };
    RINGS.insert(&thread, any, 0).ok()?;
    let work = RINGS.get_ptr_mut(&thread)?;
    // SAFETY: a map value; the helper fails instead of faulting, and reads no more than there is room for.
    unsafe {
        (*work).request = request;
        (*work).operation = u32::from(way.operation);
        (*work).follow = u32::from(way.follow);
        (*work).names = if way.names[1] == 0 { 1 } else { 2 };
        (*work).folders = way.folders;
        read_name(core::ptr::addr_of_mut!((*work).texts[0]), way.names[0]);
        read_name(core::ptr::addr_of_mut!((*work).texts[1]), way.names[1]);
    }
    Some(())
}

/// # Safety
///
/// `into` must be in a map value.
#[inline(always)]
unsafe fn read_name(into: *mut [u8; PATH_MAX], name: Address) {
    let text: Address = read_or_zero(name + offset!(filename_name) as u64);
    // SAFETY: there are so many bytes; the helper fails instead of faulting.
    unsafe {
        *into.cast::<u8>() = 0;
        bpf_probe_read_kernel_str(into.cast(), PATH_MAX as u32, text as *const _);
    }
}

#[inline(always)]
fn tell(
    scratch: *mut Scratch,
    work: *mut RingWork,
    cgroup: u64,
    counters: *mut CgroupCounters,
    request: Address,
) {
    let result: i32 = read_or_zero(request + (offset!(io_kiocb_cqe) + offset!(io_cqe_res)) as u64);
    if result == -ECANCELED {
        // One that was called off did nothing.
        return;
    }
    let loops = Scratch::loops(scratch);
    stands(loops, in_setup(), false);
    for turn in 0..2usize {
        // SAFETY: a map value; the index is below the length.
        let (operation, follow, names, folder, text) = unsafe {
            (
                (*work).operation as u16,
                (*work).follow != 0,
                (*work).names,
                (*work).folders[turn],
                core::ptr::addr_of!((*work).texts).cast::<[u8; PATH_MAX]>().add(turn) as Address,
            )
        };
        if turn as u32 >= names {
            return;
        }
        let mut flags = file_flag::IO_URING;
        if turn != 0 {
            flags |= file_flag::DESTINATION;
        }
        if turn != 0 || !follow {
            flags |= file_flag::NO_FOLLOW;
        }
        keep!(loops.file, 0);
        keep!(loops.place_dentry, 0);
        keep!(loops.place_mount, 0);
        keep!(loops.folder, folder as u64);
        keep!(loops.flags, u64::from(flags));
        keep!(loops.number, 0);
        let outcome = if result < 0 { result } else { 0 };
        let access = Access { operation, outcome, requested: Requested::Kernel(text) };
        record::<ExactHelper>(scratch, cgroup, counters, access);
    }
}
