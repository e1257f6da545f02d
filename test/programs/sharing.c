/*
 * A client that shares one open /dev/iommu in every way there is: fork, exec, dup, SCM_RIGHTS, threads without libc's help
 * from the library's point of view. Prints what it sees; built statically, so that nothing could be preloaded into it.
 *
 * usage: sharing CASE
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "calls.h"

struct alloc {
	uint32_t size, flags, out_ioas_id;
};

struct destroy {
	uint32_t size, id;
};

static int alloc(int fd)
{
	struct alloc cmd = { sizeof(cmd), 0, 0 };

	return ioctl(fd, IOAS_ALLOC, &cmd) < 0 ? -errno : (int)cmd.out_ioas_id;
}

static int destroy(int fd, int id)
{
	struct destroy cmd = { sizeof(cmd), id };

	return ioctl(fd, DESTROY, &cmd) < 0 ? -errno : 0;
}

static int device(void)
{
	int fd = open("/dev/iommu", O_RDWR);

	if (fd < 0) {
		perror("/dev/iommu");
		exit(1);
	}
	return fd;
}

static void share_fork(void)
{
	int fd = device(), id = alloc(fd), status;
	pid_t child = fork();

	if (child == 0)
		/* The same open file: the parent's object is there. */
		_exit(destroy(fd, id) == 0 ? 0 : 9);
	waitpid(child, &status, 0);
	printf("child %d, again %d\n", WEXITSTATUS(status), destroy(fd, id));
}

static void share_orphan(void)
{
	int fd = device(), id = alloc(fd), ready[2];
	char byte;

	/* The opener goes; the file lives on in its child. */
	if (pipe(ready) < 0)
		exit(1);
	if (fork() == 0) {
		close(ready[1]);
		if (read(ready[0], &byte, 1) != 0)
			_exit(1);
		printf("orphan %d\n", destroy(fd, id));
		fflush(stdout);
		_exit(0);
	}
}

static void share_dup(void)
{
	int fd = device(), id = alloc(fd), copy = dup(fd), high = fcntl(fd, F_DUPFD_CLOEXEC, 200);

	dup2(fd, 150);
	close(fd);
	close(copy);
	printf("high %d, ", destroy(high, id));
	close(high);
	printf("dup2 %d, ", alloc(150) > 0);
	close(150);
	printf("closed %d\n", alloc(150));
}

static void share_exec(char *self)
{
	int fd = device(), id = alloc(fd);
	char number[16], object[16];

	snprintf(number, sizeof(number), "%d", fd);
	snprintf(object, sizeof(object), "%d", id);
	execl(self, self, "after-exec", number, object, (char *)NULL);
}

static void share_socket(void)
{
	int sockets[2], fd, id, status;
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	pid_t child;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) < 0)
		exit(1);
	child = fork();
	if (child == 0) {
		fd = device();
		id = alloc(fd);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &fd, sizeof(int));
		sendmsg(sockets[1], &message, 0);
		_exit(id);
	}
	/* For a while the file is in no table at all. */
	waitpid(child, &status, 0);
	if (recvmsg(sockets[0], &message, 0) < 0)
		exit(1);
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
	printf("received %d\n", destroy(fd, WEXITSTATUS(status)));
}

#define THREADS 8
#define ROUNDS 200

static void *work(void *argument)
{
	int fd = *(int *)argument;
	intptr_t right = 0;

	for (int i = 0; i < ROUNDS; i++) {
		int id = alloc(fd);

		if (id > 0 && destroy(fd, id) == 0)
			right++;
	}
	return (void *)right;
}

static void share_threads(void)
{
	pthread_t threads[THREADS];
	int fd = device();
	long right = 0;
	void *result;

	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, work, &fd);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &result);
		right += (intptr_t)result;
	}
	printf("right %ld of %d\n", right, THREADS * ROUNDS);
}

static void reopen(void)
{
	int wrong = 0;

	/* Closing must be known before the next open: every number and object begins anew. */
	for (int i = 0; i < 500; i++) {
		int fd = device();

		if (alloc(fd) != 1)
			wrong++;
		close(fd);
	}
	printf("wrong %d\n", wrong);
}

/* A table that takes nothing more, until something is closed. */
static void share_full(void)
{
	struct rlimit limit = { 16, 16 };
	int last = -1, next;

	setrlimit(RLIMIT_NOFILE, &limit);
	while ((next = open("/dev/iommu", O_RDWR)) >= 0)
		last = next;
	printf("last %d, then errno %d\n", last, errno);
	close(7);
	next = open("/dev/iommu", O_RDWR);
	printf("opened %d, allocated %d\n", next, alloc(next));
}

/* More files than the queue of events holds, all closed at once by the end of a process. */
static void many(void)
{
	struct rlimit limit;
	int status, wanted = 17000;

	getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_max < (rlim_t)wanted + 100) {
		printf("limit\n");
		return;
	}
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (fork() == 0) {
		for (int i = 0; i < wanted; i++)
			device();
		_exit(0);
	}
	wait(&status);
	printf("opened %d\n", WEXITSTATUS(status));
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!strcmp(name, "fork"))
		share_fork();
	else if (!strcmp(name, "orphan"))
		share_orphan();
	else if (!strcmp(name, "dup"))
		share_dup();
	else if (!strcmp(name, "exec"))
		share_exec(argv[0]);
	else if (!strcmp(name, "after-exec") && argc > 3)
		printf("inherited %d\n", destroy(atoi(argv[2]), atoi(argv[3])));
	else if (!strcmp(name, "full"))
		share_full();
	else if (!strcmp(name, "socket"))
		share_socket();
	else if (!strcmp(name, "threads"))
		share_threads();
	else if (!strcmp(name, "reopen"))
		reopen();
	else if (!strcmp(name, "many"))
		many();
	else
		return 2;
	return 0;
}
