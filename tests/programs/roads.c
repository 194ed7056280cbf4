/* Goes every road to a file, and says what it did: the witness of the trials in `tests/suite/roads.rs`.
 *
 * Compiled as a program of glibc with its loader, as a static one of musl, and as a 32-bit one. Each
 * call has a file of its own, so that none is a repeat of another. A line tells what the call is to be
 * seen as: kind, outcome (`used`, `missing`, or the errno), the request, the path that it must have, and
 * `destination` for a second path; tabs in between, and bytes that are no letters as `\xNN`.
 *
 * A line `call NAME` tells that the system call of this name was made, by its own number.
 *
 * `roads` makes what it needs, opens `/begin`, goes the roads, opens `/end`, and says `done`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Calls that are younger than the headers may be. They have one number everywhere. */
#ifndef SYS_open_tree
#define SYS_open_tree 428
#define SYS_move_mount 429
#define SYS_fspick 433
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_faccessat2
#define SYS_faccessat2 439
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#ifndef SYS_setxattrat
#define SYS_setxattrat 463
#define SYS_getxattrat 464
#define SYS_listxattrat 465
#define SYS_removexattrat 466
#endif
#ifndef SYS_open_tree_attr
#define SYS_open_tree_attr 467
#endif
#ifndef SYS_file_getattr
#define SYS_file_getattr 468
#define SYS_file_setattr 469
#endif

#define WORK "/w"

static char buffer[65536];

static void print(const char *text)
{
	for (; *text; text++) {
		unsigned char byte = *text;
		if (byte <= ' ' || byte >= 0x7f || byte == '\\')
			printf("\\x%02x", byte);
		else
			putchar(byte);
	}
}

static void say(const char *kind, int error, const char *requested, const char *path, const char *more)
{
	printf("%s\t", kind);
	if (error == 0)
		printf("used");
	else if (error == ENOENT || error == ENOTDIR)
		printf("missing");
	else
		printf("%d", error);
	putchar('\t');
	print(requested);
	putchar('\t');
	print(path);
	printf("\t%s\n", more);
}

/* Whether a call is one that this kernel has. One that it has not leaves no trace. */
static int has(long result)
{
	return !(result == -1 && errno == ENOSYS);
}

static void told(const char *kind, long result, const char *requested, const char *path)
{
	if (has(result))
		say(kind, result < 0 ? errno : 0, requested, path, "");
}

static void told_both(const char *kind, long result, const char *from, const char *from_path,
		      const char *to, const char *to_path)
{
	int error = result < 0 ? errno : 0;
	if (has(result)) {
		say(kind, error, from, from_path, "");
		say(kind, error, to, to_path, "destination");
	}
}

/* A system call of a row of the table. */
#define CALL(name, ...) (printf("call %s\n", #name), syscall(SYS_##name, __VA_ARGS__))

static void must(const char *what, long result)
{
	if (result < 0) {
		fprintf(stderr, "roads: %s: %s\n", what, strerror(errno));
		exit(1);
	}
}

/* Makes a file in a way that no later call repeats. */
static void make(const char *path)
{
	if (mknod(path, S_IFREG | 0644, 0) < 0 && errno != EEXIST)
		must(path, -1);
}

#define ROAD(name) "/w/" #name

/* One line a road: the file's name is the call's. */
#define GO(kind, name, ...)                                        \
	do {                                                       \
		const char *p = ROAD(name);                        \
		if (made)                                          \
			told(kind, (__VA_ARGS__), p, p);           \
		else                                               \
			make(p);                                   \
	} while (0)

struct how {
	unsigned long long flags, mode, resolve;
};

