/*
 * A program that dies in a way that is known beforehand: `mortal HOW [ARGUMENT...]`. The trials about deaths compile it
 * once, linked statically, so that a container needs nothing else. Each way is one function; `ways` lists them.
 *
 * In C, because the system calls that matter here (handlers, threads, filters, faults) have no safe Rust face.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void say(const char *text, long number) {
    printf("%s %ld\n", text, number);
    fflush(stdout);
}

static void check(int good, const char *what) {
    if (!good) {
        fprintf(stderr, "mortal: %s: %s\n", what, strerror(errno));
        _exit(99);
    }
}

static void wait_for_ever(void) {
    for (;;)
        pause();
}

/* Reads one line from standard input: a trial says when. */
static void hear(void) {
    char byte;
    do
        check(read(0, &byte, 1) == 1, "read");
    while (byte != '\n');
}

static int number(char **arguments, int index) {
    check(arguments[index] != NULL, "an argument is missing");
    return atoi(arguments[index]);
}

static void nothing(int signal) {
    (void)signal;
}

static void leave(int signal) {
    (void)signal;
    _exit(0);
}

/* pause: waits for a signal, with no handler for any. */
static void way_pause(char **arguments) {
    (void)arguments;
    say("ready", getpid());
    wait_for_ever();
}

/* handle SIGNAL: has a handler that does nothing, and goes on. */
static void way_handle(char **arguments) {
    signal(number(arguments, 0), nothing);
    say("ready", getpid());
    wait_for_ever();
}

/* obey SIGNAL: exits with 0 upon it. */
static void way_obey(char **arguments) {
    signal(number(arguments, 0), leave);
    say("ready", getpid());
    wait_for_ever();
}

/* ignore SIGNAL: has told the kernel to ignore it. */
static void way_ignore(char **arguments) {
    signal(number(arguments, 0), SIG_IGN);
    say("ready", getpid());
    wait_for_ever();
}

/* toil SIGNAL: has a handler that does nothing, and works all the time. */
static void way_toil(char **arguments) {
    volatile long work = 0;
    signal(number(arguments, 0), nothing);
    say("ready", getpid());
    for (;;)
        work++;
}

/* stop: stops itself, as SIGSTOP does. */
static void way_stop(char **arguments) {
    (void)arguments;
    say("ready", getpid());
    raise(SIGSTOP);
    wait_for_ever();
}

/* outlive SIGNAL CODE: has a handler that does nothing; exits with CODE when it is told to. */
static void way_outlive(char **arguments) {
    struct sigaction action = {.sa_handler = nothing, .sa_flags = SA_RESTART};
    sigaction(number(arguments, 0), &action, NULL);
    say("ready", getpid());
    hear();
    _exit(number(arguments, 1));
}

/* nap MILLISECONDS CODE: lives so long. */
static void way_nap(char **arguments) {
    usleep(1000 * (unsigned)number(arguments, 0));
    _exit(number(arguments, 1));
}

/* exit CODE */
static void way_exit(char **arguments) {
    _exit(number(arguments, 0));
}

/* search PATH CODE: cannot execute PATH, executes itself after all, and exits with CODE. */
static void way_search(char **arguments) {
    execl(arguments[0], arguments[0], NULL);
    execl("/proc/self/exe", "mortal", "exit", arguments[1], NULL);
    _exit(98);
}

/* itself PROCS PROGRAM CODE: what a runtime does: goes into the cgroup of that file, executes itself, and has a child that executes PROGRAM,
 * which is this one by another path, to exit with CODE. It is gone before that. */
static void way_itself(char **arguments) {
    FILE *processes = fopen(arguments[0], "w");
    check(processes != NULL, "cgroup.procs");
    fprintf(processes, "%d", (int)getpid());
    check(fclose(processes) == 0, "cgroup.procs");
    execl("/proc/self/exe", "mortal", "beget", arguments[1], arguments[2], NULL);
    _exit(98);
}

/* beget PROGRAM CODE: the second half of that. */
static void way_beget(char **arguments) {
    pid_t child = fork();
    check(child >= 0, "fork");
    if (child == 0) {
        execl(arguments[0], "mortal", "nap", "50", arguments[1], NULL);
        _exit(98);
    }
    _exit(0);
}

/* abort */
static void way_abort(char **arguments) {
    (void)arguments;
    abort();
}

/* self SIGNAL: sends it to itself. */
static void way_self(char **arguments) {
    kill(getpid(), number(arguments, 0));
    wait_for_ever();
}

