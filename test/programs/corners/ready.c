/*
 * Steps that put together what random choices hardly ever do: a device whose faults and events reach a queue, a page table
 * that tracks writes. What comes after prefers them.
 */
#include "corners.h"

static struct {
	uint32_t ioas, stdev, idev, parent, viommu, tracked;
	uint64_t iova, length;
} ready;

/* One of what is ready, mostly, where there is something. */
uint32_t ready_device(void)
{
	return ready.idev && percent(75) ? ready.idev : one_of(IDEV);
}

uint32_t ready_table(void)
{
	return ready.tracked && percent(75) ? ready.tracked : one_of(PAGING);
}

int ready_range(uint64_t *iova, uint64_t *length)
{
	if (!ready.length || percent(30))
		return 0;
	uint64_t from = percent(60) ? 0 : below(ready.length / PAGE);

	*iova = ready.iova + from * PAGE;
	*length = percent(50) ? ready.length - from * PAGE : PAGE * (1 + below(ready.length / PAGE - from));
	return 1;
}

static int make_base(void)
{
	struct iommu_ioas_alloc ioas = { .size = sizeof(ioas) };

	if (say(IOMMU_IOAS_ALLOC, &ioas, "ready: ioas") < 0)
		return -1;
	note(IOAS, ready.ioas = ioas.out_ioas_id, -1);
	struct iommu_test_cmd device = test(IOMMU_TEST_OP_MOCK_DOMAIN, ready.ioas);

	if (say(IOMMU_TEST_CMD, &device, ", device") < 0)
		return -1;
	note(STDEV, ready.stdev = device.mock_domain.out_stdev_id, -1);
	note(IDEV, ready.idev = device.mock_domain.out_idev_id, -1);
	note(PAGING, device.mock_domain.out_hwpt_id, -1);
	printf(" %u %u", ready.stdev, ready.idev);
	return 0;
}

static int attach(uint32_t to)
{
	struct iommu_test_cmd cmd = test(IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, ready.stdev);

	cmd.mock_domain_replace.pt_id = to;
	return say(IOMMU_TEST_CMD, &cmd, ", attach to %u", to);
}

/* Faults and events of a new device, or of the one that is ready, get queues. */
void make_queues(void)
{
	struct iommu_hwpt_selftest data = { .iotlb = IOMMU_TEST_IOTLB_DEFAULT };
	struct iommu_hwpt_alloc hwpt = { .size = sizeof(hwpt), .flags = IOMMU_HWPT_ALLOC_NEST_PARENT };
	struct iommu_viommu_alloc viommu = { .size = sizeof(viommu), .type = IOMMU_VIOMMU_TYPE_SELFTEST };
	struct iommu_vdevice_alloc vdevice = { .size = sizeof(vdevice), .virt_id = 1 + below(4) };
	struct iommu_fault_alloc fault = { .size = sizeof(fault) };
	struct iommu_veventq_alloc events = { .size = sizeof(events), .type = IOMMU_VEVENTQ_TYPE_SELFTEST, .veventq_depth = 1 + below(4) };

	if (known[FAULT].count > 8 || known[VEVENTQ].count > 8 || make_base() < 0)
		return;
	hwpt.dev_id = ready.idev;
	hwpt.pt_id = ready.ioas;
	if (say(IOMMU_HWPT_ALLOC, &hwpt, ", parent") < 0)
		return;
	note(PARENT, ready.parent = hwpt.out_hwpt_id, -1);
	viommu.dev_id = ready.idev;
	viommu.hwpt_id = ready.parent;
	if (say(IOMMU_VIOMMU_ALLOC, &viommu, ", viommu") < 0)
		return;
	note(VIOMMU, ready.viommu = viommu.out_viommu_id, -1);
	vdevice.viommu_id = ready.viommu;
	vdevice.dev_id = ready.idev;
	if (!say(IOMMU_VDEVICE_ALLOC, &vdevice, ", vdevice as %llx", (LONG)vdevice.virt_id))
		note(VDEVICE, vdevice.out_vdevice_id, -1);
	if (!say(IOMMU_FAULT_QUEUE_ALLOC, &fault, ", fault queue")) {
		if (percent(80))
			fcntl(fault.out_fault_fd, F_SETFL, O_NONBLOCK);
		note(FAULT, fault.out_fault_id, fault.out_fault_fd);
	}
	events.viommu_id = ready.viommu;
	if (!say(IOMMU_VEVENTQ_ALLOC, &events, ", events")) {
		fcntl(events.out_veventq_fd, F_SETFL, O_NONBLOCK);
		note(VEVENTQ, events.out_veventq_id, events.out_veventq_fd);
	}
	for (int i = 0; i < 2; i++) {
		struct iommu_hwpt_alloc nested = { .size = sizeof(nested), .dev_id = ready.idev, .pt_id = percent(85) ? ready.viommu : ready.parent,
						   .data_type = IOMMU_HWPT_DATA_SELFTEST, .data_len = sizeof(data),
						   .data_uptr = (uintptr_t)&data };

		if (percent(80)) {
			nested.flags = IOMMU_HWPT_FAULT_ID_VALID;
			nested.fault_id = fault.out_fault_id;
		}
		if (say(IOMMU_HWPT_ALLOC, &nested, ", nested") < 0)
			continue;
		note(NESTED, nested.out_hwpt_id, -1);
		attach(nested.out_hwpt_id);
	}
}

/* Writes through a new page table are tracked. */
void make_tracked(void)
{
	struct iommu_hwpt_selftest data = { .pagetable_type = MOCK_IOMMUPT_HUGE };
	struct iommu_hwpt_alloc hwpt = { .size = sizeof(hwpt), .flags = IOMMU_HWPT_ALLOC_DIRTY_TRACKING };
	struct iommu_hwpt_set_dirty_tracking track = { .size = sizeof(track), .flags = 1 };
	int large = percent(30);

	if (make_base() < 0)
		return;
	/* Whether small pages lie beside each other, and make one leaf, is chance. */
	struct iommu_option small = { .size = sizeof(small), .option_id = IOMMU_OPTION_HUGE_PAGES, .object_id = ready.ioas };

	say(IOMMU_OPTION, &small, ", small pages");
	hwpt.dev_id = ready.idev;
	hwpt.pt_id = ready.ioas;
	if (large) {
		hwpt.data_type = IOMMU_HWPT_DATA_SELFTEST;
		hwpt.data_len = sizeof(data);
		hwpt.data_uptr = (uintptr_t)&data;
	}
	if (say(IOMMU_HWPT_ALLOC, &hwpt, ", tracked %d", large) < 0)
		return;
	note(PAGING, ready.tracked = hwpt.out_hwpt_id, -1);
	attach(ready.tracked);
	ready.iova = (1 << 24) + below(64) * 8 * PAGE;
	ready.length = 0;
	for (int i = 0; i < 3; i++) {
		struct iommu_ioas_map map = { .size = sizeof(map), .flags = 7, .ioas_id = ready.ioas, .user_va = (uintptr_t)SHARED + below(64) * PAGE,
					      .length = PAGE * (1 + below(16)), .iova = ready.iova + ready.length };

		if (percent(10))
			map.iova += PAGE;
		if (say(IOMMU_IOAS_MAP, &map, ", map %llx %llx", (LONG)map.iova, (LONG)map.length) < 0)
			continue;
		note_range(map.iova, map.length);
		ready.length += map.length;
	}
	track.hwpt_id = ready.tracked;
	say(IOMMU_HWPT_SET_DIRTY_TRACKING, &track, ", track");
}
