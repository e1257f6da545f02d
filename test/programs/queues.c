/*
 * A client that reads, writes and polls fault and event queues in every way that a file without positions has, and maps a
 * window wrongly. Each line is a case and what it answers: a result, or the negative errno.
 *
 * usage: queues
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>
#include "calls.h"

#define FAULT_SIZE 40
#define EVENT_SIZE 12

static int iommufd;
/* where no buffer can be; the compiler must not know */
static void *volatile nowhere = (void *)8, *volatile kernel = (void *)0xffff800000000000ull;

static void ask(unsigned long number, uint32_t *words)
{
	if (ioctl(iommufd, number, words) < 0)
		printf("ioctl %lx: %s\n", number, strerror(errno));
}

static short events_of(int file)
{
	struct pollfd at = { file, POLLIN | POLLOUT, 0 };

	poll(&at, 1, 0);
	return at.revents;
}

static void page_fault(uint32_t device, uint32_t group)
{
	uint32_t words[18] = { 72, TRIGGER_IOPF, 0, 0, device, ~0u, group, 1 };

	ask(TEST_CMD, words);
}

static void use_faults(int file, uint32_t device)
{
	static uint32_t faults[4 * FAULT_SIZE / 4], answers[4];
	struct iovec pieces[3] = { { faults, FAULT_SIZE }, { faults + 10, 0 }, { faults + 20, FAULT_SIZE } };

	printf("faults to poll: %x\n", events_of(file));
	for (uint32_t group = 1; group < 5; group++)
		page_fault(device, group);
	printf("faults to poll: %x\n", events_of(file));
	say("pread", pread(file, faults, FAULT_SIZE, 0));
	say("pread of a negative position", pread(file, faults, FAULT_SIZE, -1));
	say("preadv2 without a position", preadv2(file, pieces, 0, -1, 0));
	say("odd size", read(file, nowhere, FAULT_SIZE + 1));
	say("nothing", read(file, faults, 0));
	say("nowhere", read(file, nowhere, FAULT_SIZE));
	say("to the kernel", read(file, kernel, FAULT_SIZE));
	say("two pieces", readv(file, pieces, 3));
	printf("cookies %u and %u\n", faults[9], faults[29]);
	pieces[2].iov_base = nowhere;
	say("second piece nowhere", readv(file, pieces, 3));
	printf("cookie %u\n", faults[9]);
	say("with flags", preadv2(file, pieces, 1, -1, RWF_NOWAIT));
	say("what is left", read(file, faults, sizeof(faults)));
	printf("cookie %u\n", faults[9]);
	say("odd answer from nowhere", write(file, nowhere, 7));
	say("answer from nowhere", write(file, nowhere, 8));
	answers[0] = 1;
	say("answers to 1 and 0", write(file, answers, 16));
	page_fault(device, 6);
	say("one more", read(file, faults, FAULT_SIZE));
	printf("cookie %u\n", faults[9]);
	say("pwrite", pwrite(file, answers, 8, 0));
}

static void use_events(int file, uint32_t device)
{
	static uint32_t events[4 * EVENT_SIZE / 4];
	uint32_t words[18] = { 72, TRIGGER_VEVENT, 0, 0, device };

	printf("events to poll: %x\n", events_of(file));
	for (int i = 0; i < 2; i++)
		ask(TEST_CMD, words);
	printf("events to poll: %x\n", events_of(file));
	say("event nowhere", read(file, nowhere, EVENT_SIZE));
	say("pread of an event", pread(file, events, EVENT_SIZE, 4));
	say("less than a header", read(file, events, 7));
	say("less than an event", read(file, events, EVENT_SIZE - 1));
	say("events", read(file, events, sizeof(events)));
	printf("sequence %u and %u of %x\n", events[1], events[4], events[5]);
	say("write to events", write(file, events, EVENT_SIZE));
}

static void show_window(uint64_t offset, uint64_t length)
{
	void *at = mmap(NULL, length, PROT_READ, MAP_PRIVATE, iommufd, offset);

	say("private window", at == MAP_FAILED ? -1 : 0);
	say("empty window", mmap(NULL, 0, PROT_READ, MAP_SHARED, iommufd, offset) == MAP_FAILED ? -1 : 0);
	at = mmap(NULL, length - 7, PROT_READ, MAP_SHARED, iommufd, offset);
	say("window in odd bytes", at == MAP_FAILED ? -1 : 0);
}

int main(void)
{
	static uint64_t data[3];
	uint32_t ioas[3] = { 12 }, device[18] = { 72, MOCK_DOMAIN }, queue[4] = { 16 };
	uint32_t parent[12] = { 48, NEST_PARENT }, nested[12] = { 48, FAULT_ID_VALID }, viommu[10] = { 40, 0, VIOMMU_SELFTEST };
	uint32_t vdevice[6] = { 24 }, events[8] = { 32 }, replace[18] = { 72, MOCK_DOMAIN_REPLACE };

	iommufd = open("/dev/iommu", O_RDWR);
	ask(IOAS_ALLOC, ioas);
	device[2] = ioas[2];
	ask(TEST_CMD, device);
	ask(FAULT_QUEUE_ALLOC, queue);
	fcntl(queue[3], F_SETFL, O_NONBLOCK);
	parent[2] = device[6];
	parent[3] = ioas[2];
	ask(HWPT_ALLOC, parent);
	viommu[3] = device[6];
	viommu[4] = parent[4];
	viommu[6] = sizeof(data);
	memcpy(viommu + 8, &(uint64_t){ (uintptr_t)data }, 8);
	ask(VIOMMU_ALLOC, viommu);
	vdevice[1] = viommu[5];
	vdevice[2] = device[6];
	vdevice[4] = 0x99;
	ask(VDEVICE_ALLOC, vdevice);
	events[2] = viommu[5];
	events[3] = VEVENTQ_SELFTEST;
	events[4] = 8;
	ask(VEVENTQ_ALLOC, events);
	fcntl(events[6], F_SETFL, O_NONBLOCK);
	nested[2] = device[6];
	nested[3] = viommu[5];
	nested[6] = DATA_SELFTEST;
	nested[7] = 8;
	memcpy(nested + 8, &(uint64_t){ (uintptr_t)(uint64_t[1]){ 0 } }, 8);
	nested[10] = queue[2];
	ask(HWPT_ALLOC, nested);
	replace[2] = device[4];
	replace[4] = nested[4];
	ask(TEST_CMD, replace);
	use_faults(queue[3], device[6]);
	use_events(events[6], device[6]);
	show_window(data[1], data[2]);
	return 0;
}
