/* Steps about memory: what is mapped from where, who reaches it, what was written. */
#include "corners.h"

static int memfds[6], memfd_count, memfd_growth;
static int dmabufs[8], dmabuf_count;
/* Seen by all processes: pages have moved to another one, after which Linux counts wrongly (docs/divergence.md). */
static int *moved;

void share_memory(void)
{
	moved = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

void alloc_ioas(void)
{
	struct iommu_ioas_alloc cmd = { .size = sizeof(cmd), .flags = percent(3) };

	if (!say(IOMMU_IOAS_ALLOC, &cmd, "ioas"))
		note(IOAS, cmd.out_ioas_id, -1);
}

void map(void)
{
	struct iommu_ioas_map cmd = { .size = sizeof(cmd), .ioas_id = one_of(IOAS), .length = some_length() };

	cmd.flags = percent(95) ? 7 & (below(8) | 2) : below(64);
	cmd.user_va = (uintptr_t)(percent(70) ? BUFFER : SHARED) + below(32) * PAGE + (percent(5) ? below(PAGE) : 0);
	cmd.iova = some_iova();
	uint64_t at = cmd.iova;

	if (!say(IOMMU_IOAS_MAP, &cmd, "map %u %x %llx %llx at %llx", cmd.ioas_id, cmd.flags,
		 (LONG)cmd.user_va, (LONG)cmd.length, (LONG)((cmd.flags & 1) ? at : 0))) {
		printf(" %llx", (LONG)cmd.iova);
		note_range(cmd.iova, cmd.length);
	}
}

void unmap(void)
{
	struct iommu_ioas_unmap cmd = { .size = sizeof(cmd), .ioas_id = one_of(IOAS) };

	uint64_t iova = percent(20) ? 0 : some_iova(), length = percent(20) ? ~0ull : some_length();

	mapped_range(&iova, &length);
	cmd.iova = iova;
	cmd.length = length;
	say(IOMMU_IOAS_UNMAP, &cmd, "unmap %u %llx %llx", cmd.ioas_id, (LONG)cmd.iova, (LONG)cmd.length);
	printf(" %llx", (LONG)cmd.length);
}

void option(void)
{
	struct iommu_option cmd = { .size = sizeof(cmd), .option_id = below(percent(90) ? 2 : 5), .op = below(percent(90) ? 2 : 4) };

	cmd.object_id = percent(40) ? 0 : one_of(IOAS);
	cmd.val64 = percent(90) ? below(3) : draw();
	cmd.__reserved = percent(2);
	/* Who may change it depends on more than being root. */
	if (cmd.option_id == IOMMU_OPTION_RLIMIT_MODE && !is_poor)
		cmd.op = IOMMU_OPTION_OP_GET;
	say(IOMMU_OPTION, &cmd, "option %u %u of %u %llx", cmd.option_id, cmd.op, cmd.object_id, (LONG)cmd.val64);
	printf(" %llx", (LONG)cmd.val64);
}

void change_process(void)
{
	struct iommu_ioas_change_process cmd = { .size = sizeof(cmd), .__reserved = percent(3) };

	if (!say(IOMMU_IOAS_CHANGE_PROCESS, &cmd, "change process"))
		*moved = 1;
}

void limit_memory(void)
{
	struct iommu_test_cmd cmd = test(IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT, 0);

	cmd.memory_limit.limit = percent(50) ? 65536 : below(4) * 1024;
	say(IOMMU_TEST_CMD, &cmd, "limit %u", cmd.memory_limit.limit);
}

void new_memfd(void)
{
	if (memfd_count == 6)
		return;
	int pages = below(9), file = memfd_create("corners", MFD_ALLOW_SEALING);

	printf("memfd of %d", pages);
	told(ftruncate(file, pages * PAGE + (percent(10) ? 100 : 0)));
	for (int i = 0; i < pages; i++)
		if (percent(60) && pwrite(file, &i, sizeof(i), i * PAGE) < 0)
			printf("?");
	if (percent(15)) {
		char name[40];

		snprintf(name, sizeof(name), "/proc/self/fd/%d", file);
		int other = open(name, O_RDONLY);

		close(file);
		file = other;
		printf(" for reading");
	}
	memfds[memfd_count++] = file;
}

/* Never shorter: what is cut off stays with the DMA on Linux alone. */
void grow_memfd(void)
{
	if (!memfd_count)
		return;
	int which = below(memfd_count), pages = 9 + ++memfd_growth;

	printf("grow memfd %d to %d", which, pages);
	told(ftruncate(memfds[which], pages * PAGE));
}

static void map_by_number(struct iommu_ioas_map_file cmd, const char *what, int which)
{
	uint64_t at = cmd.iova;

	if (!say(IOMMU_IOAS_MAP_FILE, &cmd, "map %s %d %u %x %llx %llx at %llx", what, which, cmd.ioas_id, cmd.flags,
		 (LONG)cmd.start, (LONG)cmd.length, (LONG)((cmd.flags & 1) ? at : 0))) {
		printf(" %llx", (LONG)cmd.iova);
		note_range(cmd.iova, cmd.length);
	}
}

void map_memfd(void)
{
	struct iommu_ioas_map_file cmd = { .size = sizeof(cmd), .ioas_id = one_of(IOAS), .flags = (percent(50) ? 6 : 4) | below(2) };
	int which = memfd_count ? (int)below(memfd_count) : -1;

	if (which < 0)
		return;
	cmd.fd = memfds[which];
	cmd.start = percent(80) ? below(5) * PAGE : below(9000);
	cmd.length = percent(85) ? PAGE * (1 + below(5)) : 1 + below(9000);
	cmd.iova = some_iova();
	map_by_number(cmd, "memfd", which);
}

void change_ground(void)
{
	int first = below(8) * 2, count = 1 + below(4), access = percent(70) ? 3 : below(2);
	char *at = GROUND + first * PAGE;
	int which = memfd_count ? (int)below(memfd_count) : -1, offset = below(4);

	switch (below(4)) {
	case 0:
		if (which < 0)
			return;
		printf("ground %d %d shows memfd %d from %d access %d", first, count, which, offset, access);
		told(mmap(at, count * PAGE, access, MAP_SHARED | MAP_FIXED, memfds[which], offset * PAGE) == at ? 0 : -1);
		break;
	case 1:
		printf("ground %d %d shared access %d", first, count, access);
		told(mmap(at, count * PAGE, access, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at ? 0 : -1);
		break;
	case 2:
		printf("ground %d %d access %d", first, count, access);
		told(mprotect(at, count * PAGE, access));
		break;
	case 3:
		printf("ground %d %d nothing", first, count);
		told(munmap(at, count * PAGE));
	}
}

void map_ground(void)
{
	struct iommu_ioas_map cmd = { .size = sizeof(cmd), .ioas_id = one_of(IOAS), .flags = (percent(60) ? 6 : 4) | below(2) };
	int first = below(16), count = 1 + below(5);

	cmd.user_va = (uintptr_t)GROUND + first * PAGE;
	cmd.length = count * PAGE;
	cmd.iova = some_iova();
	uint64_t at = cmd.iova;

	if (!say(IOMMU_IOAS_MAP, &cmd, "map ground %d %d %u %x at %llx", first, count, cmd.ioas_id, cmd.flags,
		 (LONG)((cmd.flags & 1) ? at : 0))) {
		printf(" %llx", (LONG)cmd.iova);
		note_range(cmd.iova, cmd.length);
	}
}

void get_dmabuf(void)
{
	struct iommu_test_cmd cmd = test(IOMMU_TEST_OP_DMABUF_GET, 0);
	uint32_t length = cmd.dmabuf_get.length = percent(85) ? PAGE * (1 + below(8)) : below(20000);

	cmd.dmabuf_get.open_flags = percent(90) ? O_CLOEXEC : 2 * below(4);
	if (dmabuf_count == 8)
		return;
	/* Linux installs the file and answers 0; what number it got shows nowhere but in the table. */
	int before = dup(iommufd), result;

	close(before);
	result = ioctl(iommufd, IOMMU_TEST_CMD, &cmd);
	printf("dmabuf %x %x = %d", length, cmd.dmabuf_get.open_flags, result < 0 ? -errno : 0);
	if (result >= 0)
		dmabufs[dmabuf_count++] = result > 0 ? result : before;
}

void map_file(void)
{
	struct iommu_ioas_map_file cmd = { .size = sizeof(cmd), .ioas_id = one_of(IOAS), .flags = 6 | below(2) };
	int which = dmabuf_count ? (int)below(dmabuf_count) : -1;

	cmd.fd = which >= 0 && percent(90) ? dmabufs[which] : percent(50) ? null_file : -1;
	cmd.start = percent(80) ? below(4) * PAGE : below(9000);
	cmd.length = percent(85) ? PAGE * (1 + below(6)) : some_length();
	cmd.iova = some_iova();
	map_by_number(cmd, "file", which);
}

void withdraw(void)
{
	struct iommu_test_cmd cmd = test(IOMMU_TEST_OP_DMABUF_REVOKE, 0);
	int which = dmabuf_count ? (int)below(dmabuf_count) : -1;

	cmd.dmabuf_revoke.dmabuf_fd = which >= 0 && percent(92) ? dmabufs[which] : null_file;
	cmd.dmabuf_revoke.revoked = below(2);
	say(IOMMU_TEST_CMD, &cmd, "revoke %d %u", which, cmd.dmabuf_revoke.revoked);
}

void close_dmabuf(void)
{
	if (dmabuf_count) {
		printf("close dmabuf");
		told(close(dmabufs[--dmabuf_count]));
	}
}

void alloc_access(void)
{
	struct iommu_test_cmd cmd = test(IOMMU_TEST_OP_CREATE_ACCESS, one_of(IOAS));

	cmd.create_access.flags = below(2);
	if (known[ACCESS].count < 6 && !say(IOMMU_TEST_CMD, &cmd, "access to %u %x", cmd.id, cmd.create_access.flags))
		note(ACCESS, ~0u - known[ACCESS].count, cmd.create_access.out_access_fd);
}

void close_access(void)
{
	if (!known[ACCESS].count)
		return;
	printf("close access");
	known[ACCESS].count--;
	told(close(known[ACCESS].fds[known[ACCESS].count]));
}

void access_bytes(void)
{
	static unsigned char bytes[9000];
	struct iommu_test_cmd cmd = test(IOMMU_TEST_OP_ACCESS_RW, file_of(ACCESS));

	if ((int)cmd.id < 0)
		return;
	cmd.access_rw.iova = some_iova() + (percent(50) ? below(PAGE) : 0);
	cmd.access_rw.length = percent(80) ? 1 + below(64) : below(sizeof(bytes));
	cmd.access_rw.flags = below(2) | (percent(40) ? MOCK_ACCESS_RW_SLOW_PATH : 0);
	cmd.access_rw.uptr = percent(96) ? (uintptr_t)bytes : 8;
	memset(bytes, 0x40 + below(16), sizeof(bytes));
	int result = say(IOMMU_TEST_CMD, &cmd, "access %llx %llx %x%s", (LONG)cmd.access_rw.iova, (LONG)cmd.access_rw.length,
			 cmd.access_rw.flags, cmd.access_rw.uptr == 8 ? " nowhere" : "");
	unsigned sum = 0;

	for (unsigned i = 0; result == 0 && i < cmd.access_rw.length && i < sizeof(bytes); i++)
		sum = sum * 31 + bytes[i];
	printf(" %x", sum);
}

void set_dirty(void)
{
	struct iommu_hwpt_set_dirty_tracking cmd = { .size = sizeof(cmd), .hwpt_id = ready_table(), .flags = below(percent(90) ? 2 : 8) };

	say(IOMMU_HWPT_SET_DIRTY_TRACKING, &cmd, "tracking %u %x", cmd.hwpt_id, cmd.flags);
}

void make_dirty(void)
{
	static uint8_t bits[64];
	struct iommu_test_cmd cmd = test(IOMMU_TEST_OP_DIRTY, ready_table());

	for (unsigned i = 0; i < sizeof(bits); i++)
		bits[i] = draw();
	uint64_t iova = some_iova(), length = some_length();

	ready_range(&iova, &length);
	cmd.dirty.iova = iova;
	cmd.dirty.length = length;
	cmd.dirty.page_size = percent(70) ? PAGE : 1ull << below(16);
	cmd.dirty.uptr = (uintptr_t)bits;
	if (cmd.dirty.length / cmd.dirty.page_size > 512)
		cmd.dirty.length = 4 * PAGE;
	say(IOMMU_TEST_CMD, &cmd, "dirty %u %llx %llx by %llx", cmd.id, (LONG)cmd.dirty.iova, (LONG)cmd.dirty.length,
	    (LONG)cmd.dirty.page_size);
	printf(" %llx", (LONG)cmd.dirty.out_nr_dirty);
}

void get_dirty(void)
{
	static uint64_t bits[512];
	struct iommu_hwpt_get_dirty_bitmap cmd = { .size = sizeof(cmd), .hwpt_id = ready_table(), .flags = below(percent(90) ? 2 : 8) };
	uint64_t sum = 0;

	memset(bits, 0, sizeof(bits));
	uint64_t iova = percent(70) ? some_iova() & -PAGE : some_iova(), length = some_length();

	ready_range(&iova, &length);
	cmd.iova = iova;
	cmd.length = length;
	cmd.page_size = percent(70) ? PAGE : 1ull << below(24);
	cmd.data = percent(97) ? (uintptr_t)bits + (percent(20) ? 8 * below(4) : 0) : 8;
	if (cmd.length / cmd.page_size > 8 * sizeof(bits) / 2)
		cmd.length = 16 * PAGE;
	say(IOMMU_HWPT_GET_DIRTY_BITMAP, &cmd, "get dirty %u %x %llx %llx by %llx", cmd.hwpt_id, cmd.flags, (LONG)cmd.iova,
	    (LONG)cmd.length, (LONG)cmd.page_size);
	for (unsigned i = 0; i < 512; i++)
		sum = sum * 31 + bits[i];
	printf(" %llx", (LONG)sum);
}

void copy(void)
{
	struct iommu_ioas_copy cmd = { .size = sizeof(cmd), .flags = (percent(80) ? 6 : below(16)) | below(2) };
	uint64_t from = some_iova(), length = some_length(), to = some_iova();

	if (percent(70))
		mapped_range(&from, &length);
	cmd.dst_ioas_id = one_of(IOAS);
	cmd.src_ioas_id = one_of(IOAS);
	cmd.src_iova = from;
	cmd.dst_iova = to;
	cmd.length = length;
	if (!say(IOMMU_IOAS_COPY, &cmd, "copy %x from %u %llx %llx to %u at %llx", cmd.flags, cmd.src_ioas_id, (LONG)from,
		 (LONG)length, cmd.dst_ioas_id, (LONG)((cmd.flags & 1) ? to : 0))) {
		printf(" %llx", (LONG)cmd.dst_iova);
		note_range(cmd.dst_iova, length);
	}
}

void check_map(void)
{
	struct iommu_test_cmd cmd = test(IOMMU_TEST_OP_MD_CHECK_MAP, one_of(PAGING));
	uint64_t iova = some_iova(), length = some_length();
	static char *const memory[] = { BUFFER, SHARED, GROUND };

	mapped_range(&iova, &length);
	cmd.check_map.iova = iova;
	cmd.check_map.length = length;
	cmd.check_map.uptr = (uintptr_t)memory[below(3)] + below(16) * PAGE;
	say(IOMMU_TEST_CMD, &cmd, "check map %u %llx %llx is %llx", cmd.id, (LONG)iova, (LONG)length, (LONG)cmd.check_map.uptr);
}

/* What the process is told of itself. */
void look_at_process(void)
{
	FILE *file = fopen("/proc/self/status", "r");
	char line[256];

	printf("process");
	while (!*moved && file && fgets(line, sizeof(line), file)) {
		long kilobytes;

		if (sscanf(line, "VmLck: %ld", &kilobytes) == 1)
			printf(" locked %ld", kilobytes);
		if (sscanf(line, "VmPin: %ld", &kilobytes) == 1)
			printf(" pinned %ld", kilobytes);
	}
	if (file)
		fclose(file);
}

void look_at_memory(void)
{
	printf("memory");
	int file = dmabuf_count ? dmabufs[below(dmabuf_count)] : -1;

	look_at("dmabuf", file);
	if (file < 0)
		return;
	printf(" ends at");
	told(lseek(file, 0, SEEK_END));
	printf(" shared");
	told(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, file, 0) == MAP_FAILED ? -1 : 0);
}
