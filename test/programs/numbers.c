/*
 * A client that changes what a file number means, in every way there is, while other numbers keep the file open. In each
 * case the number stands for /dev/iommu first and is used twice; printed is what an ioctl on it answers after the change:
 * 0, or the negative errno.
 *
 * usage: numbers
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "calls.h"

#define UNAVAILABLE 1 /* printed where the machine lacks the call */

struct alloc {
	uint32_t size, flags, out_ioas_id;
};

static int null_file;
static int number; /* the number that changes its meaning */
static int copy; /* keeps the file open */

static int use(int fd)
{
	struct alloc cmd = { sizeof(cmd), 0, 0 };

	return ioctl(fd, IOAS_ALLOC, &cmd) < 0 ? -errno : 0;
}

static int by_close(void)
{
	close(number);
	return use(number);
}

static int by_dup2(void)
{
	dup2(null_file, number);
	return use(number);
}

static int by_dup3(void)
{
	dup3(null_file, number, O_CLOEXEC);
	return use(number);
}

/* Two contexts: what one has allocated the other does not know. */
static int by_dup2_of_another(void)
{
	struct alloc cmd = { sizeof(cmd), 0, 0 };
	int other = open("/dev/iommu", O_RDWR);
	uint32_t destroy[2] = { sizeof(destroy), 0 };

	ioctl(number, IOAS_ALLOC, &cmd);
	destroy[1] = cmd.out_ioas_id;
	dup2(other, number);
	return ioctl(number, DESTROY, destroy) < 0 ? -errno : 0;
}

static int by_close_range(void)
{
	syscall(SYS_close_range, number, number, 0);
	return use(number);
}

static int by_close_and_open(void)
{
	close(number);
	return open("/dev/null", O_RDWR) == number ? use(number) : -999;
}

static int by_close_and_fcntl(void)
{
	close(number);
	return fcntl(null_file, F_DUPFD, 0) == number ? use(number) : -999;
}

static int by_close_and_message(void)
{
	int sockets[2], got = -1;
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	socketpair(AF_UNIX, SOCK_STREAM, 0, sockets);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &null_file, sizeof(int));
	sendmsg(sockets[0], &message, 0);
	close(number);
	if (recvmsg(sockets[1], &message, 0) == 1)
		memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
	return got == number ? use(number) : -999;
}

static void *close_it(void *unused)
{
	close(number);
	return unused;
}

static void *replace_it(void *unused)
{
	dup2(null_file, number);
	return unused;
}

static int by_thread(void *(*change)(void *))
{
	pthread_t thread;

	pthread_create(&thread, NULL, change, NULL);
	pthread_join(thread, NULL);
	return use(number);
}

static int by_thread_that_closes(void)
{
	return by_thread(close_it);
}

static int by_thread_that_replaces(void)
{
	return by_thread(replace_it);
}

static void *close_another(void *other)
{
	close(*(int *)other);
	return NULL;
}

/* What a thread does to other numbers changes nothing; what it does afterwards to this one does. */
static int by_thread_after_another(void)
{
	int other = open("/dev/null", O_RDWR), result;
	pthread_t thread;

	pthread_create(&thread, NULL, close_another, &other);
	pthread_join(thread, NULL);
	result = use(number) + use(number);
	return result + by_thread(close_it);
}

/* A thread that was there before the file is used. */
static int turn; /* 0: wait, 1: close, 2: closed */

static void *close_when_told(void *unused)
{
	while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) != 1)
		sched_yield();
	close(number);
	__atomic_store_n(&turn, 2, __ATOMIC_RELEASE);
	return unused;
}

static int by_older_thread(void)
{
	pthread_t thread;
	int result;

	pthread_create(&thread, NULL, close_when_told, NULL);
	result = use(number) + use(number);
	__atomic_store_n(&turn, 1, __ATOMIC_RELEASE);
	while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) != 2)
		sched_yield();
	result += use(number);
	pthread_join(thread, NULL);
	return result;
}

/* Closed by a thread while this one uses it all the time. @returns how often it still worked afterwards */
static int by_racing_thread(void)
{
	int wrong = 0;

	for (int i = 0; i < 300; i++) {
		pthread_t thread;

		dup2(copy, number);
		__atomic_store_n(&turn, 0, __ATOMIC_RELEASE);
		pthread_create(&thread, NULL, close_when_told, NULL);
		use(number);
		__atomic_store_n(&turn, 1, __ATOMIC_RELEASE);
		while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) != 2)
			use(number);
		wrong += use(number) != -EBADF;
		pthread_join(thread, NULL);
	}
	return wrong;
}

/* A thread with a table of its own closes its copy of the number alone. */
static void *unshare_and_close(void *unused)
{
	if (unshare(CLONE_FILES) == 0)
		close(number);
	return unused;
}

static int by_thread_with_own_table(void)
{
	return by_thread(unshare_and_close);
}

static int close_in_child(void *unused)
{
	(void)unused;
	close(number);
	return 0;
}

static int by_process_with_same_table(void)
{
	static char stack[65536];
	int child = clone(close_in_child, stack + sizeof(stack), CLONE_FILES | CLONE_VM | SIGCHLD, NULL);

	waitpid(child, NULL, 0);
	return use(number);
}

