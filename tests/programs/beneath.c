/* Opens files beneath the system calls, and says what it did: the witness of the trials in
 * `tests/suite/exact.rs`. The rings are made by hand, since no libc makes them.
 *
 * A line tells what is to be seen: kind, outcome (`used` or `missing`), the request, the path, and the flag
 * that says by which way; tabs in between. `beneath` makes what it needs, says `ready`, waits for a line, opens
 * `/begin`, does its work, opens `/end`, and says `done`. With the argument `nothing` it does nothing.
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
#include <sys/stat.h>
#include <sys/syscall.h>
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
	printf("%s\t%s\t%s\t%s\t%s\n", kind, error ? "missing" : "used", requested, path, way);
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
	told("open", result < 0, (const char *)(unsigned long)entry.addr, path, "io-uring");
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

static void dump_core(void)
{
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
	if (!WCOREDUMP(status)) {
		fprintf(stderr, "beneath: no core, status %x\n", status);
		exit(1);
	}
	told("open", 0, "core", "/w/core", "by-kernel");
}

int main(int count, char **arguments)
{
	static const char *files[] = { "inline", "relative", "target", "second", "worker", "chained",
				       "polled", "account" };
	char go[8];

	if (count == 2 && strcmp(arguments[1], "nothing") == 0)
		return 0;
	must("mkdir", mkdir("/w", 0755));
	must("chdir", chdir("/w"));
	for (unsigned index = 0; index < sizeof files / sizeof *files; index++)
		make(files[index]);
	must("symlink", symlink("target", "link"));
	int folder = open("/w", O_RDONLY | O_DIRECTORY);
	must("/w", folder);
	puts("ready");
	fflush(stdout);
	if (!fgets(go, sizeof go, stdin))
		return 1;
	syscall(SYS_openat, AT_FDCWD, "/begin", O_RDONLY);
	by_rings(folder);
	must("acct", syscall(SYS_acct, "/w/account"));
	told("open", 0, "/w/account", "/w/account", "by-kernel");
	must("acct", syscall(SYS_acct, NULL));
	/* The child would say what waits here once more. */
	fflush(stdout);
	dump_core();
	syscall(SYS_openat, AT_FDCWD, "/end", O_RDONLY);
	puts("done");
	fflush(stdout);
	return 0;
}