/* fault SIGNAL: a true fault of that kind. SIGSEGV touches the address 0xdead000. */
static void way_fault(char **arguments) {
    volatile int zero = 0, one = 1;
    char path[] = "/tmp/short";
    int file;
    char *memory;
    switch (number(arguments, 0)) {
    case SIGSEGV:
        *(volatile char *)0xdead000 = 1;
        break;
    case SIGBUS:
        file = open(path, O_RDWR | O_CREAT, 0600);
        check(file >= 0, "open");
        memory = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0);
        check(memory != MAP_FAILED, "mmap");
        zero = *(volatile char *)memory;
        break;
    case SIGILL:
        __builtin_trap();
        break;
    case SIGFPE:
        one = one / zero;
        break;
    case SIGTRAP:
#if defined(__x86_64__)
        __asm__ volatile("int3");
#else
        __asm__ volatile("brk #0");
#endif
        break;
    }
    _exit(98);
}

/* seccomp CALL: a filter kills the process that makes the system call CALL, which it then makes. */
static void way_seccomp(char **arguments) {
    int call = number(arguments, 0);
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = 4, .filter = filter};
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
    check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0, "seccomp");
    syscall(call);
    _exit(98);
}

/* limit SIGNAL: runs into a limit of its own, of a second of CPU or of 4096 bytes of a file. With SIGKILL it is the hard limit
 * of CPU, as `ulimit -t 1` sets it. */
static void way_limit(char **arguments) {
    struct rlimit limit = {1, 10};
    static char page[4096];
    int file;
    if (number(arguments, 0) == SIGKILL)
        limit.rlim_max = 1;
    if (number(arguments, 0) != SIGXFSZ) {
        check(setrlimit(RLIMIT_CPU, &limit) == 0, "setrlimit");
        for (;;)
            page[0]++;
    }
    limit.rlim_cur = limit.rlim_max = sizeof page;
    check(setrlimit(RLIMIT_FSIZE, &limit) == 0, "setrlimit");
    file = open("/tmp/long", O_WRONLY | O_CREAT, 0600);
    check(file >= 0, "open");
    for (;;)
        check(write(file, page, sizeof page) > 0, "write");
}

/* pipe: writes to a pipe that nobody reads. */
static void way_pipe(char **arguments) {
    int ends[2];
    (void)arguments;
    check(pipe(ends) == 0, "pipe");
    close(ends[0]);
    (void)!write(ends[1], "x", 1);
    _exit(98);
}

/* timer SIGNAL: a timer of its own ends it. SIGALRM, SIGVTALRM and SIGPROF are those of `setitimer`, another signal is that of a
 * `timer_create`. */
static void way_timer(char **arguments) {
    struct itimerval soon = {.it_value = {.tv_usec = 20000}};
    struct itimerspec soon_too = {.it_value = {.tv_nsec = 20000000}};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL};
    timer_t timer;
    event.sigev_signo = number(arguments, 0);
    switch (event.sigev_signo) {
    case SIGALRM:
        check(setitimer(ITIMER_REAL, &soon, NULL) == 0, "setitimer");
        break;
    case SIGVTALRM:
        check(setitimer(ITIMER_VIRTUAL, &soon, NULL) == 0, "setitimer");
        break;
    case SIGPROF:
        check(setitimer(ITIMER_PROF, &soon, NULL) == 0, "setitimer");
        break;
    default:
        check(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0, "timer_create");
        check(timer_settime(timer, 0, &soon_too, NULL) == 0, "timer_settime");
    }
    /* Two of them count the process's own time. */
    for (;;)
        check(event.sigev_signo != 0, "a signal");
}

/* Sends a signal to a process by a road. */
static void send_by(const char *road, int process, int signal) {
    union sigval value = {.sival_int = 7};
    if (strcmp(road, "kill") == 0)
        check(kill(process, signal) == 0, "kill");
    else if (strcmp(road, "group") == 0)
        check(kill(-process, signal) == 0, "kill");
    else if (strcmp(road, "queue") == 0)
        check(sigqueue(process, signal, value) == 0, "sigqueue");
    else if (strcmp(road, "thread") == 0)
        check(syscall(SYS_tgkill, process, process, signal) == 0, "tgkill");
    else if (strcmp(road, "pidfd") == 0) {
        int handle = (int)syscall(SYS_pidfd_open, process, 0);
        check(handle >= 0, "pidfd_open");
        check(syscall(SYS_pidfd_send_signal, handle, signal, NULL, 0) == 0, "pidfd_send_signal");
    } else
        check(0, "no such road");
}

