/*
 * What one client does to the calls of another. One process makes calls all the time and notes the slowest; the other does
 * what is named. Prints what that answered, and the slowest call in milliseconds.
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

/* The well-behaved client: opens, asks, destroys, closes, and rests. */
static void well_behaved(int ready)
{
	double slowest = 0;
	long calls = 0;

	signal(SIGUSR1, on_stop);
	write(ready, "x", 1);
	while (!stop || calls < 20) {
		struct { unsigned int size, flags, id; } alloc = { 12, 0, 0 };
		struct { unsigned int size, id; } destroy = { 8, 0 };
		struct stat status;
		double begin = now();

		int fd = open("/dev/iommu", O_RDWR);
		if (fd < 0 || ioctl(fd, IOAS_ALLOC, &alloc) != 0)
			_exit(1);
		destroy.id = alloc.id;
		if (ioctl(fd, DESTROY, &destroy) != 0 || stat("/dev/iommu", &status) != 0)
			_exit(2);
		close(fd);
		double took = now() - begin;
		if (took > slowest)
			slowest = took;
		calls += 5;
		usleep(500);
	}
	dprintf(1, "slowest %.1f ms\n", slowest);
	_exit(0);
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
		else if (!strcmp(what, "fuse"))
			say(what, file_system_nobody_serves());
		_exit(0);
	}
	waitpid(hostile, NULL, 0);
	kill(other, SIGUSR1);
	waitpid(other, NULL, 0);
	return 0;
}
