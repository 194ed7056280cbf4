/* Asks for files that are not there, each another one: an event each, as fast as it can.
 *
 *   flood PER_SECOND
 *
 * asks for /flood/0, /flood/1, ..., at most so many a second, until there is a file /stop. Then it prints a line
 * `asked NUMBER NANOSECONDS`: how many, and in which time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* So many are asked for between two looks at the clock and at /stop. */
enum { TURN = 256 };

static long long now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* Waits until that time. */
static void wait_until(long long then)
{
	struct timespec time = { .tv_sec = then / 1000000000LL, .tv_nsec = then % 1000000000LL };
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

int main(int count, char **arguments)
{
	long long per_second = count == 2 ? atoll(arguments[1]) : 0;
	if (per_second <= 0) {
		fprintf(stderr, "usage: flood PER_SECOND\n");
		return 2;
	}
	char path[32];
	struct stat stop;
	long long asked = 0, began = now();
	while (stat("/stop", &stop) != 0) {
		wait_until(began + asked * 1000000000LL / per_second);
		for (int turn = 0; turn < TURN; turn++) {
			snprintf(path, sizeof path, "/flood/%lld", asked++);
			access(path, F_OK);
		}
	}
	printf("asked %lld %lld\n", asked, now() - began);
	return 0;
}