/* Every call by its number, whatever the libc uses. Called twice: to make the files, and to go. */
static void every_call(int made, int folder)
{
	struct how how = { O_RDONLY, 0, 0 };
	char statx_buffer[256];
	/* `struct xattr_args`, `struct file_attr`, `struct mount_attr` of the kernel's headers. */
	struct { unsigned long long value; unsigned size, flags; } value = { (unsigned long)"v", 1, 0 };
	static unsigned long long file_attr[3], mount_attr[4];
#ifdef SYS_open
	GO("open", open, CALL(open, p, O_RDONLY));
#endif
#ifdef SYS_creat
	GO("open", creat, CALL(creat, p, 0644));
#endif
	GO("open", openat, CALL(openat, AT_FDCWD, p, O_RDONLY));
	GO("open", openat2, CALL(openat2, AT_FDCWD, p, &how, sizeof how));
#ifdef SYS_stat
	GO("stat", stat, CALL(stat, p, buffer));
#endif
#ifdef SYS_lstat
	GO("stat", lstat, CALL(lstat, p, buffer));
#endif
#ifdef SYS_stat64
	GO("stat", stat64, CALL(stat64, p, buffer));
#endif
#ifdef SYS_lstat64
	GO("stat", lstat64, CALL(lstat64, p, buffer));
#endif
#ifdef SYS_newfstatat
	GO("stat", newfstatat, CALL(newfstatat, AT_FDCWD, p, buffer, 0));
#endif
#ifdef SYS_fstatat64
	GO("stat", fstatat64, CALL(fstatat64, AT_FDCWD, p, buffer, 0));
#endif
	GO("stat", statx, CALL(statx, AT_FDCWD, p, 0, 0x7ff, statx_buffer));
#ifdef SYS_access
	GO("access", access, CALL(access, p, R_OK));
#endif
	GO("access", faccessat, CALL(faccessat, AT_FDCWD, p, R_OK));
	GO("access", faccessat2, CALL(faccessat2, AT_FDCWD, p, R_OK, 0));
	GO("truncate", truncate, CALL(truncate, p, 0));
#ifdef SYS_truncate64
	GO("truncate", truncate64, CALL(truncate64, p, 0, 0));
#endif
#ifdef SYS_chmod
	GO("attributes", chmod, CALL(chmod, p, 0644));
#endif
	GO("attributes", fchmodat, CALL(fchmodat, AT_FDCWD, p, 0644));
	GO("attributes", fchmodat2, CALL(fchmodat2, AT_FDCWD, p, 0644, 0));
#ifdef SYS_chown
	GO("attributes", chown, CALL(chown, p, 0, 0));
#endif
#ifdef SYS_chown32
	GO("attributes", chown32, CALL(chown32, p, 0, 0));
#endif
#ifdef SYS_lchown
	GO("attributes", lchown, CALL(lchown, p, 0, 0));
#endif
#ifdef SYS_lchown32
	GO("attributes", lchown32, CALL(lchown32, p, 0, 0));
#endif
	GO("attributes", fchownat, CALL(fchownat, AT_FDCWD, p, 0, 0, 0));
#ifdef SYS_utime
	GO("attributes", utime, CALL(utime, p, 0));
#endif
#ifdef SYS_utimes
	GO("attributes", utimes, CALL(utimes, p, 0));
#endif
#ifdef SYS_futimesat
	GO("attributes", futimesat, CALL(futimesat, AT_FDCWD, p, 0));
#endif
#ifdef SYS_utimensat
	GO("attributes", utimensat, CALL(utimensat, AT_FDCWD, p, 0, 0));
#endif
#ifdef SYS_utimensat_time64
	GO("attributes", utimensat_time64, CALL(utimensat_time64, AT_FDCWD, p, 0, 0));
#endif
	GO("attributes", setxattr, CALL(setxattr, p, "user.a", "v", 1, 0));
	GO("attributes", lsetxattr, CALL(lsetxattr, p, "user.a", "v", 1, 0));
	GO("attributes", removexattr, CALL(removexattr, p, "user.b"));
	GO("attributes", lremovexattr, CALL(lremovexattr, p, "user.b"));
	GO("other-use", getxattr, CALL(getxattr, p, "user.b", buffer, 9));
	GO("other-use", lgetxattr, CALL(lgetxattr, p, "user.b", buffer, 9));
	GO("other-use", listxattr, CALL(listxattr, p, buffer, 99));
	GO("other-use", llistxattr, CALL(llistxattr, p, buffer, 99));
#ifdef SYS_statfs64
	GO("other-use", statfs64, CALL(statfs64, p, 84, buffer));
#endif
	GO("other-use", statfs, CALL(statfs, p, buffer));
	static int inotify = -1;
	if (!made)
		inotify = syscall(SYS_inotify_init1, 0);
	GO("other-use", inotify_add_watch, CALL(inotify_add_watch, inotify, p, 2));
	GO("attributes", setxattrat, CALL(setxattrat, AT_FDCWD, p, 0, "user.a", &value, sizeof value));
	GO("attributes", removexattrat, CALL(removexattrat, AT_FDCWD, p, 0, "user.b"));
	GO("other-use", getxattrat, CALL(getxattrat, AT_FDCWD, p, 0, "user.b", &value, sizeof value));
	GO("other-use", listxattrat, CALL(listxattrat, AT_FDCWD, p, 0, buffer, 99));
	GO("other-use", file_getattr, CALL(file_getattr, AT_FDCWD, p, buffer, sizeof file_attr, 0));
	GO("attributes", file_setattr, CALL(file_setattr, AT_FDCWD, p, file_attr, sizeof file_attr, 0));
#ifdef SYS_oldstat
	GO("stat", oldstat, CALL(oldstat, p, buffer));
	GO("stat", oldlstat, CALL(oldlstat, p, buffer));
#endif
	/* About mounts. Most are refused: nothing here is a mount, nor a swap file. */
	GO("other-use", open_tree, CALL(open_tree, AT_FDCWD, p, 0));
	GO("other-use", open_tree_attr, CALL(open_tree_attr, AT_FDCWD, p, 0, 0, 0));
	GO("other-use", fspick, CALL(fspick, AT_FDCWD, p, 0));
	GO("other-use", mount_setattr, CALL(mount_setattr, AT_FDCWD, p, 0, mount_attr, sizeof mount_attr));
#ifdef SYS_umount
	GO("other-use", umount, CALL(umount, p));
#endif
	GO("other-use", umount2, CALL(umount2, p, 0));
	GO("other-use", swapon, CALL(swapon, p, 0));
	GO("other-use", swapoff, CALL(swapoff, p));
	static int fanotify = -1;
	if (!made)
		fanotify = syscall(SYS_fanotify_init, 0, O_RDONLY);
	/* FAN_MARK_ADD, FAN_OPEN. The mask has 64 bits. */
#ifdef __i386__
	GO("other-use", fanotify_mark, CALL(fanotify_mark, fanotify, 1, 0x20, 0, AT_FDCWD, p));
#else
	GO("other-use", fanotify_mark, CALL(fanotify_mark, fanotify, 1, 0x20, AT_FDCWD, p));
#endif
	GO("unlink", unlinkat, CALL(unlinkat, AT_FDCWD, p, 0));
#ifdef SYS_unlink
	GO("unlink", unlink, CALL(unlink, p));
#endif
	/* By a descriptor of the folder, and by the working directory. */
	if (!made) {
		make(ROAD(below-openat));
		make(ROAD(below-stat));
		make(ROAD(below-access));
		make(ROAD(here-openat));
		make(ROAD(here-statx));
		must("symlink", symlink("a-target", ROAD(readlink)));
		must("symlink", symlink("a-target", ROAD(readlinkat)));
		make(ROAD(rename));
		make(ROAD(renameat));
		make(ROAD(renameat2));
		make(ROAD(link));
		make(ROAD(linkat));
		must("mkdir", mkdir(ROAD(rmdir), 0755));
		must("mkdir", mkdir(ROAD(list), 0755));
		must("mkdir", mkdir(ROAD(list-old), 0755));
		must("mkdir", mkdir(ROAD(list-oldest), 0755));
		must("mkdir", mkdir(ROAD(dots), 0755));
		make(ROAD(move_mount));
		make(ROAD(pivot_root));
		make(ROAD(map));
		must("truncate", truncate(ROAD(map), 5));
		return;
	}
	told("open", CALL(openat, folder, "below-openat", O_RDONLY), "below-openat", ROAD(below-openat));
	told("stat", CALL(statx, folder, "below-stat", 0x100, 0x7ff, buffer), "below-stat", ROAD(below-stat));
	told("access", CALL(faccessat, folder, "./below-access", R_OK), "./below-access", ROAD(below-access));
	told("open", CALL(openat, AT_FDCWD, "here-openat", O_RDONLY), "here-openat", ROAD(here-openat));
	told("stat", CALL(statx, AT_FDCWD, "here-statx", 0, 0x7ff, buffer), "here-statx", ROAD(here-statx));
#ifdef SYS_readlink
	told("readlink", CALL(readlink, ROAD(readlink), buffer, 99), ROAD(readlink), ROAD(readlink));
#endif
	told("readlink", CALL(readlinkat, AT_FDCWD, ROAD(readlinkat), buffer, 99), ROAD(readlinkat), ROAD(readlinkat));
#ifdef SYS_rename
	told_both("rename", CALL(rename, ROAD(rename), ROAD(renamed)), ROAD(rename), ROAD(rename), ROAD(renamed), ROAD(renamed));
#endif
#ifdef SYS_renameat
	told_both("rename", CALL(renameat, folder, "renameat", AT_FDCWD, ROAD(renamedat)), "renameat", ROAD(renameat), ROAD(renamedat), ROAD(renamedat));
#endif
	told_both("rename", CALL(renameat2, AT_FDCWD, ROAD(renameat2), folder, "renamedat2", 0), ROAD(renameat2), ROAD(renameat2), "renamedat2", ROAD(renamedat2));
#ifdef SYS_link
	told_both("link", CALL(link, ROAD(link), ROAD(linked)), ROAD(link), ROAD(link), ROAD(linked), ROAD(linked));
#endif
	told_both("link", CALL(linkat, folder, "linkat", AT_FDCWD, ROAD(linkedat), 0), "linkat", ROAD(linkat), ROAD(linkedat), ROAD(linkedat));
#ifdef SYS_symlink
	told("make", CALL(symlink, "anything", ROAD(symlink)), ROAD(symlink), ROAD(symlink));
#endif
	told("make", CALL(symlinkat, "anything", folder, "symlinkat"), "symlinkat", ROAD(symlinkat));
#ifdef SYS_mkdir
	told("make", CALL(mkdir, ROAD(mkdir), 0755), ROAD(mkdir), ROAD(mkdir));
#endif
	told("make", CALL(mkdirat, AT_FDCWD, ROAD(mkdirat), 0755), ROAD(mkdirat), ROAD(mkdirat));
#ifdef SYS_mknod
	told("make", CALL(mknod, ROAD(mknod), S_IFIFO | 0644, 0), ROAD(mknod), ROAD(mknod));
#endif
	told("make", CALL(mknodat, AT_FDCWD, ROAD(mknodat), S_IFIFO | 0644, 0), ROAD(mknodat), ROAD(mknodat));
#ifdef SYS_rmdir
	told("unlink", CALL(rmdir, ROAD(rmdir)), ROAD(rmdir), ROAD(rmdir));
#endif
	told_both("other-use", CALL(move_mount, folder, "move_mount", AT_FDCWD, ROAD(moved_mount), 0), "move_mount", ROAD(move_mount), ROAD(moved_mount), ROAD(moved_mount));
	told_both("other-use", CALL(pivot_root, ROAD(pivot_root), ROAD(pivoted)), ROAD(pivot_root), ROAD(pivot_root), ROAD(pivoted), ROAD(pivoted));
	/* What is reached by a descriptor only. */
	int list = CALL(openat, AT_FDCWD, ROAD(list), O_RDONLY | O_DIRECTORY);
	told("open", list, ROAD(list), ROAD(list));
	told("list", CALL(getdents64, list, buffer, sizeof buffer), "", ROAD(list));
#ifdef SYS_getdents
	int old = CALL(openat, AT_FDCWD, ROAD(list-old), O_RDONLY | O_DIRECTORY);
	told("open", old, ROAD(list-old), ROAD(list-old));
	told("list", CALL(getdents, old, buffer, sizeof buffer), "", ROAD(list-old));
#endif
#ifdef SYS_readdir
	int oldest = CALL(openat, AT_FDCWD, ROAD(list-oldest), O_RDONLY | O_DIRECTORY);
	told("open", oldest, ROAD(list-oldest), ROAD(list-oldest));
	told("list", CALL(readdir, oldest, buffer, 1), "", ROAD(list-oldest));
#endif
	told("chdir", CALL(fchdir, list), "", ROAD(list));
	told("chdir", CALL(chdir, "../dots/."), "../dots/.", ROAD(dots));
	must("chdir", CALL(chdir, WORK));
	int map = CALL(openat, AT_FDCWD, ROAD(map), O_RDONLY);
	told("open", map, ROAD(map), ROAD(map));
#ifdef SYS_mmap2
	long mapped = CALL(mmap2, 0, 4096, PROT_READ, MAP_PRIVATE, map, 0L);
#else
	long mapped = CALL(mmap, 0, 4096, PROT_READ, MAP_PRIVATE, map, 0L);
#endif
	told("map", mapped == -1 ? -1 : 0, "", ROAD(map));
	mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, map, 0);
}

