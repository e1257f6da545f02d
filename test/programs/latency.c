/*
 * What one client does to the calls of another. One process makes calls all the time and notes how long each waited for uiommu;
 * the other does what is named. Prints what that answered, and the longest wait in milliseconds.
 *
 * Waiting for a processor, which other programs of the machine have, does not count: the time that the kernel says so for
 * this process and for uiommu (/proc/PID/schedstat) is taken away.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#include "supervisor.h"
#include "calls.h"

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static volatile sig_atomic_t stop;

static void on_stop(int signal)
{
	stop = 1;
}

static int own_schedule, its_schedule;

/* Milliseconds that a thread was ready to run and had no processor. */
static double no_processor(int schedule)
{
	char text[100] = "";
	unsigned long long ran, waited = 0;

	if (pread(schedule, text, sizeof(text) - 1, 0) > 0)
		sscanf(text, "%llu %llu", &ran, &waited);
	return waited / 1e6;
}

static struct { double began, own, its; } mark;
static double slowest, slowest_by_clock;
static long calls;

static void begin_call(void)
{
	mark.own = no_processor(own_schedule);
	mark.its = no_processor(its_schedule);
	mark.began = now();
}

static long end_call(long result)
{
	double took = now() - mark.began;

	calls++;
	if (took > slowest_by_clock)
		slowest_by_clock = took;
	if (took > slowest) {
		took -= no_processor(own_schedule) - mark.own + no_processor(its_schedule) - mark.its;
		if (took > slowest)
			slowest = took;
	}
	if (result < 0)
		_exit(1);
	return result;
}

#define TIMED(call) (begin_call(), end_call(call))

/* The well-behaved client: opens, asks, destroys, closes, and rests. */
static void well_behaved(int ready)
{
	char path[64];

	own_schedule = open("/proc/thread-self/schedstat", O_RDONLY);
	snprintf(path, sizeof(path), "/proc/%d/schedstat", supervisor());
	its_schedule = open(path, O_RDONLY);
	signal(SIGUSR1, on_stop);
	write(ready, "x", 1);
	while (!stop || calls < 100) {
		struct { unsigned int size, flags, id; } alloc = { 12, 0, 0 };
		struct { unsigned int size, id; } destroy = { 8, 0 };
		struct stat status;

		int fd = TIMED(open("/dev/iommu", O_RDWR));
		TIMED(ioctl(fd, IOAS_ALLOC, &alloc));
		destroy.id = alloc.id;
		TIMED(ioctl(fd, DESTROY, &destroy));
		TIMED(stat("/dev/iommu", &status));
		TIMED(close(fd));
		usleep(500);
	}
	dprintf(1, "slowest %.1f ms (%.1f ms by the clock) of %ld calls\n", slowest, slowest_by_clock, calls);
	_exit(0);
}

static unsigned long long seed = 1;