/* send ROAD PROCESS SIGNAL: sends it, and ends. */
static void way_send(char **arguments) {
    send_by(arguments[0], number(arguments, 1), number(arguments, 2));
    _exit(0);
}

/* A child that waits for ever, in a process group of its own. */
static int child_that_waits(void) {
    int ready[2];
    char byte;
    pid_t child;
    check(pipe(ready) == 0, "pipe");
    child = fork();
    check(child >= 0, "fork");
    if (child == 0) {
        setpgid(0, 0);
        (void)!write(ready[1], "x", 1);
        wait_for_ever();
    }
    check(read(ready[0], &byte, 1) == 1, "read");
    close(ready[0]);
    close(ready[1]);
    return child;
}

/* Waits for a process and says how it ended. */
static void bury(int process) {
    int status = 0;
    check(waitpid(process, &status, 0) == process, "waitpid");
    printf("buried %d %d\n", process, status);
    fflush(stdout);
}

/* The same for whichever child ends next. */
static void bury_any(void) {
    int status = 0, process = (int)waitpid(-1, &status, 0);
    check(process > 0, "waitpid");
    printf("buried %d %d\n", process, status);
    fflush(stdout);
}

/* parent ROAD SIGNAL: kills its own child, and says how it ended. */
static void way_parent(char **arguments) {
    int child = child_that_waits();
    send_by(arguments[0], child, number(arguments, 1));
    bury(child);
    hear();
    _exit(0);
}

/* sibling SIGNAL: one of its children kills another one and is gone before that dies. */
static void way_sibling(char **arguments) {
    int signal = number(arguments, 0), victim = child_that_waits();
    pid_t killer;
    /* A stopped process takes no signal but SIGKILL until it goes on: it dies after its killer. */
    check(kill(victim, SIGSTOP) == 0, "kill");
    check(waitpid(victim, NULL, WUNTRACED) == victim, "waitpid");
    killer = fork();
    check(killer >= 0, "fork");
    if (killer == 0) {
        check(prctl(PR_SET_NAME, "killer") == 0, "prctl");
        check(kill(victim, signal) == 0, "kill");
        _exit(0);
    }
    bury(killer);
    check(kill(victim, SIGCONT) == 0, "kill");
    bury(victim);
    hear();
    _exit(0);
}

/* child SIGNAL: a child of it sends it the signal. */
static void way_child(char **arguments) {
    int signal = number(arguments, 0);
    pid_t child = fork();
    check(child >= 0, "fork");
    if (child == 0) {
        prctl(PR_SET_NAME, "child");
        kill(getppid(), signal);
        _exit(0);
    }
    wait_for_ever();
}

/* terminal SIGNAL: a child has a terminal, and the parent types Ctrl-C (SIGINT) or Ctrl-\ (SIGQUIT), or closes it (SIGHUP). */
static void way_terminal(char **arguments) {
    int ready[2], signal = number(arguments, 0), terminal = posix_openpt(O_RDWR | O_NOCTTY);
    const char *key = signal == SIGINT ? "\003" : "\034";
    pid_t child;
    char byte;
    check(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0, "posix_openpt");
    check(pipe(ready) == 0, "pipe");
    child = fork();
    check(child >= 0, "fork");
    if (child == 0) {
        setsid();
        check(open(ptsname(terminal), O_RDWR) >= 0, "the terminal");
        close(terminal);
        (void)!write(ready[1], "x", 1);
        wait_for_ever();
    }
    check(read(ready[0], &byte, 1) == 1, "read");
    if (signal == SIGHUP)
        close(terminal);
    else
        check(write(terminal, key, 1) == 1, "write");
    bury(child);
    hear();
    _exit(0);
}

static void *end_all(void *code) {
    syscall(SYS_exit_group, *(int *)code);
    return NULL;
}

/* thread-exit CODE: a thread that is not the first ends the process. */
static void way_thread_exit(char **arguments) {
    int code = number(arguments, 0);
    pthread_t thread;
    check(pthread_create(&thread, NULL, end_all, &code) == 0, "pthread_create");
    wait_for_ever();
}

static void *end_late(void *nothing_at_all) {
    (void)nothing_at_all;
    usleep(50000);
    syscall(SYS_exit, 3);
    return NULL;
}

