/* Steps about what is held: tables with few places, answers that cannot be written, windows in pieces, edges of epoll, locked pages. */
#include "corners.h"
#include <sys/epoll.h>
#include <sys/fsuid.h>
#include <sys/resource.h>
#include <sys/uio.h>

#define READ_ONLY ((char *)0x350000000000ull)
#define PIECES 8

static int epoll = -1;
static struct {
	char *at;
	uint64_t length;
} pieces[PIECES];
static int piece_count;

static int count_files(void)
{
	int count = 0;

	for (int number = 0; number < 1024; number++)
		count += fcntl(number, F_GETFD) >= 0;
	return count;
}

/* A call that makes something, and whose answer has no place. */
void answer_nowhere(void)
{
	struct iommu_ioas_alloc ioas = { .size = sizeof(ioas) };
	struct iommu_fault_alloc fault = { .size = sizeof(fault) };
	struct iommu_veventq_alloc events = { .size = sizeof(events), .viommu_id = one_of(VIOMMU), .type = IOMMU_VEVENTQ_TYPE_SELFTEST,
					      .veventq_depth = 4 };
	struct iommu_vdevice_alloc vdevice = { .size = sizeof(vdevice), .viommu_id = one_of(VIOMMU), .dev_id = one_of(IDEV), .virt_id = 77 };
	struct iommu_hwpt_alloc hwpt = { .size = sizeof(hwpt), .dev_id = one_of(IDEV), .pt_id = one_of(IOAS) };
	struct iommu_test_cmd device = test(IOMMU_TEST_OP_MOCK_DOMAIN, one_of(IOAS)), access = test(IOMMU_TEST_OP_CREATE_ACCESS, one_of(IOAS));
	struct {
		unsigned long number;
		void *words;
		size_t size;
	} calls[] = {
		{ IOMMU_IOAS_ALLOC, &ioas, sizeof(ioas) }, { IOMMU_FAULT_QUEUE_ALLOC, &fault, sizeof(fault) },
		{ IOMMU_VEVENTQ_ALLOC, &events, sizeof(events) }, { IOMMU_VDEVICE_ALLOC, &vdevice, sizeof(vdevice) },
		{ IOMMU_HWPT_ALLOC, &hwpt, sizeof(hwpt) }, { IOMMU_TEST_CMD, &device, sizeof(device) },
		{ IOMMU_TEST_CMD, &access, sizeof(access) },
	};
	int which = below(sizeof(calls) / sizeof(calls[0])), before = count_files();
	char *page = mmap(READ_ONLY, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	memcpy(page, calls[which].words, calls[which].size);
	mprotect(page, PAGE, PROT_READ);
	say(calls[which].number, page, "answer nowhere %d", which);
	printf(" files %d", count_files() - before);
}

/* The lowest places are taken, and there are no others. */
void few_places(void)
{
	struct iommu_fault_alloc fault = { .size = sizeof(fault) };
	struct iommu_test_cmd access = test(IOMMU_TEST_OP_CREATE_ACCESS, percent(80) ? one_of(IOAS) : 999);
	struct rlimit limit, low;
	int taken[64], count = 0, free_number = dup(iommufd);

	/* A queue that was closed keeps its place here until the next file (docs/divergence.md). */
	if (known[FAULT].count || known[VEVENTQ].count || getrlimit(RLIMIT_NOFILE, &limit) < 0) {
		close(free_number);
		return;
	}
	low = limit;
	low.rlim_cur = free_number + 1;
	setrlimit(RLIMIT_NOFILE, &low);
	for (int next; count < 64 && (next = dup(iommufd)) >= 0;)
		taken[count++] = next;
	printf("few places");
	told(ioctl(iommufd, IOMMU_FAULT_QUEUE_ALLOC, &fault));
	told(ioctl(iommufd, IOMMU_TEST_CMD, &access));
	setrlimit(RLIMIT_NOFILE, &limit);
	while (count > 0)
		close(taken[--count]);
	close(free_number);
}

void watch_queue(void)
{
	int file = file_of(percent(50) ? FAULT : VEVENTQ);
	struct epoll_event wanted = { .events = EPOLLIN | (percent(70) ? EPOLLET : 0), .data = { .fd = 1 } };

	if (file < 0)
		return;
	if (epoll < 0)
		epoll = epoll_create1(0);
	printf("watch %x", wanted.events);
	told(epoll_ctl(epoll, percent(70) ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, file, &wanted));
}

void look_for_edges(void)
{
	struct epoll_event found[8];

	if (epoll < 0)
		return;
	printf("edges");
	int count = told(epoll_wait(epoll, found, 8, 0));

	for (int i = 0; i < count; i++)
		printf(" %x", found[i].events);
}

void show_piece(void)
{
	uint64_t offset, length = window_of(&offset);

	if (!length || piece_count == PIECES)
		return;
	char *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, iommufd, offset);

	printf("piece");
	if (told(at == MAP_FAILED ? -1 : 0) < 0)
		return;
	volatile uint32_t *words = (uint32_t *)at;

	printf(" has %x %x", words[1], words[PAGE / 4]);
	words[1] = below(1000);
	words[PAGE / 4] = below(1000);
	pieces[piece_count].at = at;
	pieces[piece_count++].length = length;
}

