/*
 * A client that opens and maps /dev/iommu in ways that are refused before the device is asked, or that only show in how a file
 * counts as opened. Each line is a case and what it answers: a result, flags in octal, or the negative errno.
 *
 * usage: opens
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096ull

static const char *device = "/dev/iommu";

static int try_open(const char *what, const char *path, int flags)
{
	int file = open(path, flags, 0600);

	if (file < 0) {
		printf("%s: %d\n", what, -errno);
		return -1;
	}
	/* Not all hosts tell the same of these. */
	printf("%s: %o\n", what, fcntl(file, F_GETFL) & ~(0100000 | O_NOFOLLOW));
	return file;
}

/* openat2 with flags, mode and a size */
static void try_how(const char *what, uint64_t flags, uint64_t mode, size_t size)
{
	uint64_t how[8] = { flags, mode };
	int file = syscall(437, AT_FDCWD, device, how, size);

	printf("%s: %d\n", what, file < 0 ? -errno : 0);
	if (file >= 0)
		close(file);
}

static void try_map(const char *what, int file, uint64_t where, uint64_t length, int protection, uint64_t flags, uint64_t offset)
{
	long at = syscall(SYS_mmap, where, length, protection, flags, file, offset);

	printf("%s: %d\n", what, at == -1 ? -errno : 0);
}

static void maps(int file, int reading, int writing)
{
	try_map("nothing", file, 0, 0, PROT_READ, MAP_SHARED, 0);
	try_map("more than there is", file, 0, 1ull << 60, PROT_READ, MAP_SHARED, 0);
	try_map("all of 64 bits", file, 0, ~0ull, PROT_READ, MAP_SHARED, 0);
	try_map("beyond the last offset", file, 0, PAGE, PROT_READ, MAP_SHARED, -PAGE);
	try_map("no whole page", file, 0, PAGE, PROT_READ, MAP_SHARED, 100);
	try_map("no type", file, 0, PAGE, PROT_READ, 0, 0);
	try_map("odd type", file, 0, PAGE, PROT_READ, 5, 0);
	try_map("unknown flag", file, 0, PAGE, PROT_READ, MAP_SHARED | 0x200, 0);
	try_map("unknown flag, validated", file, 0, PAGE, PROT_READ, MAP_SHARED_VALIDATE | 0x200, 0);
	try_map("high flag, validated", file, 0, PAGE, PROT_READ, MAP_SHARED_VALIDATE | 1ull << 40, 0);
	try_map("huge pages", file, 0, PAGE, PROT_READ, MAP_SHARED | MAP_HUGETLB, 0);
	try_map("growing down", file, 0, PAGE, PROT_READ, MAP_SHARED | MAP_GROWSDOWN, 0);
	try_map("at an odd address", file, 0x340000000001, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, 0);
	try_map("at the end", file, (1ull << 47) - PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, 0);
	try_map("where something is", file, (uintptr_t)maps & -PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, 0);
	try_map("too large for low addresses", file, 0, 1ull << 31, PROT_READ, MAP_SHARED | MAP_32BIT, 0);
	try_map("no window", file, 0, PAGE, PROT_READ, MAP_SHARED, 0);
	try_map("no window, executable", file, 0, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, 0);
	try_map("only for reading", reading, 0, PAGE, PROT_READ, MAP_SHARED, 0);
	try_map("write what is only for reading", reading, 0, PAGE, PROT_WRITE, MAP_SHARED, 0);
	try_map("read what is only for writing", writing, 0, PAGE, PROT_READ, MAP_SHARED, 0);
}

int main(void)
{
	int file = try_open("both", device, O_RDWR | O_CLOEXEC);
	int reading = try_open("reading", device, O_RDONLY | O_NONBLOCK);
	int writing = try_open("writing", device, O_WRONLY | O_APPEND | O_TRUNC);

	try_open("neither", device, O_ACCMODE);
	try_open("synchronous", device, O_RDWR | O_SYNC | O_NOATIME);
	try_open("direct", device, O_RDWR | O_DIRECT);
	try_open("exclusive", device, O_RDWR | O_CREAT | O_EXCL);
	try_open("create", device, O_RDWR | O_CREAT);
	try_open("directory", device, O_RDONLY | O_DIRECTORY);
	try_open("create directory", device, O_RDWR | O_CREAT | O_DIRECTORY);
	try_open("temporary", device, O_RDWR | O_TMPFILE);
	try_open("temporary for reading", device, O_RDONLY | O_TMPFILE);
	try_open("slash", "/dev/iommu/", O_RDWR);
	try_open("create slash", "/dev/iommu/", O_RDWR | O_CREAT);
	try_open("dot", "/dev/iommu/.", O_RDWR | O_CREAT);
	try_how("how", O_RDWR, 0, 24);
	try_how("how with a mode", O_RDWR, 0600, 24);
	try_how("how with a mode to create", O_RDWR | O_CREAT, 0600, 24);
	try_how("how with an odd mode", O_RDWR | O_CREAT, 010000, 24);
	try_how("how with odd flags", 1ull << 63, 0, 24);
	try_how("short how", O_RDWR, 0, 16);
	try_how("long how", O_RDWR, 0, 40);
	maps(file, reading, writing);
	return 0;
}