/* Handles: a file without a path. */
static void handles(int made)
{
	static const char path[] = ROAD(handle);
	if (!made) {
		make(path);
		return;
	}
	struct {
		unsigned bytes;
		int type;
		unsigned char data[128];
	} handle = { .bytes = 128 };
	int mount;
	long named = CALL(name_to_handle_at, AT_FDCWD, path, &handle, &mount, 0);
	told("other-use", named, path, path);
	if (named < 0)
		return;
	int root = CALL(openat, AT_FDCWD, "/handles", O_RDONLY | O_DIRECTORY);
	told("open", root, "/handles", "/handles");
	long opened = CALL(open_by_handle_at, root, &handle, O_RDONLY);
	if (opened >= 0)
		told("open", opened, "", path);
}

/* What fails, and how. */
static void outcomes(void)
{
	told("open", CALL(openat, AT_FDCWD, "/w/no/such", O_RDONLY), "/w/no/such", "/w/no/such");
	told("open", CALL(openat, AT_FDCWD, "/w/map/below", O_RDONLY), "/w/map/below", "/w/map/below");
	told("stat", CALL(statx, AT_FDCWD, "/w/none", 0, 0x7ff, buffer), "/w/none", "/w/none");
	told("access", CALL(faccessat, AT_FDCWD, "/w/none", R_OK), "/w/none", "/w/none");
	told("readlink", CALL(readlinkat, AT_FDCWD, "/w/map", buffer, 9), "/w/map", "/w/map");
	told("chdir", CALL(chdir, "/w/none"), "/w/none", "/w/none");
	told("unlink", CALL(unlinkat, AT_FDCWD, "/w/none", 0), "/w/none", "/w/none");
	told("make", CALL(mkdirat, AT_FDCWD, "/w/list", 0755), "/w/list", "/w/list");
	told("truncate", CALL(truncate, "/w/list", 0), "/w/list", "/w/list");
	told_both("rename", CALL(renameat2, AT_FDCWD, "/w/none", AT_FDCWD, "/w/other", 0), "/w/none", "/w/none", "/w/other", "/w/other");
	char *arguments[] = { "none", 0 };
	told("exec", CALL(execve, "/w/none", arguments, arguments + 1), "/w/none", "/w/none");
	told("exec", CALL(execve, "/w/map", arguments, arguments + 1), "/w/map", "/w/map");
	told("exec", CALL(execveat, AT_FDCWD, "/w/none-at", arguments, arguments + 1, 0), "/w/none-at", "/w/none-at");
	/* Refused to somebody who may not; the same calls as above by nobody. */
	pid_t child = fork();
	must("fork", child);
	if (child == 0) {
		must("setuid", syscall(SYS_setuid, 65534));
		told("open", CALL(openat, AT_FDCWD, "/w/private", O_RDONLY), "/w/private", "/w/private");
		told("access", CALL(faccessat, AT_FDCWD, "/w/private", R_OK), "/w/private", "/w/private");
		told("unlink", CALL(unlinkat, AT_FDCWD, "/w/private", 0), "/w/private", "/w/private");
		fflush(stdout);
		_exit(0);
	}
	waitpid(child, 0, 0);
}

