/* Steps about the files themselves: how they are opened and mapped, and what a program is told of them. */
#include "corners.h"
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <linux/openat2.h>

#define PLACE 0x340000000000ull /* nothing lies there */

void look_at(const char *what, int file)
{
	char name[40], link[128];
	struct stat found;

	if (file < 0)
		return;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", file);
	ssize_t length = readlink(name, link, sizeof(link));

	if (fstat(file, &found) < 0)
		printf(" %s?", what);
	else
		printf(" %s %o %x %ld %ld %.*s %x", what, found.st_mode, major(found.st_rdev), (long)found.st_size,
		       (long)found.st_nlink, (int)length, link, fcntl(file, F_GETFD));
	/* Event queues tell another access mode here, and some flags cannot be had (docs/divergence.md). */
	if (strcmp(what, "fault") && strcmp(what, "event"))
		printf(" %o", fcntl(file, F_GETFL) & ~(O_CLOEXEC | O_NOFOLLOW | 0100000));
}

/* What a program is told of its files. */
void look_at_files(void)
{
	printf("files");
	look_at("iommufd", iommufd);
	look_at("fault", file_of(FAULT));
	look_at("event", file_of(VEVENTQ));
	look_at("access", file_of(ACCESS));
}

static uint64_t odd_flags(void)
{
	static const uint32_t flags[] = { O_CREAT, O_EXCL, O_NOCTTY, O_TRUNC, O_APPEND, O_NONBLOCK, O_DSYNC, O_SYNC, O_ASYNC,
					  O_DIRECT, O_DIRECTORY, O_NOFOLLOW, O_NOATIME, O_CLOEXEC, O_TMPFILE };
	uint64_t chosen = percent(60) ? O_RDWR : below(4);

	while (percent(55))
		chosen |= flags[below(sizeof(flags) / sizeof(flags[0]))];
	return chosen;
}

/* Answers a file number or a negative errno. */
static int open_path(const char *name, uint64_t flags)
{
	struct open_how how[2] = { { .flags = flags, .mode = (flags & (O_CREAT | O_TMPFILE)) ? 0600 : 0 }, { .mode = percent(20) } };

	if (percent(70))
		return syscall(SYS_openat, AT_FDCWD, name, (int)flags, 0600);
	if (percent(15))
		how->flags |= 1ull << below(64);
	if (percent(15))
		how->mode |= 1ull << below(64);
	printf("(2 %llx %llx) ", (LONG)how->flags, (LONG)how->mode);
	/* The host may not know the newest bits; a place (O_PATH) tells other flags here. */
	how->flags &= ~O_PATH;
	if (how->flags & ~0x7fffffull)
		how->flags |= 1ull << 63;
	return syscall(SYS_openat2, AT_FDCWD, name, how, percent(90) ? sizeof(*how) : 8 * below(7));
}

static char *map_from(int file, uint64_t offset)
{
	static const uint64_t extra[] = { MAP_POPULATE, MAP_NONBLOCK, MAP_STACK, MAP_32BIT, MAP_DENYWRITE, MAP_EXECUTABLE, MAP_NORESERVE,
					  MAP_GROWSDOWN, MAP_HUGETLB, MAP_SYNC, MAP_FIXED_NOREPLACE, 0x200, 1ull << 40, 0x80, 0x8000000 };
	static const uint64_t places[] = { PLACE, PLACE, PLACE + 1, (uintptr_t)BUFFER, (1ull << 47) - PAGE, (1ull << 47) - 2 * PAGE,
					   ~0ull << 12, 1ull << 63 };
	uint64_t type = percent(60) ? MAP_SHARED : percent(70) ? MAP_SHARED_VALIDATE : below(16), flags = type, where = 0;
	uint64_t length = percent(60) ? PAGE : percent(50) ? PAGE * below(4) + below(2) : 1ull << below(64);
	int protection = percent(70) ? PROT_READ : below(8);

	while (percent(30))
		flags |= extra[below(sizeof(extra) / sizeof(extra[0]))];
	if (percent(12))
		flags |= MAP_FIXED;
	if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE))
		where = places[below(sizeof(places) / sizeof(places[0]))];
	/* A private mapping from anywhere else is made here (docs/divergence.md); nobody maps over what is in use. */
	if (type == MAP_PRIVATE || ((flags & MAP_FIXED) && where == (uintptr_t)BUFFER))
		return NULL;
	printf(" map %llx %x %llx %llx", (LONG)length, protection, (LONG)flags, (LONG)where);
	char *at = (char *)syscall(SYS_mmap, where, length, protection, flags, file, offset);

	told(at == MAP_FAILED ? -1 : 0);
	if (at != MAP_FAILED)
		munmap(at, length);
	return at;
}

/* The device once more, in any way; what is got is tried and closed. */
void open_oddly(void)
{
	char itself[40];
	const char *names[] = { "/dev/iommu", "/dev/iommu", "/dev/iommu", "/dev/iommu", "/dev/iommu/", "/dev//./iommu", "/dev/iommu/.",
				itself };
	const char *name = names[below(8)];
	uint64_t flags = odd_flags();

	snprintf(itself, sizeof(itself), "/proc/self/fd/%d", iommufd);
	printf("open %s %llo ", name == itself ? "itself" : name, (LONG)flags);
	int file = open_path(name, flags), error = errno;

	if (file < 0) {
		printf("= -%d", error);
		return;
	}
	look_at("it", file);
	printf(" ioctl");
	told(ioctl(file, IOMMU_DESTROY, NULL));
	map_from(file, percent(50) ? 0 : percent(50) ? below(16) * 1024 : percent(50) ? -PAGE : draw());
	close(file);
}

void map_oddly(void)
{
	printf("odd");
	/* Where a window is depends on the kernel; a guess must not find one. */
	map_from(iommufd, percent(50) ? some_window() : percent(40) ? (1ull << 40) + 1024 * below(8) : percent(50) ? -PAGE * (1 + below(3)) : draw() | 1ull << 41);
}
