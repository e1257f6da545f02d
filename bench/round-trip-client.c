/*
 * Times one ioctl, over and over, and prints the median and mean in nanoseconds. With "option" it is IOMMU_OPTION: read
 * the huge-page option of an IOAS, a struct of 24 bytes in and out. With "access" it is ACCESS_RW of the mock driver: a
 * struct that names a second file, and 30 bytes copied from mapped memory to a buffer. With "plain" there is no /dev/iommu
 * and any file will do: that is for the supervisor in C, which answers everything; the IOVA is the address then.
 *
 * usage: round-trip-client CALLS option|access [plain]
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

struct ioas_map {
	uint32_t size, flags, ioas_id, reserved;
	uint64_t user_va, length, iova;
};

struct test_cmd {
	uint32_t size, op, id, reserved;
	union {
		struct {
			uint32_t out_fd, flags;
		} create_access;
		struct {
			uint64_t iova, length, uptr;
			uint32_t flags;
		} access_rw;
		uint64_t words[8];
	};
};

#define IOAS_ALLOC 0x3b81
#define IOAS_MAP 0x3b85
#define OPTION 0x3b87
#define TEST_CMD 0x3ba0
#define MAP_FIXED_READ_WRITE 7
#define CREATE_ACCESS 5
#define ACCESS_RW 8
#define BUFFER 65536
#define MOVED 30
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

static _Alignas(4096) char buffer[BUFFER];

/* Maps the buffer at its own address. Returns the file number of an access to it, or -1. */
static int open_access(int fd, uint32_t ioas)
{
	struct ioas_map map = { sizeof(map), MAP_FIXED_READ_WRITE, ioas, 0, (uintptr_t)buffer, BUFFER,
				(uintptr_t)buffer };
	struct test_cmd create = { sizeof(create), CREATE_ACCESS, ioas };

	if (ioctl(fd, IOAS_MAP, &map) < 0 || ioctl(fd, TEST_CMD, &create) < 0)
		return -1;
	return create.create_access.out_fd;
}

static int option(int fd, uint32_t ioas)
{
	struct option option = { sizeof(option), OPTION_HUGE_PAGES, OP_GET, 0, ioas, 0 };

	return ioctl(fd, OPTION, &option);
}

static int copy(int fd, int access)
{
	static char into[MOVED];
	struct test_cmd copy = { sizeof(copy), ACCESS_RW, access };

	copy.access_rw.iova = (uintptr_t)buffer;
	copy.access_rw.length = MOVED;
	copy.access_rw.uptr = (uintptr_t)into;
	return ioctl(fd, TEST_CMD, &copy);
}

int main(int argc, char **argv)
{
	int calls = argc > 1 ? atoi(argv[1]) : 1000;
	int access = argc > 2 && strcmp(argv[2], "access") == 0;
	int plain = argc > 3 && strcmp(argv[3], "plain") == 0;
	int fd = open(plain ? "/dev/null" : "/dev/iommu", O_RDWR);
	struct ioas_alloc alloc = { sizeof(alloc), 0, 1 };
	uint64_t *times = malloc(calls * sizeof(*times)), total = 0;
	int object;

	if (fd < 0 || !times || (!plain && ioctl(fd, IOAS_ALLOC, &alloc) < 0)) {
		perror("round-trip-client");
		return 1;
	}
	object = !access ? (int)alloc.out_ioas_id : plain ? dup(fd) : open_access(fd, alloc.out_ioas_id);
	if (object < 0) {
		perror("round-trip-client: access");
		return 1;
	}
	for (int i = 0; i < calls; i++) {
		uint64_t begin = now();

		if ((access ? copy(fd, object) : option(fd, object)) < 0) {
			perror("round-trip-client: ioctl");
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
