/* Comes to files by other ways than system calls that name them, and says what it did: the witness of the trials in
 * `tests/suite/beneath.rs`. The rings are made by hand, since no libc makes them.
 *
 * A line tells what is to be seen where such a way is seen: kind, outcome (`used`, `missing`, `refused`), the request,
 * the path, and the flag that says by which way; tabs in between. A line `road NAME` begins each way, and `lacks NAME`
 * says that the kernel has not got it. `beneath` makes what it needs, says `ready`, waits for a line, opens
 * `/begin`, does its work, opens `/end`, and says `done`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define ENTRIES 8

static void must(const char *what, long result)
{
	if (result < 0) {
		fprintf(stderr, "beneath: %s: %s\n", what, strerror(errno));
		exit(1);
	}
}

static void told(const char *kind, long error, const char *requested, const char *path, const char *way)
{
	const char *outcome = error == 0 ? "used" : error == ENOENT ? "missing" : "refused";
	printf("%s\t%s\t%s\t%s\t%s\n", kind, outcome, requested, path, way);
}

static void road(const char *name)
{
	printf("road %s\n", name);
}

static void lacks(const char *name)
{
	printf("lacks %s\n", name);
}

static void make(const char *path)
{
	must(path, mknod(path, S_IFREG | 0644, 0));
}

struct ring {
	int descriptor;
	unsigned flags;
	unsigned *submitted, *submitted_mask, *submitted_flags, *indices;
	unsigned *completed_head, *completed, *completed_mask;
	struct io_uring_sqe *entries;
	struct io_uring_cqe *completions;
};

static void *map(int descriptor, size_t size, off_t offset)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor, offset);
	must("mmap", at == MAP_FAILED ? -1 : 0);
	return at;
}

static struct ring ring_of(unsigned flags)
{
	struct io_uring_params params = { .flags = flags, .sq_thread_idle = 2000 };
	struct ring ring = { .flags = flags };
	ring.descriptor = syscall(SYS_io_uring_setup, ENTRIES, &params);
	must("io_uring_setup", ring.descriptor);
	char *sq = map(ring.descriptor, params.sq_off.array + params.sq_entries * sizeof(unsigned),
		       IORING_OFF_SQ_RING);
	char *cq = map(ring.descriptor,
		       params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe),
		       IORING_OFF_CQ_RING);
	ring.entries = map(ring.descriptor, params.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
	ring.submitted = (void *)(sq + params.sq_off.tail);
	ring.submitted_mask = (void *)(sq + params.sq_off.ring_mask);
	ring.submitted_flags = (void *)(sq + params.sq_off.flags);
	ring.indices = (void *)(sq + params.sq_off.array);
	ring.completed_head = (void *)(cq + params.cq_off.head);
	ring.completed = (void *)(cq + params.cq_off.tail);
	ring.completed_mask = (void *)(cq + params.cq_off.ring_mask);
	ring.completions = (void *)(cq + params.cq_off.cqes);
	return ring;
}

static void put(struct ring *ring, struct io_uring_sqe entry)
{
	unsigned tail = *ring->submitted;
	unsigned index = tail & *ring->submitted_mask;
	ring->entries[index] = entry;
	ring->indices[index] = index;
	__atomic_store_n(ring->submitted, tail + 1, __ATOMIC_SEQ_CST);
}

/* Submits what was put, waits for all of it, and gives the result of the last. */
static int wait_for(struct ring *ring, unsigned count)
{
	unsigned head = *ring->completed_head;
	unsigned flags = IORING_ENTER_GETEVENTS, to_submit = count;
	if (ring->flags & IORING_SETUP_SQPOLL) {
		to_submit = 0;
		if (__atomic_load_n(ring->submitted_flags, __ATOMIC_SEQ_CST) & IORING_SQ_NEED_WAKEUP)
			flags |= IORING_ENTER_SQ_WAKEUP;
	}
	int result = 0;
	for (unsigned seen = 0; seen < count;) {
		unsigned left = count - seen;
		long done = syscall(SYS_io_uring_enter, ring->descriptor, to_submit, left, flags, NULL, 0);
		if (done < 0 && errno != EINTR)
			must("io_uring_enter", done);
		to_submit = 0;
		for (; head != __atomic_load_n(ring->completed, __ATOMIC_ACQUIRE); head++, seen++)
			result = ring->completions[head & *ring->completed_mask].res;
		__atomic_store_n(ring->completed_head, head, __ATOMIC_RELEASE);
	}
	return result;
}

static struct io_uring_sqe opening(int folder, const char *path, int flags)
{
	struct io_uring_sqe entry = { .opcode = IORING_OP_OPENAT, .fd = folder };
	entry.addr = (unsigned long)path;
	entry.open_flags = flags;
	entry.len = 0644;
	return entry;
}

/* Opens a file by one entry, and tells it. */
static void open_by(struct ring *ring, struct io_uring_sqe entry, const char *path)
{
	put(ring, entry);
	int result = wait_for(ring, 1);
	if (result < 0 && result != -ENOENT) {
		errno = -result;
		must(path, -1);
	}
	told("open", result < 0 ? -result : 0, (const char *)(unsigned long)entry.addr, path, "io-uring");
	if (result >= 0)
		close(result);
}

