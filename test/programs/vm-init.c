/*
 * The first process of `npm run linux-vm`: runs the one program of the machine and hands out what it printed.
 *
 * /command holds its arguments, each with a NUL behind it. Its output is collected in memory and goes to the second serial
 * port when it has ended, so that it is not slowed down; the third gets "status N" and "seconds N".
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define HUGE_PAGES "400"

static void put(const char *path, const char *text)
{
	int file = open(path, O_WRONLY);

	if (file >= 0 && write(file, text, strlen(text)) < 0)
		perror(path);
	close(file);
}

/* A serial line that passes all bytes as they are. */
static int port(const char *path)
{
	struct termios settings;
	int file = open(path, O_RDWR);

	tcgetattr(file, &settings);
	cfmakeraw(&settings);
	tcsetattr(file, TCSANOW, &settings);
	return file;
}

static void start(int output)
{
	struct stat found;
	int count = 0, file = open("/command", O_RDONLY);

	fstat(file, &found);
	char *text = malloc(found.st_size), **arguments = malloc((found.st_size + 1) * sizeof(*arguments));
	ssize_t length = read(file, text, found.st_size);

	close(file);
	for (char *at = text; at < text + length; at += strlen(at) + 1)
		arguments[count++] = at;
	arguments[count] = NULL;
	dup2(output, 1);
	dup2(output, 2);
	execv(arguments[0], arguments);
	perror(arguments[0]);
	_exit(127);
}

int main(void)
{
	struct timespec before, after;
	int status = 0;

	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
	put("/proc/sys/vm/nr_hugepages", HUGE_PAGES);

	int output = open("/tmp/output", O_RDWR | O_CREAT | O_APPEND, 0600);
	int to = port("/dev/ttyS1"), report = port("/dev/ttyS2");

	clock_gettime(CLOCK_MONOTONIC, &before);
	pid_t child = fork();

	if (child == 0)
		start(output);
	waitpid(child, &status, 0);
	clock_gettime(CLOCK_MONOTONIC, &after);

	struct stat found;

	fstat(output, &found);
	lseek(output, 0, SEEK_SET);
	for (off_t done = 0; done < found.st_size;) {
		char piece[4096];
		ssize_t length = read(output, piece, sizeof(piece));

		if (length <= 0 || write(to, piece, length) != length)
			break;
		done += length;
	}
	tcdrain(to);
	dprintf(report, "status %d\nseconds %.2f\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
		(after.tv_sec - before.tv_sec) + (after.tv_nsec - before.tv_nsec) / 1e9);
	tcdrain(report);
	reboot(RB_POWER_OFF);
	return 0;
}