/* leader-first CODE: the first thread ends with CODE, another one later with 3. Which of them is the process's, the kernel says. */
static void way_leader_first(char **arguments) {
    int code = number(arguments, 0);
    pthread_t thread;
    check(pthread_create(&thread, NULL, end_late, NULL) == 0, "pthread_create");
    syscall(SYS_exit, code);
}

static void *execute_pause(void *nothing_at_all) {
    (void)nothing_at_all;
    execl("/proc/self/exe", "mortal", "pause", NULL);
    _exit(98);
}

/* thread-exec: a thread that is not the first executes `mortal pause`. */
static void way_thread_exec(char **arguments) {
    pthread_t thread;
    (void)arguments;
    check(pthread_create(&thread, NULL, execute_pause, NULL) == 0, "pthread_create");
    wait_for_ever();
}

/* parent-death SIGNAL: a grandchild wants that signal at its parent's end, which comes when the trial says so. */
static void way_parent_death(char **arguments) {
    int signal = number(arguments, 0), ready[2];
    pid_t middle;
    char byte;
    check(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0, "subreaper");
    check(pipe(ready) == 0, "pipe");
    middle = fork();
    check(middle >= 0, "fork");
    if (middle == 0) {
        pid_t victim = fork();
        prctl(PR_SET_NAME, "middle");
        if (victim == 0) {
            check(prctl(PR_SET_PDEATHSIG, signal) == 0, "pdeathsig");
            (void)!write(ready[1], "x", 1);
            wait_for_ever();
        }
        say("victim", victim);
        hear();
        _exit(0);
    }
    check(read(ready[0], &byte, 1) == 1, "read");
    say("ready", getpid());
    bury(middle);
    bury_any();
    wait_for_ever();
}

/* Takes memory and touches it. */
static void take_bytes(size_t bytes) {
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(memory != MAP_FAILED, "mmap");
    memset(memory, 1, bytes);
}

/* Takes so many mebibytes, or for ever with 0. */
static void take(int mebibytes) {
    int taken;
    for (taken = 0; mebibytes == 0 || taken < mebibytes; taken++)
        take_bytes(1 << 20);
}

static void be_chosen(int score) {
    FILE *file = fopen("/proc/self/oom_score_adj", "w");
    check(file != NULL, "oom_score_adj");
    fprintf(file, "%d", score);
    check(fclose(file) == 0, "oom_score_adj");
}

/* eat [SCORE]: takes memory when it is told to, until it is killed. With a score it asks to be chosen. */
static void way_eat(char **arguments) {
    if (arguments[0] != NULL)
        be_chosen(number(arguments, 0));
    say("ready", getpid());
    hear();
    take(0);
}

/* starve MEBIBYTES CODE: a child has so much memory and asks to be chosen; then the parent takes it until the child is killed, lives,
 * and exits with CODE when it is told to. */
static void way_starve(char **arguments) {
    int ready[2];
    pid_t victim;
    char byte;
    check(pipe(ready) == 0, "pipe");
    victim = fork();
    check(victim >= 0, "fork");
    if (victim == 0) {
        prctl(PR_SET_NAME, "victim");
        be_chosen(1000);
        take(number(arguments, 0));
        (void)!write(ready[1], "x", 1);
        wait_for_ever();
    }
    check(read(ready[0], &byte, 1) == 1, "read");
    say("victim", victim);
    hear();
    /* One that was killed leaves its memory at once, and itself only when it gets the processor: who takes as much again meanwhile is the
     * next. So it takes the last of it slowly. */
    take(16);
    while (waitpid(victim, NULL, WNOHANG) == 0) {
        take_bytes(64 << 10);
        usleep(10000);
    }
    say("survived", getpid());
    hear();
    _exit(number(arguments, 1));
}

/* Nanoseconds of a clock: since the Unix epoch, or of the processor's time that the process got. */
static long long now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* volley COUNT: has so many children, and kills all of them with SIGKILL at once when it is told to; says how many ended so. */
static void way_volley(char **arguments) {
    int count = number(arguments, 0), killed = 0, index, status;
    pid_t *children = calloc(count, sizeof *children);
    check(children != NULL, "calloc");
    for (index = 0; index < count; index++) {
        children[index] = fork();
        check(children[index] >= 0, "fork");
        if (children[index] == 0)
            wait_for_ever();
    }
    say("ready", getpid());
    hear();
    for (index = 0; index < count; index++)
        check(kill(children[index], SIGKILL) == 0, "kill");
    for (index = 0; index < count; index++) {
        check(waitpid(children[index], &status, 0) == children[index], "waitpid");
        killed += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    }
    say("killed", killed);
    hear();
    _exit(0);
}

