/*
 * A client whose files and windows are held in unusual ways: a full table, a low limit, structs that cannot be written, windows
 * that a child inherited or of which a page is left, edges of epoll, splices, names of dma-bufs. Each line is a case and what
 * it answers: a result, or the negative errno.
 *
 * usage: holders
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include "calls.h"

#define DMA_BUF_SYNC 0x40086200
#define DMA_BUF_SET_NAME 0x40086201

static int iommufd;
static uint32_t ioas[3] = { 12 }, device[18] = { 72, MOCK_DOMAIN }, viommu[10] = { 40, 0, VIOMMU_SELFTEST };
static uint64_t window[3];

static int ask(unsigned long number, void *words)
{
	return ioctl(iommufd, number, words);
}

static long destroy(uint32_t id)
{
	return ask(DESTROY, (uint32_t[2]){ 8, id });
}

static int count_files(void)
{
	int count = 0;

	for (int number = 0; number < 4096; number++)
		count += fcntl(number, F_GETFD) >= 0;
	return count;
}

static void set_up(void)
{
	uint32_t parent[12] = { 48, NEST_PARENT };

	iommufd = open("/dev/iommu", O_RDWR);
	ask(IOAS_ALLOC, ioas);
	device[2] = ioas[2];
	ask(TEST_CMD, device);
	parent[2] = device[6];
	parent[3] = ioas[2];
	ask(HWPT_ALLOC, parent);
	viommu[3] = device[6];
	viommu[4] = parent[4];
	viommu[6] = sizeof(window);
	memcpy(viommu + 8, &(uint64_t){ (uintptr_t)window }, 8);
	say("vIOMMU", ask(VIOMMU_ALLOC, viommu));
}

/* Queues and accesses in a table that takes nothing more, or that was told to stay small. */
static void full_table(void)
{
	uint32_t queue[4] = { 16 }, events[8] = { 32, 0, viommu[5], VEVENTQ_SELFTEST, 8 }, access[18] = { 72, CREATE_ACCESS, ioas[2] };
	uint32_t info[10] = { 40, 0, device[6] }, early[4] = { 16 };
	char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct rlimit limit, low;
	int first, last;

	getrlimit(RLIMIT_NOFILE, &limit);
	low = limit;
	low.rlim_cur = 256;
	setrlimit(RLIMIT_NOFILE, &low);
	ask(FAULT_QUEUE_ALLOC, early);
	memcpy(page, queue, sizeof(queue));
	mprotect(page, PAGE, PROT_READ);
	first = last = dup(iommufd);
	for (int next = last; next >= 0; next = dup(iommufd))
		last = next;
	say("queue in a full table", ask(FAULT_QUEUE_ALLOC, queue));
	say("event queue in a full table", ask(VEVENTQ_ALLOC, events));
	say("access in a full table", ask(TEST_CMD, access));
	say("queue in a full table, and no place for the answer", ask(FAULT_QUEUE_ALLOC, page));
	say("copy of a queue in a full table", dup(early[3]));
	say("copy from a number on", fcntl(early[3], F_DUPFD, 255));
	for (int number = first; number <= last; number++)
		close(number);
	int copies = 0;

	while (copies < 300 && dup(early[3]) >= 0)
		copies++;
	printf("copies end below the limit: %d\n", copies < 256);
	for (int number = 3; number < 2048; number++)
		if (number != iommufd && number != (int)early[3])
			close(number);
	say("queue with a low limit", ask(FAULT_QUEUE_ALLOC, queue));
	say("it has nothing", read(queue[3], window, 0));
	say("destroy while open", destroy(queue[2]));
	close(queue[3]);
	say("destroy", destroy(queue[2]));
	setrlimit(RLIMIT_NOFILE, &limit);
	say("the device is still there", ask(GET_HW_INFO, info));
	say("event queue", ask(VEVENTQ_ALLOC, events));
	say("destroy its vIOMMU", destroy(viommu[5]));
	close(events[6]);
	say("destroy event queue", destroy(events[5]));
}

static void read_only_structs(void)
{
	uint32_t structs[3][18] = { { 16 }, { 32, 0, viommu[5], VEVENTQ_SELFTEST, 8 }, { 72, CREATE_ACCESS, ioas[2] } };
	unsigned long numbers[3] = { FAULT_QUEUE_ALLOC, VEVENTQ_ALLOC, TEST_CMD };
	char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int before = count_files();

	for (int i = 0; i < 3; i++) {
		mprotect(page, PAGE, PROT_READ | PROT_WRITE);
		memcpy(page, structs[i], sizeof(structs[i]));
		mprotect(page, PAGE, PROT_READ);
		say("answer that cannot be written", ask(numbers[i], page));
		say("files more", count_files() - before);
	}
}