static unsigned long long chance(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static unsigned long long hostile_word(char *memory)
{
	switch (chance() % 10) {
	case 0: return 0;
	case 1: return chance() % 24;
	case 2: return (uintptr_t)memory + chance() % 512 * 8;
	case 3: return 0xffffffff;
	case 4: return ~0ull;
	case 5: return 1ull << chance() % 64;
	case 6: return (1ull << chance() % 64) - 1;
	case 7: return PAGE * (chance() % 1024);
	case 8: return 0x1000000 + PAGE * (chance() % 256);
	default: return chance();
	}
}

static unsigned int hostile_size(void)
{
	static const unsigned int special[] = { 0, 7, PAGE, 1u << 20, 1u << 24 };

	if (chance() % 4096 == 0)
		return 0xffffffff;
	return chance() % 8 ? 8 + 4 * (chance() % 24) : special[chance() % 5];
}

/* Random ioctls on /dev/iommu and on what they open, in memory of which 4 GiB can be read. */
static long hostile_calls(long count)
{
	char *memory = mmap(NULL, 5ul << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	long succeeded = 0;
	int fd = -1;

	for (long i = 0; i < count; i++) {
		unsigned long long *words = (unsigned long long *)(memory + 65536);
		int number = chance() % 4 ? 0x80 + chance() % 0x22 : 0xa0;

		if (i % 2000 == 0) {
			/* Everything goes but standard files and those of the run. */
			for (int other = 3; other < 200; other++)
				close(other);
			fd = open("/dev/iommu", O_RDWR);
		}
		for (int k = 0; k < 16; k++)
			words[k] = chance() % 3 ? hostile_word(memory) : hostile_word(memory) << 32 | (unsigned int)hostile_word(memory);
		/* With a size that has no end, the rest is zeros. */
		if (chance() % 16 == 0)
			memset(words, 0, 128);
		*(unsigned int *)words = hostile_size();
		if (ioctl(chance() % 8 ? fd : (int)(chance() % 64), 0x3b00 | number, words) >= 0)
			succeeded++;
	}
	return succeeded;
}

/* A struct that says it has 4 GiB, all zero. */
static long huge_struct(void)
{
	unsigned int *big = mmap(NULL, 5ul << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int fd = open("/dev/iommu", O_RDWR);

	big[0] = 0xffffffff;
	return ioctl(fd, IOAS_ALLOC, big);
}

/* Pages that a userfaultfd holds back: `served` after a while, or never. */
static char *held_back(int *fd, size_t pages)
{
	struct uffdio_api api = { .api = UFFD_API };
	char *page = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register range = { .range = { (uintptr_t)page, pages * PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING };

	*fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0 || ioctl(*fd, UFFDIO_API, &api) != 0 || ioctl(*fd, UFFDIO_REGISTER, &range) != 0)
		return NULL;
	return page;
}

static void serve(int fd, char *page, const void *bytes, size_t length)
{
	static char content[PAGE] __attribute__((aligned(PAGE)));
	struct uffdio_copy copy = { .dst = (uintptr_t)page, .src = (uintptr_t)content, .len = PAGE };
	struct stat status;

	memcpy(content, bytes, length);
	stat("/dev/iommu", &status); /* who serves makes calls of its own */
	ioctl(fd, UFFDIO_COPY, &copy);
}

static long path_nobody_serves(void)
{
	int fd;
	char *page = held_back(&fd, 1);

	if (!page)
		return say("no userfaultfd", -1);
	alarm(1);
	return open(page, O_RDONLY);
}

/* A path in a file system of user space that nobody serves. */
static long file_system_nobody_serves(void)
{
	char folder[] = "/tmp/uiommu-latency-XXXXXX", options[100];
	int fuse = open("/dev/fuse", O_RDWR);
	struct stat status;

	mkdtemp(folder);
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
	if (fuse < 0 || unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("nobody", folder, "fuse.nobody", MS_NOSUID | MS_NODEV, options) != 0) {
		rmdir(folder);
		return say("no fuse", -1);
	}
	pid_t caller = fork();
	if (caller == 0) {
		/* Relative to a descriptor: the mount is seen by way of this process alone. */
		_exit(fstatat(open(folder, O_PATH), "file", &status, 0) == 0);
	}
	sleep(1);
	kill(caller, SIGKILL);
	close(fuse);
	waitpid(caller, NULL, 0);
	umount2(folder, MNT_DETACH);
	rmdir(folder);
	return 0;
}

struct job { int fd; char *page; };

static int server(void *argument)
{
	struct job *job = argument;
	struct pollfd wait = { .fd = job->fd, .events = POLLIN };
	static const unsigned int alloc[3] = { 12, 0, 0 };

	poll(&wait, 1, -1);
	serve(job->fd, job->page, alloc, sizeof(alloc));
	return 0;
}

/* The struct of a call in a page that another thread of the same program fills, once it is asked for. */
static long struct_served_late(void)
{
	static char stack[65536] __attribute__((aligned(16)));
	struct job job;
	int fd = open("/dev/iommu", O_RDWR);

	job.page = held_back(&job.fd, 1);
	if (!job.page)
		return say("no userfaultfd", -1);
	clone(server, stack + sizeof(stack), CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD, &job);
	long result = ioctl(fd, IOAS_ALLOC, job.page);
	return result == 0 ? ((unsigned int *)job.page)[2] : result;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	int ready[2];
	char byte;

	setvbuf(stdout, NULL, _IONBF, 0);
	if (pipe(ready) != 0)
		return 2;
	pid_t other = fork();
	if (other == 0)
		well_behaved(ready[1]);
	read(ready[0], &byte, 1);
	pid_t hostile = fork();
	if (hostile == 0) {
		if (!strcmp(what, "huge"))
			say(what, huge_struct());
		else if (!strcmp(what, "held"))
			say(what, path_nobody_serves());
		else if (!strcmp(what, "served"))
			say(what, struct_served_late());
		else if (!strcmp(what, "calls")) {
			seed = argc > 3 ? strtoull(argv[3], NULL, 0) | 1 : 1;
			say(what, hostile_calls(argc > 2 ? atol(argv[2]) : 1000));
		} else if (!strcmp(what, "fuse"))
			say(what, file_system_nobody_serves());
		_exit(0);
	}
	waitpid(hostile, NULL, 0);
	kill(other, SIGUSR1);
	waitpid(other, NULL, 0);
	return 0;
}