/* A page of a window goes, the other one stays. */
void drop_piece(void)
{
	if (!piece_count)
		return;
	int which = below(piece_count), first = below(2);
	uint64_t half = pieces[which].length / 2;

	printf("drop piece %d", first);
	if (half < PAGE || half % PAGE) {
		told(munmap(pieces[which].at, pieces[which].length));
		pieces[which] = pieces[--piece_count];
		return;
	}
	told(munmap(pieces[which].at + (first ? half : 0), half));
	pieces[which].at += first ? 0 : half;
	pieces[which].length = half;
}

/* Device memory as if it were the program's own. */
void map_piece(void)
{
	struct iommu_ioas_map cmd = { .size = sizeof(cmd), .flags = 6 | below(2), .ioas_id = one_of(IOAS), .length = PAGE };

	if (!piece_count)
		return;
	cmd.user_va = (uintptr_t)pieces[below(piece_count)].at;
	cmd.iova = some_iova();
	uint64_t iova = cmd.iova;

	if (!say(IOMMU_IOAS_MAP, &cmd, "map piece %u %x at %llx", cmd.ioas_id, cmd.flags, (LONG)((cmd.flags & 1) ? iova : 0)))
		note_range(cmd.iova, cmd.length);
}

/* What a program that pays has locked, and may lock, and who it is. */
void change_limits(void)
{
	struct rlimit limit;

	if (!is_poor)
		return;
	getrlimit(RLIMIT_MEMLOCK, &limit);
	switch (below(3)) {
	case 0:
		limit.rlim_cur = below(limit.rlim_max / PAGE + 1) * PAGE;
		printf("limit %llx", (LONG)limit.rlim_cur);
		told(setrlimit(RLIMIT_MEMLOCK, &limit));
		break;
	case 1:
		printf("lock");
		told(mlock(BUFFER + below(32) * PAGE, PAGE * below(3)));
		break;
	case 2:
		printf("unlock");
		told(munlock(BUFFER, BUFFER_SIZE));
	}
}

void odd_bitmap(void)
{
	struct iommu_hwpt_get_dirty_bitmap cmd = { .size = sizeof(cmd), .hwpt_id = ready_table(), .flags = below(2) };
	int first = 1 + below(13), count = below(3), access = percent(50) ? PROT_NONE : PROT_READ;
	char *hole = GROUND + (first + 1) * PAGE;
	uint64_t sum = 0;

	/* Pages with something of their own, and between them one that cannot be written. */
	char *at = mmap(GROUND + first * PAGE, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (count)
		mprotect(hole, PAGE, access);
	uint64_t iova = some_iova() & -PAGE, length = PAGE * (1 + below(8));

	if (!ready_range(&iova, &length))
		mapped_range(&iova, &length);
	cmd.iova = iova;
	cmd.length = length;
	cmd.page_size = 1ull << below(13);
	cmd.data = (uintptr_t)at + PAGE - below(percent(50) ? 20 : PAGE);
	say(IOMMU_HWPT_GET_DIRTY_BITMAP, &cmd, "odd bitmap %u %x %llx %llx by %llx at %llx hole %d", cmd.hwpt_id, cmd.flags, (LONG)cmd.iova,
	    (LONG)cmd.length, (LONG)cmd.page_size, (LONG)cmd.data, count ? access : -1);
	mprotect(hole, PAGE, PROT_READ | PROT_WRITE);
	for (unsigned i = 0; i < 3 * PAGE; i++)
		sum = sum * 31 + (uint8_t)at[i];
	printf(" %llx", (LONG)sum);
	mmap(at, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}
