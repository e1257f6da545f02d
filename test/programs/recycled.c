/*
 * A client that is killed in the middle of a call and whose id another process gets before the call is over. Prints what
 * became of that process's memory where the struct of the call lay: "untouched", or its words. Only root may choose an id;
 * "unavailable" where that fails, or took too
 * long. Ids are chosen for the whole machine: others may get theirs again sooner. For the stub device.
 *
 * usage: recycled
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SLEEP 0x3b02
#define MILLISECONDS 400

static volatile uint64_t words[4];

/* Whether the call that sleeps was still going on: one that is looked at waits for its end. */
static int was_asleep(void)
{
	struct timespec before, after;

	clock_gettime(CLOCK_MONOTONIC, &before);
	access("/", F_OK);
	clock_gettime(CLOCK_MONOTONIC, &after);
	return (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000 > MILLISECONDS / 8;
}

/* Everything that is looked at must be done before the sleep begins: uiommu answers nobody meanwhile. */
int main(void)
{
	int status;
	int device = open("/dev/uiommu-stub", O_RDWR);
	int last = open("/proc/sys/kernel/ns_last_pid", O_WRONLY);
	char text[32];

	words[0] = MILLISECONDS;
	int first = fork();

	if (first == 0)
		_exit(ioctl(device, SLEEP, words));
	usleep(100000);
	kill(first, SIGKILL);
	waitpid(first, &status, 0);
	memset((void *)words, 0, sizeof(words));
	snprintf(text, sizeof(text), "%d", first - 1);
	if (!WIFSIGNALED(status) || last < 0 || write(last, text, strlen(text)) < 0) {
		printf("unavailable\n");
		return 0;
	}
	int second = fork();

	if (second == 0) {
		if (!was_asleep() || getpid() != first)
			printf("unavailable\n");
		else if ((words[0] | words[1] | words[2] | words[3]) == 0)
			printf("untouched\n");
		else
			printf("%lu %lu %lu %lu\n", words[0], words[1], words[2], words[3]);
		return 0;
	}
	waitpid(second, NULL, 0);
	return 0;
}
