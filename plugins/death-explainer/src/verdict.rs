//! The verdicts: stable identifiers, and the words that each comes with. `docs/verdicts.md` is made from this table.

/// A verdict, with templates: `{who}` is who died, and the other names are filled by the rule that finds it.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The stable identifier.
    pub id: &'static str,
    /// When it is given, for the documentation.
    pub meaning: &'static str,
    /// One line.
    pub headline: &'static str,
    /// What happened, in plain words.
    pub explanation: &'static str,
    /// What to do.
    pub advice: &'static [&'static str],
}

/// The verdict of that identifier.
pub(crate) fn by_id(id: &str) -> &'static Verdict {
    VERDICTS.iter().find(|verdict| verdict.id == id).expect("rules name verdicts of the table")
}

const WHO_SENT: &str = "Find out why {sender} does that: its name and parents are in the evidence.";

/// Every verdict.
pub const VERDICTS: &[Verdict] = &[
    Verdict {
        id: "clean-exit",
        meaning: "it exited with 0, and nobody had asked it to",
        headline: "{who} finished by itself (exit code 0)",
        explanation: "It ended by itself and reported success. Nobody killed it.",
        advice: &["If it was meant to run on, look at its last output: it thinks that it is done."],
    },
    Verdict {
        id: "application-error",
        meaning: "it exited with another code than 0, and nobody had asked it to",
        headline: "{who} ended by itself with exit code {code}",
        explanation: "The program itself decided to end and to report an error. No signal ended it.",
        advice: &[
            "Read its last output: the program knows why. What the code means is up to the program.",
        ],
    },
    Verdict {
        id: "exited-like-signal",
        meaning: "it exited with 128 + a signal's number, but no child of it that the signal ended was seen",
        headline: "{who} ended by itself with exit code {code}, which stands for {signal}",
        explanation: "No signal ended this process: it exited by itself. Shells and small init programs exit with 128 + the number of the signal that ended their child, but no such child was seen.",
        advice: &[
            "Look at the other deaths in the same container: the child's own record says who ended it.",
        ],
    },
    Verdict {
        id: "child-killed",
        meaning: "it exited with 128 + the number of the signal that had just ended its child",
        headline: "{who} ended with exit code {code} because {signal} ended its child {child}",
        explanation: "The process itself was not killed: its child was, and it passed that on as its exit code, as shells do.",
        advice: &[
            "Read the record of the child's death (`whodunit why`): it says who sent {signal}.",
        ],
    },
    Verdict {
        id: "cannot-execute",
        meaning: "exit code 126, and the kernel refused to execute a program; or a shell's code 126",
        headline: "{who} could not execute its program (exit code {code})",
        explanation: "The program is there and cannot be executed: it is not executable, it is a folder, or it is made for another architecture.",
        advice: &[
            "Check the file's mode (`chmod +x`), its architecture, and the interpreter in its first line.",
        ],
    },
    Verdict {
        id: "not-found",
        meaning: "exit code 127, and the program was not found; or a shell's code 127",
        headline: "{who} did not find its program (exit code {code})",
        explanation: "A command, or a shared library that it needs, is not in the image or not in the search path.",
        advice: &[
            "Check the command's spelling and PATH, and that the image has the program and its libraries (`ldd`).",
        ],
    },
    Verdict {
        id: "stopped-in-time",
        meaning: "the runtime asked it to stop, and it did",
        headline: "{who} was asked to stop by {sender} and did, {gap} later",
        explanation: "This is how a container is meant to end: the runtime sent {signal}, and it ended before the grace period was over.",
        advice: &[
            "If nobody wanted it to stop, look at what told the runtime: a rollout, a drain, a failed probe, an eviction.",
        ],
    },
    Verdict {
        id: "stopped-with-error",
        meaning: "the runtime asked it to stop, and it did, with an error code",
        headline: "{who} was asked to stop by {sender} and ended {gap} later with exit code {code}",
        explanation: "The runtime sent {signal}; the program noticed and ended in time, but it reported an error on its way out.",
        advice: &["Look at what it does in its shutdown: its last output says what failed."],
    },
    Verdict {
        id: "stopped-on-request",
        meaning: "somebody else than the runtime asked it to stop with SIGTERM, and it did",
        headline: "{who} ended by itself {gap} after {signal} from {sender}",
        explanation: "It was asked to stop, and ended by itself. It was not killed.",
        advice: &[WHO_SENT],
    },
    Verdict {
        id: "aborted",
        meaning: "it gave up by itself (`abort`)",
        headline: "{who} aborted itself (SIGABRT)",
        explanation: "The program found something that must not be (a failed assertion, a damaged heap, an unhandled exception) and gave up.",
        advice: &[
            "Read its last output: most runtimes print the reason just before they abort.",
            "Keep core dumps to see where.",
        ],
    },
    Verdict {
        id: "crashed-segv",
        meaning: "SIGSEGV by the processor: it touched memory that it must not",
        headline: "{who} crashed: it touched memory that it must not (SIGSEGV{at})",
        explanation: "A bug in the program or in a library of it. Nobody sent this signal: the processor refused the access.",
        advice: &[
            "Keep a core dump, or run it with a sanitizer, to see where. Compare with the version before.",
        ],
    },
    Verdict {
        id: "crashed-bus",
        meaning: "SIGBUS by the processor: the memory is mapped, and there is nothing behind it",
        headline: "{who} crashed: there was nothing behind memory that it had mapped (SIGBUS{at})",
        explanation: "Mostly a mapped file that became shorter, a full tmpfs or `/dev/shm`, or too few huge pages.",
        advice: &[
            "Check the free space of `/dev/shm` and of tmpfs mounts, and whether somebody truncates a file that it maps.",
        ],
    },
    Verdict {
        id: "crashed-ill",
        meaning: "SIGILL by the processor: an instruction that it does not have",
        headline: "{who} crashed: it executed an instruction that this processor does not have (SIGILL{at})",
        explanation: "Mostly a program that was built for a newer processor, or a compiler's trap for what must not happen.",
        advice: &[
            "Compare the processor with the one that it was built for (AVX and the like); else look at it as at a crash.",
        ],
    },
    Verdict {
        id: "crashed-fpe",
        meaning: "SIGFPE by the processor: an integer division by zero, or one that overflows",
        headline: "{who} crashed: it divided an integer by zero, or beyond its range (SIGFPE{at})",
        explanation: "A bug in the program: the processor refused the division.",
        advice: &["Keep a core dump to see where."],
    },
    Verdict {
        id: "crashed-trap",
        meaning: "SIGTRAP by the processor: a breakpoint or a trap of the program",
        headline: "{who} ended at a trap in its own code (SIGTRAP{at})",
        explanation: "A breakpoint that no debugger waited for, or a trap that a compiler or runtime put where the program must not come.",
        advice: &["Read its last output; keep a core dump to see where."],
    },
    Verdict {
        id: "seccomp-violation",
        meaning: "a seccomp filter did not allow a system call",
        headline: "{who} was ended by its seccomp filter: it called {syscall}",
        explanation: "The container's profile, or a filter that the program set for itself, does not allow that system call.",
        advice: &[
            "Allow {syscall} in the seccomp profile if the program needs it; else find out why it is called.",
        ],
    },
    Verdict {
        id: "cpu-limit",
        meaning: "it used up the CPU time of its own limit (`RLIMIT_CPU`)",
        headline: "{who} used up its limit of CPU time (RLIMIT_CPU{limit})",
        explanation: "This is a limit of the process (`ulimit -t`), not of the container: so many seconds of CPU in its whole life.",
        advice: &[
            "Raise or remove the limit where it is set: `ulimit -t`, the runtime's `rlimits`, or the service manager.",
        ],
    },
    Verdict {
        id: "file-size-limit",
        meaning: "it wrote a file beyond its own limit (`RLIMIT_FSIZE`)",
        headline: "{who} wrote a file beyond its limit of size (RLIMIT_FSIZE{limit})",
        explanation: "This is a limit of the process (`ulimit -f`), not of the disk.",
        advice: &[
            "Raise or remove the limit where it is set, or keep the file (mostly a log) smaller.",
        ],
    },
    Verdict {
        id: "broken-pipe",
        meaning: "it wrote to a pipe or socket that nobody reads any more",
        headline: "{who} wrote to a pipe or socket that nobody reads any more (SIGPIPE)",
        explanation: "Whoever read its output ended or closed it, and the program does not handle that.",
        advice: &[
            "Look at the reader first (the next command of the pipeline, the peer of the connection).",
            "Long-running programs should ignore SIGPIPE and handle EPIPE.",
        ],
    },
    Verdict {
        id: "timer-expired",
        meaning: "a timer that it had set ended it (`alarm`, `setitimer`, `timer_create`)",
        headline: "{who} was ended by a timer of its own ({signal})",
        explanation: "A process that sets such a timer and has no handler for its signal ends when the timer does.",
        advice: &["Look for `alarm`, `setitimer` or a time limit around the program."],
    },
    Verdict {
        id: "terminal-signal",
        meaning: "its terminal ended it: Ctrl-C, Ctrl-\\, or the terminal was closed",
        headline: "{who} was ended from its terminal ({signal})",
        explanation: "SIGINT is Ctrl-C, SIGQUIT is Ctrl-\\, and SIGHUP says that the terminal was closed.",
        advice: &["If it is to outlive its terminal, start it without one (`setsid`, no `-t`)."],
    },
    Verdict {
        id: "parent-death-signal",
        meaning: "it had asked for a signal at its parent's end (`PR_SET_PDEATHSIG`)",
        headline: "{who} ended because its parent did ({signal}, as it had asked for)",
        explanation: "The process, or whoever started it, had asked the kernel for this signal when its parent ends.",
        advice: &["Look at why the parent ended: its own record says so."],
    },
    Verdict {
        id: "cgroup-kill",
        meaning: "somebody wrote to `cgroup.kill` of its cgroup or of one above",
        headline: "{who} was killed with its whole cgroup by {sender} (cgroup.kill)",
        explanation: "Everything in the cgroup was killed at once{cgroup}, without a stop signal. Runtimes and service managers do this at the end of a stop, or when they remove a container by force.",
        advice: &["If nobody removed the container by force, find out why {sender} did."],
    },
    Verdict {
        id: "init-died",
        meaning: "the first process of its pid namespace ended, so the kernel killed the rest",
        headline: "{who} was killed because the first process of its container, {init}, had ended",
        explanation: "When the first process of a container ends, the kernel kills everything else in it.",
        advice: &[
            "Read the record of the first process: that is the death that counts.",
            "If this process was to finish its work, the first process must wait for it.",
        ],
    },
    Verdict {
        id: "grace-exceeded-no-handler",
        meaning: "killed after the grace period; the stop signal had no effect, because the first process of a container has no default action for it",
        headline: "{who} was killed {gap} after {signal}, which had no effect on it",
        explanation: "{sender} asked it to stop with {signal} and, when it did not, killed it. The kernel gives the first process of a container no signal that it has no handler for, and this program has no handler for {signal}: it never learned that it should stop.",
        advice: &[
            "Handle {signal} in the program, or start it below an init that passes signals on (`tini`, `docker run --init`).",
            "Where a shell script is the first process, start the program with `exec`.",
            "If the program stops on another signal, name that as STOPSIGNAL.",
        ],
    },
    Verdict {
        id: "grace-exceeded-ignored",
        meaning: "killed after the grace period; the program had asked to ignore the stop signal",
        headline: "{who} was killed {gap} after {signal}, which it ignores",
        explanation: "{sender} asked it to stop with {signal} and, when it did not, killed it. The process (or whoever started it: an ignored signal is inherited) had told the kernel to ignore {signal}.",
        advice: &[
            "Find where the signal is set to be ignored (`trap '' TERM`, `nohup`, `signal(SIGTERM, SIG_IGN)`).",
            "If the program stops on another signal, name that as STOPSIGNAL.",
        ],
    },
    Verdict {
        id: "grace-exceeded-blocked",
        meaning: "killed after the grace period; the process holds the stop signal back",
        headline: "{who} was killed {gap} after {signal}, which it holds back",
        explanation: "{sender} asked it to stop with {signal} and, when it did not, killed it. The process blocks {signal}: either it reads it by itself (`signalfd`, `sigwait`) and was not done in time, or it never looks.",
        advice: &[
            "Check that the program reads {signal}, and how long its shutdown takes; raise the grace period if that is right.",
        ],
    },
    Verdict {
        id: "grace-exceeded-slow",
        meaning: "killed after the grace period; it had caught the stop signal and was not done",
        headline: "{who} caught {signal} but did not end within {gap}, and was killed",
        explanation: "{sender} asked it to stop. The program has a handler for {signal}, so it learned of it, and was not done when the grace period was over. It was not short of CPU, as far as was seen.",
        advice: &[
            "Look at what it does in its shutdown: open connections, a flush, a lock, a child that does not end.",
            "Raise the grace period (terminationGracePeriodSeconds, `docker stop -t`) if it needs that time.",
        ],
    },
    Verdict {
        id: "grace-exceeded-starved",
        meaning: "killed after the grace period; its container had no CPU for at least half of that time",
        headline: "{who} was killed {gap} after {signal}: it had no CPU to stop with",
        explanation: "{sender} asked it to stop, but its container was throttled for {throttled} of {window}: its CPU limit was used up, so that it could not finish in time. This looks like an OOM kill (exit code 137) and is none.",
        advice: &["Raise the CPU limit, or the grace period. More memory will not help."],
    },
    Verdict {
        id: "grace-exceeded",
        meaning: "killed after the grace period; why it had not stopped was not seen",
        headline: "{who} was killed {gap} after {signal}, because it had not stopped",
        explanation: "{sender} asked it to stop with {signal} and, when it did not, killed it. What the process had told the kernel to do with {signal} was not seen, or does not explain it (it may have hung in the kernel, or have been frozen).",
        advice: &["Check that the program handles {signal}, and how long its shutdown takes."],
    },
    Verdict {
        id: "killed-by-runtime",
        meaning: "its runtime killed it, without asking first",
        headline: "{who} was killed by its runtime, {sender} ({signal})",
        explanation: "The container runtime sent {signal}, and no stop signal was seen before it. It does that when somebody removes or kills the container by force.",
        advice: &[
            "Look for `docker kill`, `rm -f`, `kubectl delete --force`, or a runtime that lost its patience in its log.",
        ],
    },
    Verdict {
        id: "killed-by-self",
        meaning: "it sent itself the signal that ended it",
        headline: "{who} ended itself with {signal}",
        explanation: "The process sent the signal to itself. Programs do that to end as if the signal had come from outside, often after their own cleaning up.",
        advice: &[
            "Look at the signals before it and at its last output: something else may have made it give up.",
        ],
    },
    Verdict {
        id: "killed-by-parent",
        meaning: "its parent ended it",
        headline: "{who} was killed by its parent, {sender} ({signal})",
        explanation: "The process that started it sent {signal}: a supervisor, a time limit, a shell's job control.",
        advice: &[
            "Look at the parent's output and settings: a time limit, a failed health check, a restart.",
        ],
    },
    Verdict {
        id: "killed-by-child",
        meaning: "a child of it ended it",
        headline: "{who} was killed by a child of its own, {sender} ({signal})",
        explanation: "A process that it had started, directly or not, sent {signal}.",
        advice: &[WHO_SENT],
    },
    Verdict {
        id: "killed-by-same-container",
        meaning: "another process of the same container ended it",
        headline: "{who} was killed from inside its container, by {sender} ({signal})",
        explanation: "A process of the same container sent {signal}. Neither the kernel nor the runtime had a part in it.",
        advice: &[WHO_SENT],
    },
    Verdict {
        id: "killed-by-exec",
        meaning: "a process that somebody put into the running container ended it",
        headline: "{who} was killed by a command that was run inside its container, {sender} ({signal})",
        explanation: "The sender does not descend from the container's first process: somebody started it in there (`kubectl exec`, `docker exec`, an exec probe).",
        advice: &[
            "Find out who runs commands in that container: a person, an exec probe, a lifecycle hook, a cron job.",
        ],
    },
    Verdict {
        id: "killed-by-other-container",
        meaning: "a process of another container ended it",
        headline: "{who} was killed by another container, by {sender} ({signal})",
        explanation: "The two share a pid namespace, or the sender runs in the machine's own (`hostPID`, `shareProcessNamespace`).",
        advice: &[
            WHO_SENT,
            "If that container need not see others' processes, take the shared pid namespace away.",
        ],
    },
    Verdict {
        id: "killed-by-host-process",
        meaning: "a process of the machine, outside of every container, ended it",
        headline: "{who} was killed by a process of the machine, {sender} ({signal})",
        explanation: "The sender runs outside of every container: a service, a script or a person on the machine.",
        advice: &[WHO_SENT],
    },
    Verdict {
        id: "oom-own-limit",
        meaning: "OOM kill: its container ran over its own memory limit",
        headline: "{who} was killed by the kernel: its container ran over its memory limit{limit}",
        explanation: "The container used all the memory that it may, and the kernel chose this process to end.",
        advice: &[
            "If it needs that much, raise the container's memory limit; if not, look for a leak.",
            "Tell the program how much there is (`-Xmx`, `GOMEMLIMIT`, `--max-old-space-size`, number of workers).",
        ],
    },
    Verdict {
        id: "oom-ancestor-limit",
        meaning: "OOM kill: a cgroup above the container's (a pod, a slice) ran over its limit",
        headline: "{who} was killed by the kernel: {cgroup}, which it shares, ran over its memory limit{limit}",
        explanation: "Not this container's own limit was reached but that of a cgroup around it, together with its neighbours. The kernel chose this process among all of them.",
        advice: &[
            "Look at which neighbour in {cgroup} grew; raise the limit of that cgroup (the pod's, the slice's), not only of this container.",
        ],
    },
    Verdict {
        id: "oom-node",
        meaning: "OOM kill: the machine itself ran out of memory",
        headline: "{who} was killed by the kernel: the machine ran out of memory",
        explanation: "No limit was reached: the machine had no memory left, and the kernel chose this process (by its size and its `oom_score_adj`).",
        advice: &[
            "Find what used the machine's memory; another container may be to blame. Set requests and limits so that the node is not overcommitted.",
        ],
    },
    Verdict {
        id: "oom-limit-unknown",
        meaning: "OOM kill, and which memory ran out was not seen",
        headline: "{who} was killed by the kernel for want of memory",
        explanation: "The kernel's OOM killer chose this process. Whether its container's limit, one above or the machine's memory had run out was not seen.",
        advice: &[
            "Compare the container's memory with its limit, and look at the kernel log (`dmesg`): it names the constraint.",
        ],
    },
    Verdict {
        id: "oom-child-followed",
        meaning: "a process of the container was OOM-killed, and the first process ended with an error because of it",
        headline: "{who} ended with exit code {code} after the kernel had killed its process {victim} for want of memory",
        explanation: "The first process was not killed. Another process of the container was, for want of memory, and {gap} later the first one ended with an error.",
        advice: &[
            "Read the record of {victim}: its verdict says which memory ran out, and what to do about that.",
        ],
    },
    Verdict {
        id: "oom-child-survived",
        meaning: "a process of the container was OOM-killed earlier; the first process went on and ended well later",
        headline: "{who} finished by itself (exit code 0), but the kernel had killed its process {victim} for want of memory",
        explanation: "The first process ended by itself and reported success, {gap} after another process of the container was killed for want of memory. What that process was doing may be missing.",
        advice: &[
            "Read the record of {victim}: its verdict says which memory ran out.",
            "Check that the result is complete: success was reported without that process.",
        ],
    },
    Verdict {
        id: "unknown",
        meaning: "the evidence does not tell",
        headline: "{who} died, and the evidence does not tell why: {reason}",
        explanation: "whodunit gives no verdict here, because a wrong one would be worse. The timeline has everything that was seen.",
        advice: &[
            "`whodunit doctor` says which probes run, and what is missing for those that do not.",
        ],
    },
];