static void by_rings(int folder)
{
	struct ring ring = ring_of(0), polled = ring_of(IORING_SETUP_SQPOLL);
	struct io_uring_sqe entry;

	open_by(&ring, opening(AT_FDCWD, "/w/inline", O_RDONLY), "/w/inline");
	open_by(&ring, opening(AT_FDCWD, "/w/absent", O_RDONLY), "/w/absent");
	open_by(&ring, opening(folder, "relative", O_RDONLY), "/w/relative");
	open_by(&ring, opening(AT_FDCWD, "/w/link", O_RDONLY), "/w/target");
	open_by(&ring, opening(AT_FDCWD, "/w/created", O_WRONLY | O_CREAT | O_EXCL), "/w/created");

	struct open_how_of_kernel {
		unsigned long long flags, mode, resolve;
	} how = { O_RDONLY, 0, 0 };
	entry = opening(AT_FDCWD, "/w/second", 0);
	entry.opcode = IORING_OP_OPENAT2;
	entry.open_flags = 0;
	entry.len = sizeof how;
	entry.off = (unsigned long)&how;
	open_by(&ring, entry, "/w/second");

	entry = opening(AT_FDCWD, "/w/worker", O_RDONLY);
	entry.flags = IOSQE_ASYNC;
	open_by(&ring, entry, "/w/worker");

	/* The second of a chain runs when the first is over, wherever its thread is by then. */
	struct io_uring_sqe first = { .opcode = IORING_OP_NOP, .flags = IOSQE_IO_LINK };
	put(&ring, first);
	put(&ring, opening(AT_FDCWD, "/w/chained", O_RDONLY));
	int chained = wait_for(&ring, 2);
	must("/w/chained", chained);
	told("open", 0, "/w/chained", "/w/chained", "io-uring");
	close(chained);

	open_by(&polled, opening(AT_FDCWD, "/w/polled", O_RDONLY), "/w/polled");
	close(ring.descriptor);
	close(polled.descriptor);
}

/* What else a ring does with paths. A kernel that is too old for one says EINVAL. */
static void other_by(struct ring *ring, struct io_uring_sqe entry, const char *kind, const char *from, const char *to)
{
	put(ring, entry);
	int result = wait_for(ring, 1);
	if (result == -EINVAL)
		return;
	told(kind, result < 0 ? -result : 0, from, from, "io-uring");
	if (to)
		told(kind, result < 0 ? -result : 0, to, to, "io-uring");
}

static struct io_uring_sqe entry_of(int opcode, const char *path)
{
	struct io_uring_sqe entry = { .opcode = opcode, .fd = AT_FDCWD };
	entry.addr = (unsigned long)path;
	return entry;
}

static struct io_uring_sqe entry_of_two(int opcode, const char *from, const char *to)
{
	struct io_uring_sqe entry = entry_of(opcode, from);
	entry.len = (unsigned)AT_FDCWD;
	entry.addr2 = (unsigned long)to;
	return entry;
}

static void other_by_rings(void)
{
	static char status[256];
	struct ring ring = ring_of(0);

	for (int absent = 0; absent < 2; absent++) {
		const char *path = absent ? "/w/no-status" : "/w/status";
		struct io_uring_sqe entry = entry_of(IORING_OP_STATX, path);
		entry.len = 0x7ff;
		entry.off = (unsigned long)status;
		other_by(&ring, entry, "stat", path, NULL);
	}
	other_by(&ring, entry_of(IORING_OP_UNLINKAT, "/w/unlinked"), "unlink", "/w/unlinked", NULL);
	other_by(&ring, entry_of(IORING_OP_UNLINKAT, "/w/no-unlinked"), "unlink", "/w/no-unlinked", NULL);
	struct io_uring_sqe folder = entry_of(IORING_OP_UNLINKAT, "/w/removed");
	folder.unlink_flags = AT_REMOVEDIR;
	other_by(&ring, folder, "unlink", "/w/removed", NULL);
	other_by(&ring, entry_of_two(IORING_OP_RENAMEAT, "/w/renamed", "/w/renamed-to"), "rename", "/w/renamed", "/w/renamed-to");
	other_by(&ring, entry_of_two(IORING_OP_LINKAT, "/w/linked", "/w/linked-to"), "link", "/w/linked", "/w/linked-to");
	struct io_uring_sqe made = entry_of(IORING_OP_MKDIRAT, "/w/made");
	made.len = 0755;
	other_by(&ring, made, "make", "/w/made", NULL);
	struct io_uring_sqe link = entry_of(IORING_OP_SYMLINKAT, "anything");
	link.addr2 = (unsigned long)"/w/made-link";
	other_by(&ring, link, "make", "/w/made-link", NULL);
	struct io_uring_sqe set = entry_of(IORING_OP_SETXATTR, "user.a");
	set.addr2 = (unsigned long)"v";
	set.len = 1;
	set.addr3 = (unsigned long)"/w/set";
	other_by(&ring, set, "attributes", "/w/set", NULL);
	struct io_uring_sqe get = entry_of(IORING_OP_GETXATTR, "user.a");
	get.addr2 = (unsigned long)status;
	get.len = sizeof status;
	get.addr3 = (unsigned long)"/w/got";
	other_by(&ring, get, "other-use", "/w/got", NULL);
	close(ring.descriptor);
}

