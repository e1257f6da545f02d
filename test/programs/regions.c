/*
 * A client of VFIO that maps a BAR of plain memory, which is open twice, and prints what it sees there by the mappings and by
 * reads and writes, while memory decoding is on, off and on again, and after the device was closed.
 *
 * usage: regions GROUP DEVICE
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "calls.h"

#define SET_IOMMU 0x3b66
#define SET_CONTAINER 0x3b68
#define GET_DEVICE_FD 0x3b6a
#define TYPE1_V2 3
#define BYTES 0x10000
#define BAR ((off_t)2 << 40)
#define CONFIG ((off_t)7 << 40)
#define COMMAND_AT (CONFIG + 4)
#define MEMORY 2

static sigjmp_buf out;
static int group;
static const char *device;

static void on_bus(int signal)
{
	siglongjmp(out, signal);
}

static int fd_of(void)
{
	int fd = ioctl(group, GET_DEVICE_FD, device);

	if (fd < 0) {
		say("device", fd);
		exit(1);
	}
	return fd;
}

static void decode(int fd, uint16_t command)
{
	say("command", pwrite(fd, &command, sizeof(command), COMMAND_AT));
}

static long load(const volatile uint32_t *at)
{
	if (sigsetjmp(out, 1))
		return -2;
	return *at;
}

static void *map(const char *what, int fd, size_t bytes, int flags, off_t offset)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, offset);

	say(what, at == MAP_FAILED ? -1 : 0);
	return at;
}

static void store(volatile uint32_t *at, uint32_t value)
{
	*at = value;
}

static long value_at(int fd, off_t offset)
{
	uint32_t value = 0;

	return pread(fd, &value, sizeof(value), offset) == sizeof(value) ? (long)value : -1;
}

static void refusals(int fd)
{
	map("private", fd, PAGE, MAP_PRIVATE, BAR);
	map("beyond", fd, BYTES + PAGE, MAP_SHARED, BAR);
	map("configuration", fd, PAGE, MAP_SHARED, CONFIG);
	map("no BAR", fd, PAGE, MAP_SHARED, 0);
	map("private, no BAR", fd, PAGE, MAP_PRIVATE, 0);
}

static void shares(int first, int second, volatile uint32_t *a, volatile uint32_t *b)
{
	uint32_t value = 22;

	store(a, 11);
	say("stored, read", value_at(first, BAR));
	say("stored, read by the other open", value_at(second, BAR));
	say("write", pwrite(second, &value, sizeof(value), BAR + 2 * PAGE));
	say("written, loaded", load(a + 2 * PAGE / 4));
	say("written, loaded by the other open", load(b + 2 * PAGE / 4));
	if (fork() == 0) {
		store(b + 1, 33);
		_exit(0);
	}
	wait(NULL);
	say("stored by a child", load(a + 1));
}

static void switches(int fd, volatile uint32_t *a, volatile uint32_t *b)
{
	decode(fd, 0);
	say("off", load(a) == -2 ? SIGBUS : 0);
	say("off, the other open", load(b) == -2 ? SIGBUS : 0);
	say("off, read", value_at(fd, BAR));
	decode(fd, MEMORY);
	say("on again", load(a));
	say("on again, the other open", load(b + 1));
}

int main(int argc, char **argv)
{
	int container = open("/dev/vfio/vfio", O_RDWR), first, second;
	volatile uint32_t *a, *b;

	if (argc < 3)
		return 2;
	device = argv[2];
	signal(SIGBUS, on_bus);
	group = open(argv[1], O_RDWR);
	say("container", ioctl(group, SET_CONTAINER, &container));
	say("type", ioctl(container, SET_IOMMU, TYPE1_V2));
	first = fd_of();
	second = fd_of();
	decode(first, 0);
	a = map("map while off", first, BYTES, MAP_SHARED, BAR);
	say("off at first", load(a) == -2 ? SIGBUS : 0);
	decode(first, MEMORY);
	say("zeros at first", load(a));
	b = map("map by the other open", second, BYTES, MAP_SHARED, BAR);
	refusals(first);
	shares(first, second, a, b);
	switches(second, a, b);
	close(first);
	say("first closed, stays mapped", load(a));
	munmap((void *)a, BYTES);
	say("second open", value_at(second, BAR));
	munmap((void *)b, BYTES);
	close(second);
	first = fd_of();
	decode(first, MEMORY);
	say("kept", value_at(first, BAR));
	a = map("map again", first, PAGE, MAP_SHARED, BAR + 2 * PAGE);
	say("kept, loaded", load(a));
	say("truncate", ftruncate(first, 0));
	decode(first, MEMORY);
	say("after truncating, loaded", load(a));
	say("after truncating, read", value_at(first, BAR));
	return 0;
}