/* Names of every kind. */
static void names(int made)
{
	static const char *plain[] = { "/w/new\nline", "/w/in\xffvalid", "/w/back\\slash", "/w/tab\there", "/w/gr\xc3\xb6\xc3\x9f" "e", "/w/ space " };
	for (unsigned i = 0; i < sizeof plain / sizeof *plain; i++) {
		if (!made) {
			make(plain[i]);
			continue;
		}
		told("open", CALL(openat, AT_FDCWD, plain[i], O_RDONLY), plain[i], plain[i]);
		told("stat", CALL(statx, AT_FDCWD, plain[i], 0, 0x7ff, buffer), plain[i], plain[i]);
	}
	/* A name of 255 bytes. */
	char longest[3 + 255 + 1] = WORK "/";
	memset(longest + 3, 'n', 255);
	if (!made)
		make(longest);
	else
		told("open", CALL(openat, AT_FDCWD, longest, O_RDONLY), longest, longest);
	/* A path of 4,095 bytes: the longest that a call takes. */
	static char path[4096] = WORK;
	int at = 2, level = 0;
	while (at + 202 < 4095) {
		at += sprintf(path + at, "/%0199d", level++);
		if (!made)
			must("mkdir", mkdir(path, 0755));
	}
	path[at++] = '/';
	memset(path + at, 'l', 4095 - at);
	if (!made)
		make(path);
	else
		told("open", CALL(openat, AT_FDCWD, path, O_RDONLY), path, path);
	/* One byte more. */
	if (made) {
		static char more[4097];
		sprintf(more, "%sl", path);
		/* The kernel takes no such request. What it would have read of it is told. */
		told("open", CALL(openat, AT_FDCWD, more, O_RDONLY), path, path);
	}
	/* And deeper, by relative steps. */
	static char deep[16000];
	strcpy(deep, WORK "/deep");
	if (!made)
		must("mkdir", mkdir(deep, 0755));
	must("chdir", chdir(deep));
	if (made)
		told("chdir", 0, deep, deep);
	for (level = 0; level < 40; level++) {
		char name[201];
		memset(name, 'a' + level % 26, 200);
		name[200] = 0;
		strcat(strcat(deep, "/"), name);
		if (!made)
			must("mkdir", mkdir(name, 0755));
		must("chdir", chdir(name));
		if (made)
			told("chdir", 0, name, deep);
	}
	if (!made) {
		make("bottom");
	} else {
		strcat(deep, "/bottom");
		told("open", CALL(openat, AT_FDCWD, "bottom", O_RDONLY), "bottom", deep);
		told("stat", CALL(statx, AT_FDCWD, "bottom", 0, 0x7ff, buffer), "bottom", deep);
	}
	must("chdir", chdir(WORK));
	if (made)
		told("chdir", 0, WORK, WORK);
}

