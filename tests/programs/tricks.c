/* Does what a program may try that wants to be seen wrongly, and says what it did: the witness of the trials in
 * `tests/suite/tricks.rs`.
 *
 * A line tells what is to be seen: kind, outcome (`used` or `missing`), the request, the path, and `truncated` where
 * the path is too long to be told; tabs in between. `tricks` makes what it needs, says `ready`, waits for a line,
 * opens `/begin`, does its work, opens `/end`, and says `done`.
 *
 * Most tricks change something while another thread is in the middle of `open`, behind the look-up of the path: the
 * file has a lease, which the call must wait for, and the kernel says so to whoever holds it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LONG_NAME 200
#define LONG_LEVELS 90
#define SHORT_LEVELS 170

static void must(const char *what, long result)
{
	if (result < 0) {
		fprintf(stderr, "tricks: %s: %s\n", what, strerror(errno));
		exit(1);
	}
}

static void told(const char *kind, long result, const char *requested, const char *path, const char *mark)
{
	printf("%s\t%s\t%s\t%s\t%s\n", kind, result < 0 ? "missing" : "used", requested, path, mark);
}

static void make(const char *path)
{
	must(path, mknod(path, S_IFREG | 0644, 0));
}

/* A call that another thread makes: `open`, or `truncate`, of which the kernel keeps no file. */
struct call {
	int is_truncate, folder;
	const char *path;
	long result;
};

static void *make_it(void *argument)
{
	struct call *call = argument;
	if (call->is_truncate)
		call->result = syscall(SYS_truncate, call->path, 0);
	else
		call->result = syscall(SYS_openat, call->folder, call->path, O_RDONLY);
	return NULL;
}

/* Makes a call in another thread, and does `trick` while that is in its call and past the look-up. `lease` is a
 * descriptor of the file. */
static void meanwhile_in(int lease, struct call call, void (*trick)(void))
{
	pthread_t thread;
	sigset_t signals;
	int signal;

	sigemptyset(&signals);
	sigaddset(&signals, SIGIO);
	must("F_SETLEASE", fcntl(lease, F_SETLEASE, F_WRLCK));
	errno = pthread_create(&thread, NULL, make_it, &call);
	must("pthread_create", -errno);
	errno = sigwait(&signals, &signal);
	must("sigwait", -errno);
	trick();
	must("F_SETLEASE", fcntl(lease, F_SETLEASE, F_UNLCK));
	errno = pthread_join(thread, NULL);
	must("pthread_join", -errno);
	must("the call", call.result);
}

static void meanwhile(int lease, int folder, const char *path, void (*trick)(void))
{
	meanwhile_in(lease, (struct call){ 0, folder, path, -1 }, trick);
}

static char *text;
static int one, two, deep, deeper;

static void rewrite(void)
{
	strcpy(text, "/w/innocent");
}

static void unmap(void)
{
	must("munmap", munmap(text, 4096));
}

/* As reclaim does it: the text is in its file still, and the process has no page of it. */
static void page_out(void)
{
	must("madvise", madvise(text, 4096, MADV_DONTNEED));
}

static void go_to_two(void)
{
	must("chdir", chdir("/w/two"));
}

static void replace_one(void)
{
	must("dup2", dup2(two, one));
}

static void move_one(void)
{
	must("rename", rename("/w/one", "/w/moved"));
}

static int leased(const char *path)
{
	int descriptor = open(path, O_RDONLY);
	must(path, descriptor);
	return descriptor;
}

/* A folder so many levels below the working directory, with a file in it. */
static int folder_below(int length, int levels, const char *file)
{
	char name[LONG_NAME + 1];
	for (int level = 0; level < levels; level++) {
		memset(name, 'a' + level % 26, length);
		name[length] = 0;
		must("mkdir", mkdir(name, 0755));
		must("chdir", chdir(name));
	}
	make(file);
	int folder = open(".", O_RDONLY | O_DIRECTORY);
	must("the folder far below", folder);
	must("chdir", chdir("/w"));
	return folder;
}

static char *anonymous(const char *content)
{
	char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must("mmap", at == MAP_FAILED ? -1 : 0);
	return strcpy(at, content);
}

