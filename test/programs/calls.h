#ifndef CALLS_H
#define CALLS_H
/*
 * Numbers of /dev/iommu and of its mock driver for the clients here, which have to compile where the system's headers are older
 * (include/uapi/linux/iommufd.h, drivers/iommu/iommufd/iommufd_test.h), and how a case is told.
 */
#include <errno.h>
#include <stdio.h>

#define DESTROY 0x3b80
#define IOAS_ALLOC 0x3b81
#define IOAS_MAP 0x3b85
#define HWPT_ALLOC 0x3b89
#define GET_HW_INFO 0x3b8a
#define FAULT_QUEUE_ALLOC 0x3b8e
#define IOAS_MAP_FILE 0x3b8f
#define VIOMMU_ALLOC 0x3b90
#define VDEVICE_ALLOC 0x3b91
#define VEVENTQ_ALLOC 0x3b93
#define TEST_CMD 0x3ba0

/* operations of TEST_CMD */
#define MOCK_DOMAIN 2
#define CREATE_ACCESS 5
#define MOCK_DOMAIN_REPLACE 10
#define TRIGGER_IOPF 15
#define TRIGGER_VEVENT 17
#define DMABUF_GET 22

#define NEST_PARENT 1
#define FAULT_ID_VALID 4
#define DATA_SELFTEST 0xdead
#define VIOMMU_SELFTEST 0xdeadbeef
#define VEVENTQ_SELFTEST 0xbeefbeef

#define PAGE 4096

/* A case and what it answers: a result, or the negative errno. Told at once: a child may come. */
static inline long say(const char *what, long result)
{
	printf("%s: %ld\n", what, result < 0 ? -errno : result);
	fflush(stdout);
	return result;
}

#endif