/* Where a path starts. Each situation in a process of its own, which is gone when anybody looks. */
static void situation(void (*of)(void))
{
	fflush(stdout);
	pid_t child = fork();
	must("fork", child);
	if (child == 0) {
		of();
		fflush(stdout);
		_exit(0);
	}
	int status;
	waitpid(child, &status, 0);
	if (status != 0)
		exit(1);
}

static void after_chdir(void)
{
	must("chdir", CALL(chdir, "/s/cwd"));
	told("chdir", 0, "/s/cwd", "/s/cwd");
	told("open", CALL(openat, AT_FDCWD, "file", O_RDONLY), "file", "/s/cwd/file");
	told("stat", CALL(statx, AT_FDCWD, "file", 0, 0x7ff, buffer), "file", "/s/cwd/file");
	told("open", CALL(openat, AT_FDCWD, "none", O_RDONLY), "none", "/s/cwd/none");
	told("open", CALL(openat, AT_FDCWD, "./../cwd//./other", O_RDONLY), "./../cwd//./other", "/s/cwd/other");
}

static void in_chroot(void)
{
	must("chroot", CALL(chroot, "/s/jail"));
	told("chdir", 0, "/s/jail", "/s/jail");
	/* The same folder, asked for in another way. */
	must("chdir", CALL(chdir, "/"));
	told("chdir", 0, "/", "/s/jail");
	told("open", CALL(openat, AT_FDCWD, "/file", O_RDONLY), "/file", "/s/jail/file");
	told("open", CALL(openat, AT_FDCWD, "/../../file2", O_RDONLY), "/../../file2", "/s/jail/file2");
	told("stat", CALL(statx, AT_FDCWD, "/file", 0, 0x7ff, buffer), "/file", "/s/jail/file");
	told("stat", CALL(statx, AT_FDCWD, "file2", 0, 0x7ff, buffer), "file2", "/s/jail/file2");
	told("open", CALL(openat, AT_FDCWD, "/none", O_RDONLY), "/none", "/s/jail/none");
}

