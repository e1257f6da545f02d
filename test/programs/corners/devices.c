/* Steps about devices, their page tables, and virtual IOMMUs with their windows and queues. */
#include "corners.h"

static struct {
	char *at;
	uint64_t length;
} windows[8];
static int window_count;
static uint64_t window_offset, window_length;

void device(void)
{
	struct iommu_test_cmd cmd = test(IOMMU_TEST_OP_MOCK_DOMAIN, one_of(IOAS));

	if (say(IOMMU_TEST_CMD, &cmd, "device %u", cmd.id) < 0)
		return;
	printf(" stdev %u hwpt %u idev %u", cmd.mock_domain.out_stdev_id, cmd.mock_domain.out_hwpt_id,
	       cmd.mock_domain.out_idev_id);
	note(STDEV, cmd.mock_domain.out_stdev_id, -1);
	note(IDEV, cmd.mock_domain.out_idev_id, -1);
	note(PAGING, cmd.mock_domain.out_hwpt_id, -1);
}

/* A HWPT, or sometimes the IOAS of one. */
static uint32_t page_table(void)
{
	static const enum kind kinds[] = { PARENT, PAGING, NESTED, IOAS };

	return one_of(kinds[below(4)]);
}

void replace(void)
{
	struct iommu_test_cmd cmd = test(IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, one_of(STDEV));
	uint32_t to = cmd.mock_domain_replace.pt_id = page_table();

	if (!say(IOMMU_TEST_CMD, &cmd, "replace %u by %u", cmd.id, to))
		printf(" now %u", cmd.mock_domain_replace.pt_id);
}

void destroy(void)
{
	struct iommu_destroy cmd = { .size = sizeof(cmd), .id = one_of(below(KINDS)) };

	if (!say(IOMMU_DESTROY, &cmd, "destroy %u", cmd.id))
		forget(cmd.id);
}

void alloc_hwpt(void)
{
	struct iommu_hwpt_selftest data = { .iotlb = IOMMU_TEST_IOTLB_DEFAULT };
	struct iommu_hwpt_alloc cmd = { .size = sizeof(cmd), .dev_id = one_of(IDEV) };
	int shape = below(4);
	enum kind kind = shape == 0 ? PARENT : shape == 1 ? PAGING : NESTED;

	if (kind == NESTED) {
		cmd.pt_id = one_of(shape == 2 ? PARENT : VIOMMU);
		cmd.data_type = percent(95) ? IOMMU_HWPT_DATA_SELFTEST : below(4);
		cmd.data_len = percent(95) ? sizeof(data) : below(20);
		cmd.data_uptr = (uintptr_t)&data;
	} else {
		cmd.pt_id = one_of(IOAS);
		cmd.flags = kind == PARENT ? IOMMU_HWPT_ALLOC_NEST_PARENT : below(4) & IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
	}
	if (percent(40)) {
		cmd.flags |= IOMMU_HWPT_FAULT_ID_VALID;
		cmd.fault_id = one_of(FAULT);
	}
	if (percent(3))
		cmd.flags |= 1 << below(6);
	if (percent(2))
		cmd.__reserved2 = 1;
	if (!say(IOMMU_HWPT_ALLOC, &cmd, "hwpt %x dev %u on %u type %x %u fault %u", cmd.flags, cmd.dev_id, cmd.pt_id,
		 cmd.data_type, cmd.data_len, cmd.fault_id)) {
		printf(" %u", cmd.out_hwpt_id);
		note(kind, cmd.out_hwpt_id, -1);
	}
}

void hw_info(void)
{
	static uint8_t data[64];
	struct iommu_hw_info cmd = { .size = sizeof(cmd), .dev_id = one_of(IDEV), .flags = below(percent(90) ? 2 : 8) };

	memset(data, 0xaa, sizeof(data));
	cmd.data_len = percent(50) ? 8 : below(40);
	cmd.data_uptr = percent(90) ? (uintptr_t)data : below(2) * 8;
	cmd.in_data_type = percent(60) ? 0 : percent(60) ? IOMMU_HW_INFO_TYPE_SELFTEST : below(4);
	uint32_t wanted = cmd.in_data_type, length = cmd.data_len;

	if (!say(IOMMU_GET_HW_INFO, &cmd, "info %u %x type %x %u", cmd.dev_id, cmd.flags, wanted, length))
		printf(" %u %x %u %llx %x %x %x", cmd.data_len, cmd.out_data_type, cmd.out_max_pasid_log2,
		       (LONG)cmd.out_capabilities, *(uint32_t *)data, *(uint32_t *)(data + 4), *(uint32_t *)(data + 8));
}

