/*
 * Times one ioctl, over and over, and prints the median and mean in nanoseconds. The ioctl is IOMMU_OPTION: read the
 * huge-page option of an IOAS, a struct of 24 bytes in and out. With "plain" there is no /dev/iommu and any file will do:
 * that is for the supervisor in C, which answers everything.
 *
 * usage: round-trip-client CALLS [plain]
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

struct ioas_alloc {
	uint32_t size, flags, out_ioas_id;
};

struct option {
	uint32_t size, option_id;
	uint16_t op, reserved;
	uint32_t object_id;
	uint64_t val64;
};

#define IOAS_ALLOC 0x3b81
#define OPTION 0x3b87
#define OPTION_HUGE_PAGES 1
#define OP_GET 1

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static int order(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	int calls = argc > 1 ? atoi(argv[1]) : 1000;
	int plain = argc > 2 && strcmp(argv[2], "plain") == 0;
	int fd = open(plain ? "/dev/null" : "/dev/iommu", O_RDWR);
	struct ioas_alloc alloc = { sizeof(alloc), 0, 1 };
	uint64_t *times = malloc(calls * sizeof(*times)), total = 0;

	if (fd < 0 || !times || (!plain && ioctl(fd, IOAS_ALLOC, &alloc) < 0)) {
		perror("round-trip-client");
		return 1;
	}
	for (int i = 0; i < calls; i++) {
		struct option option = { sizeof(option), OPTION_HUGE_PAGES, OP_GET, 0, alloc.out_ioas_id, 0 };
		uint64_t begin = now();

		if (ioctl(fd, OPTION, &option) < 0) {
			perror("IOMMU_OPTION");
			return 1;
		}
		times[i] = now() - begin;
	}
	/* The first half warms both sides up. */
	times += calls / 2;
	calls -= calls / 2;
	for (int i = 0; i < calls; i++)
		total += times[i];
	qsort(times, calls, sizeof(*times), order);
	printf("%llu %llu\n", (unsigned long long)times[calls / 2], (unsigned long long)(total / calls));
	return 0;
}