static void in_nested_namespace(void)
{
	must("unshare", unshare(CLONE_NEWNS));
	must("mount", CALL(mount, "none", "/", 0, MS_REC | MS_PRIVATE, 0));
	told("other-use", 0, "/", "/");
	must("mount", CALL(mount, "/s/over", "/s/under", 0, MS_BIND, 0));
	told("other-use", 0, "/s/under", "/s/under");
	told("open", CALL(openat, AT_FDCWD, "/s/under/file", O_RDONLY), "/s/under/file", "/s/under/file");
	told("stat", CALL(statx, AT_FDCWD, "/s/under/file", 0, 0x7ff, buffer), "/s/under/file", "/s/under/file");
	told("open", CALL(openat, AT_FDCWD, "/s/under/none", O_RDONLY), "/s/under/none", "/s/under/none");
}

static void in_removed_folder(void)
{
	must("chdir", CALL(chdir, "/s/removed"));
	told("chdir", 0, "/s/removed", "/s/removed");
	must("rmdir", CALL(unlinkat, AT_FDCWD, "/s/removed", AT_REMOVEDIR));
	told("unlink", 0, "/s/removed", "/s/removed");
	/* The folder has no place any more; the path says where it was. */
	told("open", CALL(openat, AT_FDCWD, "file", O_RDONLY), "file", "/s/removed/file");
}

