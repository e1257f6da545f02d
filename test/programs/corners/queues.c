/* Steps about fault and event queues: what is put into them, and all ways to read and write them. */
#include <poll.h>
#include "corners.h"

static uint32_t cookies[16];
static int cookie_count;

void alloc_fault(void)
{
	struct iommu_fault_alloc cmd = { .size = sizeof(cmd), .flags = percent(3) };

	if (known[FAULT].count < 6 && !say(IOMMU_FAULT_QUEUE_ALLOC, &cmd, "fault queue")) {
		printf(" %u", cmd.out_fault_id);
		fcntl(cmd.out_fault_fd, F_SETFL, O_NONBLOCK);
		note(FAULT, cmd.out_fault_id, cmd.out_fault_fd);
	}
}

void page_fault(void)
{
	struct iommu_test_cmd cmd = test(IOMMU_TEST_OP_TRIGGER_IOPF, 0);

	cmd.trigger_iopf.dev_id = ready_device();
	cmd.trigger_iopf.pasid = percent(80) ? ~0u : (uint32_t)below(4);
	cmd.trigger_iopf.grpid = below(16);
	cmd.trigger_iopf.perm = below(16);
	cmd.trigger_iopf.addr = draw() >> below(60);
	say(IOMMU_TEST_CMD, &cmd, "page fault of %u %x", cmd.trigger_iopf.dev_id, cmd.trigger_iopf.pasid);
}

void read_faults(void)
{
	static struct iommu_hwpt_pgfault faults[8];
	int file = file_of(FAULT);
	size_t count = percent(70) ? (1 + below(4)) * sizeof(faults[0]) : below(sizeof(faults));
	void *to = percent(95) ? (void *)faults : percent(50) ? (void *)8 : EDGE + 2 * PAGE - 24;

	if (file < 0)
		return;
	printf("read faults %zu%s", count, to == faults ? "" : " elsewhere");
	int got = told(percent(93) ? read(file, to, count) : pread(file, to, count, below(2) * 8));

	for (int i = 0; to == faults && got > 0 && i < got / (int)sizeof(faults[0]); i++) {
		printf(" (%x %u %x %u %x %llx %u %u)", faults[i].flags, faults[i].dev_id, faults[i].pasid, faults[i].grpid,
		       faults[i].perm, (LONG)faults[i].addr, faults[i].length, faults[i].cookie);
		cookies[cookie_count++ % 16] = faults[i].cookie;
	}
}

void write_answers(void)
{
	struct iommu_hwpt_page_response answers[4];
	int file = file_of(FAULT), n = 1 + below(3);
	size_t count = percent(80) ? n * sizeof(answers[0]) : below(sizeof(answers));

	for (int i = 0; i < 4; i++) {
		answers[i].cookie = percent(90) && cookie_count ? cookies[below(cookie_count < 16 ? cookie_count : 16)] : below(9);
		answers[i].code = percent(90) ? below(2) : below(5);
	}
	if (file < 0)
		return;
	printf("answer %zu (%u %u) (%u %u)", count, answers[0].cookie, answers[0].code, answers[1].cookie, answers[1].code);
	told(write(file, percent(96) ? (void *)answers : (void *)8, count));
}

void look(void)
{
	int events = percent(50), file = file_of(events ? VEVENTQ : FAULT);
	struct pollfd at = { file, POLLIN | POLLOUT | POLLPRI, 0 };

	if (file < 0)
		return;
	poll(&at, 1, 0);
	printf("poll %s = %x", events ? "events" : "faults", at.revents);
}

void alloc_veventq(void)
{
	struct iommu_veventq_alloc cmd = { .size = sizeof(cmd), .viommu_id = one_of(VIOMMU) };

	cmd.type = percent(92) ? IOMMU_VEVENTQ_TYPE_SELFTEST : below(4);
	cmd.veventq_depth = percent(90) ? 1 + below(4) : percent(50) ? 0 : (uint32_t)draw() % 0x2000000;
	cmd.flags = percent(2);
	if (known[VEVENTQ].count < 6 &&
	    !say(IOMMU_VEVENTQ_ALLOC, &cmd, "veventq on %u type %x depth %u", cmd.viommu_id, cmd.type, cmd.veventq_depth)) {
		printf(" %u", cmd.out_veventq_id);
		fcntl(cmd.out_veventq_fd, F_SETFL, O_NONBLOCK);
		note(VEVENTQ, cmd.out_veventq_id, cmd.out_veventq_fd);
	}
}

void event(void)
{
	int n = 1 + below(4);

	for (int i = 0; i < n; i++) {
		struct iommu_test_cmd cmd = test(IOMMU_TEST_OP_TRIGGER_VEVENT, 0);

		cmd.trigger_vevent.dev_id = ready_device();
		say(IOMMU_TEST_CMD, &cmd, "%sevent of %u", i ? ", " : "", cmd.trigger_vevent.dev_id);
	}
}

void read_events(void)
{
	static unsigned char bytes[96];
	int file = file_of(VEVENTQ);
	size_t count = percent(60) ? 12 * (1 + below(6)) : below(sizeof(bytes));
	void *to = percent(95) ? (void *)bytes : percent(50) ? (void *)8 : EDGE + 2 * PAGE - 10;

	if (file < 0)
		return;
	printf("read events %zu%s", count, to == bytes ? "" : " elsewhere");
	memset(bytes, 0xee, sizeof(bytes));
	int got = told(percent(93) ? read(file, to, count) : pread(file, to, count, below(2) * 4));

	for (int i = 0; to == bytes && i < got; i += 4)
		printf(" %x", *(uint32_t *)(bytes + i));
}

void write_events(void)
{
	int file = file_of(VEVENTQ);

	if (file < 0)
		return;
	printf("write events");
	told(write(file, BUFFER, below(24)));
}
