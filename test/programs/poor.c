/*
 * A client that gives up being root, and may lock one page of memory. Prints what mapping one page, and two, answers where a
 * device makes them be pinned: 0, or the negative errno.
 *
 * usage: poor      (as root)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#include "calls.h"

#define NOBODY 65534
#define FIRST_IOVA 0x1000000

static int iommufd;

static int map(uint32_t ioas, void *memory, uint64_t length)
{
	struct {
		uint32_t size, flags, ioas_id, reserved;
		uint64_t user_va, length, iova;
	} cmd = { sizeof(cmd), 7, ioas, 0, (uintptr_t)memory, length, FIRST_IOVA };

	return ioctl(iommufd, IOAS_MAP, &cmd) < 0 ? -errno : 0;
}

int main(void)
{
	struct rlimit limit = { PAGE, PAGE };
	uint32_t ioas[3] = { 12 }, device[18] = { 72, MOCK_DOMAIN };
	char *memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	iommufd = open("/dev/iommu", O_RDWR);
	if (ioctl(iommufd, IOAS_ALLOC, ioas) < 0 || memory == MAP_FAILED) {
		perror("/dev/iommu");
		return 1;
	}
	device[2] = ioas[2];
	if (ioctl(iommufd, TEST_CMD, device) < 0 || setrlimit(RLIMIT_MEMLOCK, &limit) || setgroups(0, NULL) ||
	    setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY)) {
		perror("poor");
		return 1;
	}
	printf("two pages: %d\n", map(ioas[2], memory, 2 * PAGE));
	printf("one page: %d\n", map(ioas[2], memory, PAGE));
	return 0;
}