void alloc_viommu(void)
{
	struct iommu_viommu_selftest data = { .in_data = below(1000) };
	struct iommu_viommu_alloc cmd = { .size = sizeof(cmd), .dev_id = one_of(IDEV), .hwpt_id = one_of(PARENT) };

	cmd.type = percent(92) ? IOMMU_VIOMMU_TYPE_SELFTEST : below(4);
	if (percent(85)) {
		cmd.data_len = percent(92) ? sizeof(data) : below(40);
		cmd.data_uptr = (uintptr_t)&data;
	}
	if (percent(2))
		cmd.__reserved = 1;
	if (!say(IOMMU_VIOMMU_ALLOC, &cmd, "viommu %x dev %u on %u with %u", cmd.type, cmd.dev_id, cmd.hwpt_id, cmd.data_len)) {
		printf(" %u out %d window %llx", cmd.out_viommu_id, data.out_data == data.in_data,
		       (LONG)data.out_mmap_length);
		if (data.out_mmap_length) {
			window_offset = data.out_mmap_offset;
			window_length = data.out_mmap_length;
		}
		note(VIOMMU, cmd.out_viommu_id, -1);
	}
}

/* The window that was made last, and how long it is. */
uint64_t window_of(uint64_t *offset)
{
	*offset = window_offset;
	return window_length;
}

uint64_t some_window(void)
{
	return window_length ? window_offset : 1ull << 40;
}

void show_window(void)
{
	uint64_t length = percent(70) ? window_length : PAGE * below(4) + (percent(20) ? 1 : 0);
	int protection = percent(80) ? PROT_READ | PROT_WRITE : percent(50) ? PROT_READ : PROT_READ | PROT_EXEC;
	int flags = percent(85) ? MAP_SHARED : MAP_PRIVATE;

	if (!window_length || window_count == 8)
		return;
	char *at = mmap(NULL, length, protection, flags, iommufd, window_offset + (percent(88) ? 0 : PAGE));

	printf("window %llx %x %x", (LONG)length, protection, flags);
	if (told(at == MAP_FAILED ? -1 : 0) < 0)
		return;
	printf(" begins %x", *(volatile uint32_t *)at);
	windows[window_count].at = at;
	windows[window_count++].length = length;
}

void drop_window(void)
{
	if (!window_count)
		return;
	printf("drop window");
	window_count--;
	told(munmap(windows[window_count].at, windows[window_count].length));
}

void alloc_vdevice(void)
{
	struct iommu_vdevice_alloc cmd = { .size = sizeof(cmd), .viommu_id = one_of(VIOMMU), .dev_id = one_of(IDEV) };

	cmd.virt_id = percent(90) ? 1 + below(4) : draw() >> below(60);
	if (!say(IOMMU_VDEVICE_ALLOC, &cmd, "vdevice on %u of %u as %llx", cmd.viommu_id, cmd.dev_id, (LONG)cmd.virt_id)) {
		printf(" %u", cmd.out_vdevice_id);
		note(VDEVICE, cmd.out_vdevice_id, -1);
	}
}

void invalidate(void)
{
	struct iommu_viommu_invalidate_selftest entries[4];
	struct iommu_hwpt_invalidate cmd = { .size = sizeof(cmd), .hwpt_id = one_of(percent(70) ? VIOMMU : NESTED) };

	for (int i = 0; i < 4; i++) {
		entries[i].flags = percent(85) ? below(2) : below(4);
		entries[i].vdev_id = percent(90) ? 1 + below(4) : draw();
		entries[i].cache_id = below(6);
	}
	cmd.data_uptr = percent(96) ? (uintptr_t)entries : below(2) * 8;
	cmd.data_type = percent(92) ? IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST : percent(50) ? 0xdadbeef : (uint32_t)below(3);
	cmd.entry_len = percent(88) ? sizeof(entries[0]) : below(2) ? 8 : below(40);
	cmd.entry_num = below(5);
	cmd.__reserved = percent(2);
	say(IOMMU_HWPT_INVALIDATE, &cmd, "invalidate %u type %x %u*%u%s", cmd.hwpt_id, cmd.data_type, cmd.entry_num, cmd.entry_len,
	    cmd.data_uptr == (uintptr_t)entries ? "" : " nowhere");
	printf(" done %u", cmd.entry_num);
}

void check_cache(void)
{
	struct iommu_test_cmd cmd = test(IOMMU_TEST_OP_DEV_CHECK_CACHE, one_of(IDEV));

	cmd.check_dev_cache.id = below(4);
	cmd.check_dev_cache.cache = percent(50) ? 0 : IOMMU_TEST_DEV_CACHE_DEFAULT;
	say(IOMMU_TEST_CMD, &cmd, "cache %u of %u is %x", cmd.check_dev_cache.id, cmd.id, cmd.check_dev_cache.cache);
}

void alloc_queue(void)
{
	struct iommu_hw_queue_alloc cmd = { .size = sizeof(cmd), .viommu_id = one_of(VIOMMU), .index = below(3) };

	cmd.type = percent(93) ? IOMMU_HW_QUEUE_TYPE_SELFTEST : below(3);
	/* Never two pages: whether they lie beside each other is chance. */
	cmd.nesting_parent_iova = some_iova() & -PAGE;
	cmd.length = percent(92) ? 1 + below(PAGE) : below(2) ? 0 : -1ull;
	if (!say(IOMMU_HW_QUEUE_ALLOC, &cmd, "queue %u on %u at %llx %llx", cmd.index, cmd.viommu_id,
		 (LONG)cmd.nesting_parent_iova, (LONG)cmd.length)) {
		printf(" %u", cmd.out_hw_queue_id);
		note(HWQUEUE, cmd.out_hw_queue_id, -1);
	}
}
