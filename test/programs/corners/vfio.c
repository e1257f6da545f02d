/* Steps about VFIO's calls on /dev/iommu. */
#include "corners.h"
#include <linux/vfio.h>

void vfio_ioas(void)
{
	struct iommu_vfio_ioas cmd = { .size = sizeof(cmd), .ioas_id = one_of(IOAS), .op = below(percent(95) ? 3 : 6) };

	cmd.__reserved = percent(2);
	say(IOMMU_VFIO_IOAS, &cmd, "vfio ioas %u %u", cmd.op, cmd.ioas_id);
	printf(" %u", cmd.ioas_id);
}

void vfio_ask(void)
{
	unsigned long extension = percent(90) ? below(14) : draw();
	int type = percent(80) ? 1 + 2 * below(2) : below(12);

	switch (below(3)) {
	case 0:
		say(VFIO_GET_API_VERSION, NULL, "vfio version");
		break;
	case 1:
		say(VFIO_CHECK_EXTENSION, (void *)extension, "vfio extension %lx", extension);
		break;
	case 2:
		say(VFIO_SET_IOMMU, (void *)(long)type, "vfio type %d", type);
	}
}

void vfio_info(void)
{
	static union {
		struct vfio_iommu_type1_info info;
		uint32_t words[64];
	} u;
	uint32_t size = percent(60) ? 24 + 8 * below(20) : below(200);

	memset(&u, 0, sizeof(u));
	u.info.argsz = size;
	u.info.flags = below(2) ? 0 : below(8);
	if (say(VFIO_IOMMU_GET_INFO, &u, "vfio info %u", size) < 0)
		return;
	for (uint32_t i = 0; i < 64 && 4 * i < (size < u.info.argsz ? u.info.argsz : size); i++)
		printf(" %x", u.words[i]);
}

void vfio_map(void)
{
	struct vfio_iommu_type1_dma_map cmd = { .argsz = percent(93) ? sizeof(cmd) : below(64), .size = some_length() };

	cmd.flags = percent(92) ? 1 + below(3) : below(16);
	cmd.vaddr = (uintptr_t)(percent(70) ? BUFFER : SHARED) + below(32) * PAGE;
	cmd.iova = some_iova();
	if (say(VFIO_IOMMU_MAP_DMA, &cmd, "vfio map %u %x %llx %llx at %llx", cmd.argsz, cmd.flags, (LONG)cmd.vaddr, (LONG)cmd.size,
		(LONG)cmd.iova))
		return;
	note_range(cmd.iova, cmd.size);
}

void vfio_unmap(void)
{
	struct vfio_iommu_type1_dma_unmap cmd = { .argsz = percent(93) ? sizeof(cmd) : below(64) };

	cmd.flags = percent(85) ? 0 : percent(60) ? VFIO_DMA_UNMAP_FLAG_ALL : below(8);
	uint64_t iova = 0, size = 0;

	if (!mapped_range(&iova, &size) && percent(60)) {
		iova = some_iova();
		size = some_length();
	}
	cmd.iova = iova;
	cmd.size = size;
	say(VFIO_IOMMU_UNMAP_DMA, &cmd, "vfio unmap %u %x %llx %llx", cmd.argsz, cmd.flags, (LONG)cmd.iova, (LONG)cmd.size);
	printf(" %llx", (LONG)cmd.size);
}

void vfio_other(void)
{
	static uint32_t words[32];

	words[0] = 8 + below(64);
	say(_IO(VFIO_TYPE, VFIO_BASE + below(32)), words, "vfio other");
}
