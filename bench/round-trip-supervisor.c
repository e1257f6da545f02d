/*
 * What a supervisor in C needs for one checked ioctl: receive it, identify the file by its inode, copy a struct of 24 bytes
 * in, make sure the caller still waits, copy the struct out, answer. For the mock driver's command (a struct of 80 bytes) it
 * identifies the file that the struct names, too, and copies the bytes that it names instead of the struct. The measure for
 * bench/round-trip.ts.
 *
 * usage: round-trip-supervisor PROGRAM [ARGUMENTS]
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif

static int install(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xff00),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x3b00, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
	};
	struct sock_fprog prog = { sizeof(code) / sizeof(code[0]), code };

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
		       SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &prog);
}

static void send_fd(int socket, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(int));
	sendmsg(socket, &message, 0);
}

static int receive_fd(int socket)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	int fd;

	if (recvmsg(socket, &message, 0) < 0)
		return -1;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
	return fd;
}

#define TEST_CMD 0x3ba0

struct test_cmd {
	__u32 size, op, id, reserved;
	__u64 iova, length, uptr, rest[5];
};

static int directory = -1;

static int identify(int fd)
{
	char name[16];
	struct stat status;

	snprintf(name, sizeof(name), "%d", fd);
	return fstatat(directory, name, &status, 0) < 0 || status.st_ino == 0;
}

static int copy_in(pid_t tid, void *into, __u64 address, size_t length)
{
	struct iovec local = { into, length }, remote = { (void *)address, length };

	return process_vm_readv(tid, &local, 1, &remote, 1, 0) != (ssize_t)length;
}

static int copy_out(int listener, const struct seccomp_notif *call, void *from, __u64 address, size_t length)
{
	struct iovec local = { from, length }, remote = { (void *)address, length };

	return ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &call->id) < 0 ||
	       process_vm_writev(call->pid, &local, 1, &remote, 1, 0) != (ssize_t)length;
}

static int handle(int listener, const struct seccomp_notif *call)
{
	char bytes[256];
	struct test_cmd *test = (struct test_cmd *)bytes;
	int is_test = call->data.args[1] == TEST_CMD;
	__u64 address = call->data.args[2];

	if (identify(call->data.args[0]) || copy_in(call->pid, bytes, address, is_test ? sizeof(*test) : 24))
		return -14;
	if (!is_test)
		return copy_out(listener, call, bytes, address, 24) ? -14 : 0;
	if (identify(test->id) || test->length > sizeof(bytes) - sizeof(*test) ||
	    copy_in(call->pid, test + 1, test->iova, test->length) ||
	    copy_out(listener, call, test + 1, test->uptr, test->length))
		return -14;
	return 0;
}

static void serve(int listener)
{
	struct seccomp_notif call;
	struct seccomp_notif_resp answer;
	struct pollfd ready = { listener, POLLIN, 0 };
	char path[64];

	ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, 1);
	for (;;) {
		if (poll(&ready, 1, -1) < 0 || !(ready.revents & POLLIN))
			return;
		memset(&call, 0, sizeof(call));
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) < 0)
			continue;
		if (directory < 0) {
			snprintf(path, sizeof(path), "/proc/%d/fd", call.pid);
			directory = open(path, O_RDONLY | O_DIRECTORY);
		}
		memset(&answer, 0, sizeof(answer));
		answer.id = call.id;
		answer.error = handle(listener, &call);
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
	}
}

int main(int argc, char **argv)
{
	int sockets[2], status, listener;
	pid_t child;

	if (argc < 2 || socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) < 0)
		return 2;
	child = fork();
	if (child == 0) {
		listener = install();
		if (listener < 0)
			_exit(3);
		send_fd(sockets[1], listener);
		close(listener);
		close(sockets[0]);
		close(sockets[1]);
		execv(argv[1], argv + 1);
		_exit(4);
	}
	close(sockets[1]);
	listener = receive_fd(sockets[0]);
	if (listener < 0)
		return 3;
	serve(listener);
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