static void through_proc(void)
{
	told("open", CALL(openat, AT_FDCWD, "/proc/self/root/s/cwd/by-root", O_RDONLY), "/proc/self/root/s/cwd/by-root", "/s/cwd/by-root");
	must("chdir", CALL(chdir, "/s/jail"));
	told("chdir", 0, "/s/jail", "/s/jail");
	told("open", CALL(openat, AT_FDCWD, "/proc/self/cwd/by-cwd", O_RDONLY), "/proc/self/cwd/by-cwd", "/s/jail/by-cwd");
	told("open", CALL(openat, AT_FDCWD, "/s/link/by-link", O_RDONLY), "/s/link/by-link", "/s/cwd/by-link");
	/* A link, and not what it leads to. */
	told("open", CALL(openat, AT_FDCWD, "/s/link", O_PATH | O_NOFOLLOW), "/s/link", "/s/link");
}

static void situations(int made)
{
	if (!made) {
		static const char *folders[] = { "/s", "/s/cwd", "/s/jail", "/s/over", "/s/under", "/s/removed", "/handles" };
		static const char *files[] = { "/s/cwd/file", "/s/cwd/other", "/s/cwd/by-root", "/s/cwd/by-link", "/s/jail/file", "/s/jail/file2", "/s/jail/by-cwd", "/s/over/file" };
		for (unsigned i = 0; i < sizeof folders / sizeof *folders; i++)
			must(folders[i], mkdir(folders[i], 0755));
		for (unsigned i = 0; i < sizeof files / sizeof *files; i++)
			make(files[i]);
		must("symlink", symlink("cwd", "/s/link"));
		make("/w/private");
		must("chmod", chmod("/w/private", 0600));
		return;
	}
	situation(after_chdir);
	situation(in_chroot);
	situation(in_nested_namespace);
	situation(in_removed_folder);
	situation(through_proc);
}