/* files FOLDER COUNT: makes so many files; when it is told to, opens each of them, once. Says when it began and when it was done,
 * and how much of the processor's time it got for that. */
static void way_files(char **arguments) {
    char name[16];
    int index, file, count = number(arguments, 1);
    long long begin, got;
    check(chdir(arguments[0]) == 0, "chdir");
    for (index = 0; index < count; index++) {
        snprintf(name, sizeof name, "%d", index);
        check(mknod(name, S_IFREG | 0600, 0) == 0, "mknod");
    }
    say("ready", getpid());
    hear();
    begin = now(CLOCK_REALTIME);
    got = now(CLOCK_PROCESS_CPUTIME_ID);
    say("begun", 1);
    for (index = 0; index < count; index++) {
        snprintf(name, sizeof name, "%d", index);
        file = open(name, O_RDONLY);
        check(file >= 0, "open");
        close(file);
    }
    printf("opened %lld %lld %lld\n", begin, now(CLOCK_REALTIME), now(CLOCK_PROCESS_CPUTIME_ID) - got);
    fflush(stdout);
    hear();
    _exit(0);
}

/* reuse SIGNAL: a process that got SIGNAL and lived ends, another one gets its id and exits with 5. */
static void way_reuse(char **arguments) {
    int signal_number = number(arguments, 0), status, tries;
    pid_t first, next;
    first = fork();
    check(first >= 0, "fork");
    if (first == 0) {
        signal(signal_number, leave);
        raise(signal_number);
    }
    bury(first);
    for (tries = 0; tries < 5; tries++) {
        FILE *last = fopen("/proc/sys/kernel/ns_last_pid", "w");
        check(last != NULL, "ns_last_pid");
        fprintf(last, "%d", first - 1);
        check(fclose(last) == 0, "ns_last_pid");
        next = fork();
        check(next >= 0, "fork");
        if (next == 0)
            _exit(getpid() == first ? 5 : 0);
        check(waitpid(next, &status, 0) == next, "waitpid");
        if (next == first) {
            say("reused", next);
            hear();
            _exit(0);
        }
    }
    say("not reused", 0);
    _exit(97);
}

/* block SIGNAL: blocks it, and takes it when the trial says so. */
static void way_block(char **arguments) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number(arguments, 0));
    sigprocmask(SIG_BLOCK, &set, NULL);
    say("ready", getpid());
    hear();
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    _exit(98);
}

/* run HOW...: a child does that, and the parent says how it ended. */
static int die(char **arguments);
static void way_run(char **arguments) {
    pid_t child = fork();
    check(child >= 0, "fork");
    if (child == 0)
        _exit(die(arguments));
    bury(child);
    hear();
    _exit(0);
}

static const struct {
    const char *name;
    void (*way)(char **);
} ways[] = {
    {"pause", way_pause},
    {"handle", way_handle},
    {"obey", way_obey},
    {"outlive", way_outlive},
    {"ignore", way_ignore},
    {"toil", way_toil},
    {"stop", way_stop},
    {"self", way_self},
    {"timer", way_timer},
    {"child", way_child},
    {"terminal", way_terminal},
    {"nap", way_nap},
    {"exit", way_exit},
    {"search", way_search},
    {"itself", way_itself},
    {"beget", way_beget},
    {"abort", way_abort},
    {"fault", way_fault},
    {"seccomp", way_seccomp},
    {"limit", way_limit},
    {"pipe", way_pipe},
    {"send", way_send},
    {"parent", way_parent},
    {"sibling", way_sibling},
    {"thread-exit", way_thread_exit},
    {"leader-first", way_leader_first},
    {"thread-exec", way_thread_exec},
    {"parent-death", way_parent_death},
    {"eat", way_eat},
    {"starve", way_starve},
    {"volley", way_volley},
    {"files", way_files},
    {"reuse", way_reuse},
    {"block", way_block},
    {"run", way_run},
};

static int die(char **arguments) {
    size_t index;
    for (index = 0; arguments[0] != NULL && index < sizeof ways / sizeof *ways; index++)
        if (strcmp(arguments[0], ways[index].name) == 0)
            ways[index].way(arguments + 1);
    fprintf(stderr, "mortal: no such way to die\n");
    return 2;
}

int main(int count, char **arguments) {
    (void)count;
    return die(arguments + 1);
}
