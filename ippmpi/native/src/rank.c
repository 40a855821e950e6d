/* ippmpi-rank: the parent of one rank. Records how it ended, passes signals on, lets nothing outlive it.
 *
 * Usage: ippmpi-rank --folder DIR -- PROGRAM [ARGUMENT...]
 *
 * A rank is started by mpiexec, so nobody of ours can wait() for it; this program can. The rank runs in its own process
 * group, so that a signal to "the whole group" reaches it exactly once, through here, and so that what it leaves behind
 * can be killed. Signals are blocked and taken with sigwait(), one at a time: there are no handlers, hence nothing that
 * would have to be async-signal-safe and no call that could be interrupted half-way.
 *
 * Ends like the rank: with its exit code, or of its signal. 125: this program itself failed, before the rank started;
 * 126 and 127: PROGRAM cannot be run, is not there. ippmpi-rank.sh does the same where there was no C compiler.
 */
#if !defined(__APPLE__)
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

enum { OWN_FAILURE = 125, CANNOT_RUN = 126, NOT_THERE = 127, HOST_CHARACTERS = 40 };

static const int forwarded[] = {SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM, SIGCONT, SIGTSTP};
enum { FORWARDED = sizeof forwarded / sizeof forwarded[0] };

static int is_forwarded(int number)
{
    for (size_t i = 0; i < FORWARDED; i++)
        if (forwarded[i] == number) return 1;
    return 0;
}

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "ippmpi-rank: %s: %s\n", what, why);
    exit(OWN_FAILURE);
}

/* Opens the folder of exit records, made with mode 0700 if it is not there. Only its owner may write there: whoever
 * could would tell us how ranks ended. */
static int open_folder(const char *path)
{
    struct stat found;
    if (mkdir(path, 0700) != 0 && errno != EEXIST) fail(path, strerror(errno));
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0 && lstat(path, &found) == 0 && !S_ISDIR(found.st_mode))
        fail(path, "must be a folder, no link or file");
    if (folder < 0 || fstat(folder, &found) != 0) fail(path, strerror(errno));
    if (found.st_uid != geteuid()) fail(path, "belongs to another user");
    if ((found.st_mode & (S_IRWXG | S_IRWXO)) != 0) fail(path, "must have mode 0700, others have access");
    return folder;
}

static void set_number(const char *name, long value)
{
    char text[24];
    snprintf(text, sizeof text, "%ld", value);
    if (setenv(name, text, 1) != 0) fail(name, strerror(errno));
}

/* Becomes PROGRAM, in its own group, with every signal as a new process has it. Never returns. */
static void become_rank(char **command, pid_t parent, int terminal)
{
    sigset_t none;
    setpgid(0, 0);
    if (terminal) tcsetpgrp(STDIN_FILENO, getpid()); /* SIGTTOU is still blocked */
    for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    if (getppid() != parent) raise(SIGKILL); /* it ended before the line above took effect */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvp(command[0], command);
    int cause = errno;
    fprintf(stderr, "ippmpi-rank: cannot run %s: %s\n", command[0], strerror(cause));
    _exit(cause == ENOENT ? NOT_THERE : CANNOT_RUN);
}

/* The rank at a terminal was stopped (Ctrl-Z): stop as well, so that the shell notices; then go on together. */
static void stop_with(pid_t rank)
{
    tcsetpgrp(STDIN_FILENO, getpgrp());
    raise(SIGSTOP);
    if (tcgetpgrp(STDIN_FILENO) == getpgrp()) tcsetpgrp(STDIN_FILENO, rank); /* fg; after bg it is the shell's */
    kill(-rank, SIGCONT);
}

/* Asks for a signal when mpiexec (its proxy, a batch system's) is killed: Open MPI's ranks would stay for good. Where
 * nothing of an MPI started us, whoever did may end and leave the rank running. Returns the signal, 0: none. */
static int ask_for_launcher_death(void)
{
#ifdef __linux__
    int under_mpi = getenv("PMI_RANK") != NULL || getenv("PMIX_RANK") != NULL;
    if (under_mpi && prctl(PR_SET_PDEATHSIG, SIGRTMIN) == 0) return SIGRTMIN;
#endif
    return 0;
}

