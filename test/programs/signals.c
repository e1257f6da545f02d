/*
 * Calls under a storm of signals to uiommu itself: every answer must be the right one.
 * usage: signals OPENS: so many opens of /dev/iommu, each used, with a signal each 0.2 ms
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor.h"
#include "calls.h"

int main(int argc, char **argv)
{
	int opens = argc > 1 ? atoi(argv[1]) : 0, wrong = 0, refused = 0, lost = 0;
	pid_t target = supervisor();

	if (target == 0)
		return 2;
	pid_t sender = fork();
	if (sender == 0) {
		while (kill(target, SIGCHLD) == 0)
			usleep(200);
		_exit(1);
	}
	for (int i = 0; i < opens; i++) {
		struct { unsigned int size, flags, id; } alloc = { 12, 0, 0 };
		struct { unsigned int size, id; } destroy = { 8, 0 };
		struct stat status;

		int fd = open("/dev/iommu", O_RDWR);
		if (fd < 0) {
			refused++;
			continue;
		}
		if (fd < 3 || ioctl(fd, IOAS_ALLOC, &alloc) != 0) {
			wrong++;
			continue;
		}
		destroy.id = alloc.id;
		if (ioctl(fd, DESTROY, &destroy) != 0 || fstat(fd, &status) != 0 || !S_ISCHR(status.st_mode))
			lost++;
		close(fd);
	}
	kill(sender, SIGKILL);
	waitpid(sender, NULL, 0);
	printf("%d opens: %d wrong, %d refused, %d with a call gone wrong\n", opens, wrong, refused, lost);
	return 0;
}