#if defined(__x86_64__)
/* A 32-bit call of a 64-bit program, by its door. The path must lie below 4 GiB. */
static void by_the_old_door(int made)
{
	static const char path[] = ROAD(int80);
	if (!made) {
		make(path);
		return;
	}
	char *low = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	if (low == MAP_FAILED)
		must("mmap", -1);
	strcpy(low, path);
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(5L), "b"((long)low), "c"(0L), "d"(0L) : "memory", "r8", "r9", "r10", "r11");
	if (result == -ENOSYS)
		return;
	errno = result < 0 ? -result : 0;
	told("open", result < 0 ? -1 : result, path, path);
}
#else
static void by_the_old_door(int made)
{
	(void)made;
}
#endif

/* Paths that are nowhere: the kernel looks for no file, so there is nothing to tell, and nothing is lost. */
static void bad_pointers(void)
{
	char *nowhere = mmap(0, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (nowhere == MAP_FAILED)
		must("mmap", -1);
	char *const none[] = {0};
	long results[] = {
		syscall(SYS_openat, AT_FDCWD, nowhere, O_RDONLY),
		syscall(SYS_readlinkat, AT_FDCWD, nowhere, nowhere, 1),
		syscall(SYS_chdir, nowhere),
		syscall(SYS_execve, nowhere, none, none),
		/* As Rust's standard library asks whether there is `statx`. */
		syscall(SYS_statx, AT_FDCWD, nowhere, 0, 0xfff, nowhere),
	};
	for (size_t at = 0; at < sizeof results / sizeof *results; at++)
		if (results[at] != -1) {
			fprintf(stderr, "roads: call %zu took a bad pointer\n", at);
			exit(1);
		}
}

int main(int count, char **arguments)
{
	if (count == 2 && strcmp(arguments[1], "nothing") == 0)
		return 0;
	must("mkdir", mkdir(WORK, 0755));
	for (int made = 0; made < 2; made++) {
		int folder = -1;
		if (made) {
			char go[8];
			puts("ready");
			fflush(stdout);
			if (!fgets(go, sizeof go, stdin))
				return 1;
			CALL(openat, AT_FDCWD, "/begin", O_RDONLY);
			folder = CALL(openat, AT_FDCWD, WORK, O_RDONLY | O_DIRECTORY);
			told("open", folder, WORK, WORK);
			must("chdir", CALL(chdir, WORK));
			told("chdir", 0, WORK, WORK);
		}
		every_call(made, folder);
		handles(made);
		names(made);
		situations(made);
		by_the_old_door(made);
		if (made)
			outcomes();
		bad_pointers();
	}
	CALL(openat, AT_FDCWD, "/end", O_RDONLY);
	puts("done");
	fflush(stdout);
	return 0;
}