int main(void)
{
	static const char *files[] = { "rewritten", "innocent", "unmapped", "paged", "one/here", "two/here", "one/by-folder",
				       "two/by-folder", "one/in-moved", "text", "cut", "shorn" };
	sigset_t signals;
	char go[8], link[] = "/w/self";

	sigemptyset(&signals);
	sigaddset(&signals, SIGIO);
	must("sigprocmask", sigprocmask(SIG_BLOCK, &signals, NULL));
	must("mkdir", mkdir("/w", 0755));
	must("chdir", chdir("/w"));
	must("mkdir", mkdir("one", 0755));
	must("mkdir", mkdir("two", 0755));
	must("mkdir", mkdir("deep", 0755));
	must("mkdir", mkdir("deeper", 0755));
	for (unsigned index = 0; index < sizeof files / sizeof *files; index++)
		make(files[index]);
	must("symlink", symlink("/w/fake", "self"));
	must("chdir", chdir("deep"));
	deep = folder_below(LONG_NAME, LONG_LEVELS, "bottom");
	must("chdir", chdir("deeper"));
	deeper = folder_below(1, SHORT_LEVELS, "lowest");
	one = open("one", O_RDONLY | O_DIRECTORY);
	two = open("two", O_RDONLY | O_DIRECTORY);
	int rewritten = leased("rewritten"), unmapped = leased("unmapped"), paged = leased("paged");
	int here = leased("one/here"), by_folder = leased("one/by-folder"), in_moved = leased("one/in-moved");
	int cut = leased("cut"), shorn = leased("shorn");
	int page = open("text", O_RDWR);
	must("text", page);
	must("write", write(page, "/w/paged", 9));
	char *in_file = mmap(NULL, 4096, PROT_READ, MAP_SHARED, page, 0);
	must("mmap", in_file == MAP_FAILED ? -1 : 0);
	must("chdir", chdir("one"));
	puts("ready");
	fflush(stdout);
	if (!fgets(go, sizeof go, stdin))
		return 1;
	syscall(SYS_openat, AT_FDCWD, "/begin", O_RDONLY);

	text = anonymous("/w/rewritten");
	meanwhile(rewritten, AT_FDCWD, text, rewrite);
	told("open", 0, "/w/innocent", "/w/rewritten", "");
	text = anonymous("/w/unmapped");
	meanwhile(unmapped, AT_FDCWD, text, unmap);
	told("open", 0, "", "/w/unmapped", "");
	text = in_file;
	meanwhile(paged, AT_FDCWD, text, page_out);
	told("open", 0, "", "/w/paged", "");
	meanwhile(by_folder, one, "by-folder", replace_one);
	told("open", 0, "by-folder", "/w/one/by-folder", "");
	meanwhile(here, AT_FDCWD, "here", go_to_two);
	told("open", 0, "here", "/w/one/here", "");
	told("chdir", 0, "/w/two", "/w/two", "");
	meanwhile(in_moved, AT_FDCWD, "/w/one/in-moved", move_one);
	told("open", 0, "/w/one/in-moved", "/w/moved/in-moved", "");
	printf("rename\tused\t/w/one\t/w/one\t\nrename\tused\t/w/moved\t/w/moved\t\n");

	/* The kernel writes over the request before the call is over. */
	must("readlink", syscall(SYS_readlinkat, AT_FDCWD, link, link, sizeof link - 1));
	told("readlink", 0, "/w/fake", "/w/fake", "");

	/* Nobody can read these any more, and the kernel keeps nothing that would tell: counted. */
	text = anonymous("/w/cut");
	meanwhile_in(cut, (struct call){ 1, 0, text, -1 }, unmap);
	must("pwrite", pwrite(page, "/w/shorn", 9, 0));
	text = in_file;
	meanwhile_in(shorn, (struct call){ 1, 0, text, -1 }, page_out);
	puts("unreadable 2");

	must("openat", syscall(SYS_openat, deep, "bottom", O_RDONLY));
	told("open", 0, "bottom", "bottom", "truncated");
	must("openat", syscall(SYS_openat, deeper, "lowest", O_RDONLY));
	told("open", 0, "lowest", "lowest", "truncated");

	syscall(SYS_openat, AT_FDCWD, "/end", O_RDONLY);
	puts("done");
	fflush(stdout);
	return 0;
}
