/* Processes that begin and end, for `cargo xtask bench`: in C, because a fork costs least where little is mapped.
 *
 *   storm spawns TIMES PROGRAM   starts a program and waits for its end
 *   storm forks TIMES            forks a child that fails at once, and waits for its end
 *   storm signals TIMES          forks a child that waits, sends it SIGTERM, and waits for its end
 *   storm victims TIMES          the same, a tenth of a second apart; prints when it sent each signal
 *   storm clock FOLDER           opens FOLDER/<milliseconds of CLOCK_MONOTONIC> once a millisecond, for ever
 *
 * Prints the nanoseconds of one turn; `victims` prints a line `PID NANOSECONDS` (CLOCK_MONOTONIC) for each.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

/* The exit code of a child that fails: one that succeeds is not worth a record. */
enum { FAILURE = 3 };

static long long now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void fail(const char *what)
{
	fprintf(stderr, "storm: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* Waits for a child, which must have ended as it should. */
static void reap(pid_t child, int expected)
{
	int status;
	if (waitpid(child, &status, 0) != child)
		fail("waitpid");
	if (status != expected) {
		fprintf(stderr, "storm: a child ended with status %#x, not %#x\n", status, expected);
		exit(1);
	}
}

static void spawn(char *program)
{
	char *arguments[] = { program, NULL };
	pid_t child;
	errno = posix_spawn(&child, program, NULL, NULL, arguments, environ);
	if (errno)
		fail(program);
	reap(child, 0);
}

static pid_t fork_or_fail(void)
{
	pid_t child = fork();
	if (child < 0)
		fail("fork");
	return child;
}

static void fork_and_wait(void)
{
	pid_t child = fork_or_fail();
	if (child == 0)
		_exit(FAILURE);
	reap(child, FAILURE << 8);
}

/* Gives the moment before the signal was sent. */
static long long kill_and_wait(pid_t *victim)
{
	*victim = fork_or_fail();
	if (*victim == 0)
		for (;;)
			pause();
	long long sent = now();
	if (kill(*victim, SIGTERM))
		fail("kill");
	reap(*victim, SIGTERM);
	return sent;
}

static void run_clock(const char *folder)
{
	for (;;) {
		char path[4096];
		struct timespec moment = { 0, 1000000 };
		snprintf(path, sizeof path, "%s/%lld", folder, now() / 1000000);
		int file = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		if (file < 0)
			fail(path);
		close(file);
		nanosleep(&moment, NULL);
	}
}

int main(int count, char **words)
{
	const char *what = count > 2 ? words[1] : "";
	long times = count > 2 ? atol(words[2]) : 0;
	pid_t victim;
	if (!strcmp(what, "clock"))
		run_clock(words[2]);
	if (times <= 0 || (!strcmp(what, "spawns") && count < 4)) {
		fprintf(stderr, "usage: storm spawns TIMES PROGRAM | forks TIMES | signals TIMES | "
				"victims TIMES | clock FOLDER\n");
		return 2;
	}
	if (!strcmp(what, "victims")) {
		for (long turn = 0; turn < times; turn++) {
			struct timespec pause_between = { 0, 100000000 };
			long long sent = kill_and_wait(&victim);
			printf("%d %lld\n", victim, sent);
			fflush(stdout);
			nanosleep(&pause_between, NULL);
		}
		return 0;
	}
	long long start = now();
	for (long turn = 0; turn < times; turn++) {
		if (!strcmp(what, "spawns"))
			spawn(words[3]);
		else if (!strcmp(what, "forks"))
			fork_and_wait();
		else
			kill_and_wait(&victim);
	}
	printf("%.1f\n", (double)(now() - start) / times);
	return 0;
}