static void windows(void)
{
	uint32_t map[10] = { 40, 7, ioas[2] }, map_file[12] = { 48, 7, ioas[2], iommufd };
	volatile uint32_t *at = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, iommufd, window[1]), *again;
	int status, ends[2];
	char byte;

	at[0] = 55;
	at[PAGE / 4] = 66;
	again = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, iommufd, window[1]);
	printf("second window: %u %u, first %u %u\n", again[0], again[PAGE / 4], at[0], at[PAGE / 4]);
	memcpy(map + 4, &(uint64_t[3]){ (uintptr_t)at, PAGE, 1 << 24 }, 24);
	say("map a window", ask(IOAS_MAP, map));
	memcpy(map_file + 4, &(uint64_t[3]){ 0, PAGE, 1 << 25 }, 24);
	say("map the device's own file", ask(IOAS_MAP_FILE, map_file));
	munmap((void *)again, 2 * PAGE);
	munmap((void *)at, PAGE);
	say("destroy with a page mapped", destroy(viommu[5]));
	pipe(ends);
	fflush(stdout);
	if (fork() == 0) {
		close(ends[1]);
		read(ends[0], &byte, 1);
		_exit(0);
	}
	close(ends[0]);
	munmap((char *)at + PAGE, PAGE);
	say("destroy with a page mapped by a child", destroy(viommu[5]));
	close(ends[1]);
	wait(&status);
	again = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, iommufd, window[1]);
	printf("third window: %u %u\n", again[0], again[PAGE / 4]);
	munmap((void *)again, 2 * PAGE);
}

static void event(void)
{
	uint32_t words[18] = { 72, TRIGGER_VEVENT, 0, 0, device[6] };

	ask(TEST_CMD, words);
}

static void queue_files(void)
{
	uint32_t vdevice[6] = { 24, viommu[5], device[6], 0, 0x99 }, events[8] = { 32, 0, viommu[5], VEVENTQ_SELFTEST, 8 };
	uint32_t nested[12] = { 48, 0, device[6], viommu[5], 0, 0, DATA_SELFTEST, 8 }, replace[18] = { 72, MOCK_DOMAIN_REPLACE, device[4] };
	struct epoll_event wanted = { .events = EPOLLIN | EPOLLET }, found;
	int epoll = epoll_create1(0), ends[2], pending;
	char bytes[64];

	ask(VDEVICE_ALLOC, vdevice);
	memcpy(nested + 8, &(uint64_t){ (uintptr_t)(uint64_t[1]){ 0 } }, 8);
	ask(HWPT_ALLOC, nested);
	replace[4] = nested[4];
	ask(TEST_CMD, replace);
	say("event queue", ask(VEVENTQ_ALLOC, events));
	fcntl(events[6], F_SETFL, O_NONBLOCK);
	say("watch", epoll_ctl(epoll, EPOLL_CTL_ADD, events[6], &wanted));
	for (int i = 0; i < 3; i++) {
		event();
		say("edge", epoll_wait(epoll, &found, 1, 0));
		say("no edge", epoll_wait(epoll, &found, 1, 0));
	}
	char *two = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec *last = (struct iovec *)(two + PAGE) - 1;

	munmap(two + PAGE, PAGE);
	*last = (struct iovec){ bytes, -1 };
	say("pieces of which the first is negative, the second unreadable", readv(events[6], last, 2));
	last->iov_len = 12;
	say("pieces of which the second is unreadable", readv(events[6], last, 2));
	pipe(ends);
	say("splice", splice(events[6], NULL, ends[1], NULL, 12, SPLICE_F_NONBLOCK));
	say("tee", tee(events[6], ends[1], 12, SPLICE_F_NONBLOCK));
	say("vmsplice", vmsplice(events[6], &(struct iovec){ bytes, 8 }, 1, SPLICE_F_NONBLOCK));
	say("size of the pipe", fcntl(events[6], F_GETPIPE_SZ));
	say("bytes to read", ioctl(events[6], 0x541b, &pending));
	say("read of all", read(events[6], bytes, sizeof(bytes)));
	event();
	say("edge", epoll_wait(epoll, &found, 1, 0));
	say("copy far away", fcntl(events[6], F_DUPFD, 1 << 30));
	say("copy", fcntl(events[6], F_DUPFD, 1000) >= 1000);
}

static void dma_buf(void)
{
	uint32_t words[18] = { 72, DMABUF_GET, 0, 0, PAGE, O_CLOEXEC };
	uint64_t read_end = 5, nothing = 4, odd = 9;
	char link[64] = "", name[40];
	int next = dup(iommufd), file;

	close(next);
	file = ask(TEST_CMD, words);
	file = file > 0 ? file : next;
	say("sync", ioctl(file, DMA_BUF_SYNC, &read_end));
	say("sync of nothing", ioctl(file, DMA_BUF_SYNC, &nothing));
	say("odd sync", ioctl(file, DMA_BUF_SYNC, &odd));
	say("name", ioctl(file, DMA_BUF_SET_NAME, "guest"));
	say("long name", ioctl(file, DMA_BUF_SET_NAME, "a name of more than 31 characters"));
	say("no name", ioctl(file, DMA_BUF_SET_NAME, NULL));
	say("other ioctl", ioctl(file, 0x6207, NULL));
	snprintf(name, sizeof(name), "/proc/self/fd/%d", file);
	readlink(name, link, sizeof(link) - 1);
	printf("%s\n", link);
	say("write", write(file, name, 1));
	say("shorten", ftruncate(file, 0));
}

int main(void)
{
	set_up();
	full_table();
	read_only_structs();
	windows();
	queue_files();
	dma_buf();
	return 0;
}