/* Passes signals on until the rank has ended, which it reports. The rank stays a zombie: its pid is not free yet. */
static siginfo_t watch(pid_t rank, pid_t launcher, const sigset_t *set, int terminal)
{
    siginfo_t ended;
    for (;;) {
        int number = 0;
        memset(&ended, 0, sizeof ended);
        if (waitid(P_PID, (id_t)rank, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid == rank) return ended;
        if (terminal && waitid(P_PID, (id_t)rank, &ended, WSTOPPED | WNOHANG) == 0 && ended.si_pid == rank)
            stop_with(rank);
        if (sigwait(set, &number) != 0 || number == SIGCHLD) continue;
        if (is_forwarded(number)) kill(rank, number);
        else if (getppid() != launcher) kill(rank, SIGKILL); /* else only a thread of the launcher ended */
    }
}

/* Writes <host>.<pid>.exit: complete or not at all, and before the rank's pid is gone. */
static void record(int folder, pid_t rank, const siginfo_t *ended)
{
    char host[256] = "", name[HOST_CHARACTERS + 32], partial[sizeof name + 8], line[32];
    gethostname(host, sizeof host - 1);
    snprintf(name, sizeof name, "%.*s.%ld.exit", HOST_CHARACTERS, host, (long)rank);
    snprintf(partial, sizeof partial, "%s.new", name);
    const char *how = ended->si_code == CLD_EXITED ? "exit" : "signal";
    int length = snprintf(line, sizeof line, "%s %d\n", how, ended->si_status);
    int file = openat(folder, partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0 && errno == ENOENT) return; /* the folder was removed: its world is over and nobody asks */
    int whole = file >= 0 && write(file, line, (size_t)length) == length;
    if (whole && close(file) == 0 && renameat(folder, partial, folder, name) == 0) return;
    fprintf(stderr, "ippmpi-rank: cannot record the end of process %ld: %s\n", (long)rank, strerror(errno));
    unlinkat(folder, partial, 0);
}

/* Ends this process as the rank ended, without a second core dump. */
static void end_like(const siginfo_t *ended)
{
    if (ended->si_code == CLD_EXITED) exit(ended->si_status);
    const struct rlimit nothing = {0, 0};
    sigset_t just_this;
    setrlimit(RLIMIT_CORE, &nothing);
#ifdef __linux__
    prctl(PR_SET_DUMPABLE, 0); /* a core_pattern that pipes does not look at the limit */
#endif
    signal(ended->si_status, SIG_DFL);
    sigemptyset(&just_this);
    sigaddset(&just_this, ended->si_status);
    raise(ended->si_status);
    sigprocmask(SIG_UNBLOCK, &just_this, NULL);
    exit(128 + ended->si_status); /* reached only as process 1 of a container, which signals do not end */
}

static void nothing_to_do(int number) { (void)number; }

int main(int count, char **arguments)
{
    if (count == 2 && strcmp(arguments[1], "--version") == 0) return puts("ippmpi-rank 1") < 0;
    if (count < 5 || strcmp(arguments[1], "--folder") != 0 || strcmp(arguments[3], "--") != 0)
        fail("usage", "ippmpi-rank --folder DIR -- PROGRAM [ARGUMENT...]");
    int folder = open_folder(arguments[2]);

    sigset_t set, blocked;
    pid_t launcher = getppid();
    int launcher_death = ask_for_launcher_death();
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    if (launcher_death != 0) sigaddset(&set, launcher_death);
    for (size_t i = 0; i < FORWARDED; i++) sigaddset(&set, forwarded[i]);
    blocked = set;
    sigaddset(&blocked, SIGTTOU); /* handing the terminal back from the background must not stop us */
    sigprocmask(SIG_SETMASK, &blocked, NULL);
    signal(SIGCHLD, nothing_to_do); /* an inherited SIG_IGN would reap the rank unseen */
    for (size_t i = 0; i < FORWARDED; i++) signal(forwarded[i], nothing_to_do); /* nohup's SIG_IGN would drop it */

    int terminal = isatty(STDIN_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp();
    pid_t parent = getpid();
    set_number("IPPMPI_PARENT_PID", (long)parent);
    if (setenv("IPPMPI_PARENT", "c", 1) != 0) fail("IPPMPI_PARENT", strerror(errno));
    pid_t rank = fork();
    if (rank < 0) fail("cannot start a process", strerror(errno));
    if (rank == 0) become_rank(arguments + 4, parent, terminal);
    setpgid(rank, rank); /* both do it, so it is true for both; the later one may fail */

    siginfo_t ended = watch(rank, launcher, &set, terminal);
    record(folder, rank, &ended);
    kill(-rank, SIGKILL); /* children it left behind; the zombie keeps the number of the group ours */
    waitpid(rank, NULL, 0);
    if (terminal) tcsetpgrp(STDIN_FILENO, getpgrp());
    end_like(&ended);
}