static int by_clone3_with_same_table(void)
{
	struct clone_args args = { .flags = CLONE_FILES, .exit_signal = SIGCHLD };
	long child = syscall(SYS_clone3, &args, sizeof(args));

	if (child < 0)
		return UNAVAILABLE;
	if (child == 0) {
		close(number);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	return use(number);
}

/* A child's table is a copy: what it closes stays open here. */
static int by_fork(void)
{
	int child = fork();

	if (child == 0) {
		close(number);
		_exit(use(number) == -EBADF ? 0 : 1);
	}
	int status = -1;

	waitpid(child, &status, 0);
	return status == 0 ? use(number) : -999;
}

static int by_vfork(void)
{
	int child = vfork();

	if (child == 0) {
		close(number);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	return use(number);
}

/* io_uring closes files without a system call of that name. */
static int by_ring(void)
{
	struct io_uring_params params = { 0 };
	long ring = syscall(SYS_io_uring_setup, 1, &params);

	if (ring < 0)
		return UNAVAILABLE;
	size_t length = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
	char *queue = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	struct io_uring_sqe *entry = mmap(NULL, sizeof(*entry), PROT_READ | PROT_WRITE, MAP_SHARED, ring,
					  IORING_OFF_SQES);

	if (queue == MAP_FAILED || entry == MAP_FAILED)
		return -999;
	memset(entry, 0, sizeof(*entry));
	entry->opcode = IORING_OP_CLOSE;
	entry->fd = number;
	((uint32_t *)(queue + params.sq_off.array))[0] = 0;
	__atomic_store_n((uint32_t *)(queue + params.sq_off.tail), 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
		return -999;
	return use(number);
}

/*
 * A process that has used the number ends, and another one gets its id, while a third keeps everybody busy. Only root may
 * choose an id.
 */
static int by_id_used_again(void)
{
	int busy = fork();

	if (busy == 0)
		for (;;)
			use(copy);
	int first = fork();

	if (first == 0)
		_exit(use(number) + use(number) == 0 ? 0 : 1);
	waitpid(first, NULL, 0);
	struct clone_args args = { .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&first, .set_tid_size = 1 };
	int status = -1;

	dup2(null_file, number);
	long second = syscall(SYS_clone3, &args, sizeof(args));

	if (second == 0)
		_exit(-use(number));
	if (second > 0)
		waitpid(second, &status, 0);
	kill(busy, SIGKILL);
	waitpid(busy, NULL, 0);
	return second < 0 ? UNAVAILABLE : WIFEXITED(status) ? -WEXITSTATUS(status) : -999;
}

static const struct {
	const char *name;
	int (*change)(void);
} cases[] = {
	{ "close", by_close },
	{ "dup2", by_dup2 },
	{ "dup3", by_dup3 },
	{ "dup2 of another", by_dup2_of_another },
	{ "close_range", by_close_range },
	{ "close and open", by_close_and_open },
	{ "close and fcntl", by_close_and_fcntl },
	{ "close and message", by_close_and_message },
	{ "thread that closes", by_thread_that_closes },
	{ "thread that replaces", by_thread_that_replaces },
	{ "older thread", by_older_thread },
	{ "thread after another", by_thread_after_another },
	{ "racing thread", by_racing_thread },
	{ "thread with its own table", by_thread_with_own_table },
	{ "fork", by_fork },
	{ "vfork", by_vfork },
	{ "id used again", by_id_used_again },
	/* Once one of these was seen, nothing may be taken for granted any more, in no process. */
	{ "process with the same table", by_process_with_same_table },
	{ "clone3 with the same table", by_clone3_with_same_table },
	{ "io_uring", by_ring },
};

static void run(int index)
{
	null_file = open("/dev/null", O_RDWR);
	number = open("/dev/iommu", O_RDWR);
	copy = fcntl(number, F_DUPFD, 100);
	int before = use(number) + use(number) + use(copy);

	printf("%s: %d\n", cases[index].name, before == 0 ? cases[index].change() : -998);
	fflush(stdout);
}

/* The number is closed by exec, the copy is not. */
static void across_exec(char *self)
{
	char text[2][16];
	int fd = open("/dev/iommu", O_RDWR | O_CLOEXEC);

	snprintf(text[0], sizeof(text[0]), "%d", fd);
	snprintf(text[1], sizeof(text[1]), "%d", fcntl(fd, F_DUPFD, 100));
	if (use(fd) + use(fd) == 0)
		execl(self, self, text[0], text[1], NULL);
	printf("exec: -998\n");
	fflush(stdout);
	_exit(1);
}

int main(int argc, char **argv)
{
	if (argc > 2) {
		printf("exec: %d\nexec, copy: %d\n", use(atoi(argv[1])), use(atoi(argv[2])));
		return 0;
	}
	int child = fork();

	if (child == 0)
		across_exec(argv[0]);
	waitpid(child, NULL, 0);
	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		/* A process each, because some of these can never be undone. */
		child = fork();

		if (child == 0) {
			run(i);
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
	return 0;
}