static void account(void)
{
	road("acct");
	long begun = syscall(SYS_acct, "/w/account");
	if (begun < 0 && errno == ENOSYS) {
		lacks("acct");
		return;
	}
	must("acct", begun);
	told("open", 0, "/w/account", "/w/account", "by-kernel");
	must("acct", syscall(SYS_acct, NULL));
}

static void dump_core(void)
{
	road("core");
	/* The child would say what waits here once more. */
	fflush(stdout);
	pid_t child = fork();
	must("fork", child);
	if (child == 0) {
		struct rlimit any = { RLIM_INFINITY, RLIM_INFINITY };
		must("setrlimit", setrlimit(RLIMIT_CORE, &any));
		signal(SIGABRT, SIG_DFL);
		syscall(SYS_kill, getpid(), SIGABRT);
		_exit(1);
	}
	int status;
	must("waitpid", waitpid(child, &status, 0));
	if (WCOREDUMP(status))
		told("open", 0, "core", "/w/core", "by-kernel");
	else
		lacks("core");
}

static void use_library(void)
{
	road("uselib");
#ifdef SYS_uselib
	long used = syscall(SYS_uselib, "/w/library");
	if (used < 0 && errno == ENOSYS)
		lacks("uselib");
	else
		/* It is opened and found to be no library. */
		told("open", 0, "/w/library", "/w/library", "by-kernel");
#else
	lacks("uselib");
#endif
}

/* A file by a descriptor, which was opened before. */
static void by_descriptor(int descriptor)
{
	struct stat status;
	static char more[256];

	road("fstat");
	must("fstat", syscall(SYS_fstat, descriptor, &status));
	must("statx", syscall(SYS_statx, descriptor, "", AT_EMPTY_PATH, 0x7ff, more));
	must("fchmod", syscall(SYS_fchmod, descriptor, 0600));
	told("stat", 0, "", "/w/inherited", "");
	road("mmap");
	for (int turn = 0; turn < 2; turn++)
		must("mmap", syscall(SYS_mmap, 0, 4096, PROT_READ, MAP_PRIVATE, descriptor, 0));
	told("map", 0, "", "/w/inherited", "");
}

static void sockets(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/w/socket" };
	static char quota[256];
	int listening = socket(AF_UNIX, SOCK_STREAM, 0), other = socket(AF_UNIX, SOCK_STREAM, 0);

	road("socket");
	must("bind", bind(listening, (void *)&address, sizeof address));
	must("listen", listen(listening, 1));
	must("connect", connect(other, (void *)&address, sizeof address));
	told("make", 0, "/w/socket", "/w/socket", "");
	told("open", 0, "/w/socket", "/w/socket", "");
	/* Q_GETFMT of nothing that has quotas. */
	syscall(SYS_quotactl, 0x80000400, "/w/quota", 0, quota);
	told("other-use", 0, "/w/quota", "/w/quota", "");
}

static void by_x32(void)
{
	road("x32");
#ifdef __x86_64__
	if (syscall(0x40000000 | SYS_openat, AT_FDCWD, "/w/x32", O_RDONLY) < 0 && errno == ENOSYS)
		lacks("x32");
	else
		told("open", 0, "/w/x32", "/w/x32", "");
#else
	lacks("x32");
#endif
}

int main(void)
{
	static const char *files[] = { "inline", "relative", "target", "second", "worker", "chained", "polled", "account",
				       "status", "unlinked", "renamed", "linked", "set", "got", "library", "inherited",
				       "quota", "x32" };
	char go[8];

	must("mkdir", mkdir("/w", 0755));
	must("chdir", chdir("/w"));
	for (unsigned index = 0; index < sizeof files / sizeof *files; index++)
		make(files[index]);
	must("mkdir", mkdir("removed", 0755));
	must("symlink", symlink("target", "link"));
	int folder = open("/w", O_RDONLY | O_DIRECTORY);
	must("/w", folder);
	int inherited = open("inherited", O_RDWR);
	must("/w/inherited", inherited);
	puts("ready");
	fflush(stdout);
	if (!fgets(go, sizeof go, stdin))
		return 1;
	syscall(SYS_openat, AT_FDCWD, "/begin", O_RDONLY);
	road("io_uring open");
	by_rings(folder);
	road("io_uring");
	other_by_rings();
	account();
	dump_core();
	use_library();
	by_descriptor(inherited);
	sockets();
	by_x32();
	syscall(SYS_openat, AT_FDCWD, "/end", O_RDONLY);
	puts("done");
	fflush(stdout);
	return 0;
}
