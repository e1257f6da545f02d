#ifndef CORNERS_H
#define CORNERS_H
/*
 * What the steps of corners share: what has been made so far, and random choices among it. Every choice comes from one
 * generator, so that a seed stands for one program.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <linux/iommufd.h>
#include "iommufd_test.h"

#define PAGE 4096ull
#define BUFFER ((char *)0x300000000000ull)
#define BUFFER_SIZE (1u << 20)
#define SHARED ((char *)0x310000000000ull)
#define EDGE ((char *)0x320000000000ull) /* two pages, nothing behind them */
#define GROUND ((char *)0x330000000000ull) /* pages whose mappings change */
#define GROUND_PAGES 16
#define MANY 48
#define LONG unsigned long long

enum kind { IOAS, STDEV, IDEV, PARENT, PAGING, NESTED, FAULT, VIOMMU, VDEVICE, VEVENTQ, HWQUEUE, ACCESS, KINDS };

/* Objects, with the file of those that have one, else -1. */
extern struct known {
	uint32_t ids[MANY];
	int fds[MANY], count;
} known[KINDS];
extern int iommufd, null_file, is_poor;
extern uint64_t state;

uint64_t draw(void);
uint64_t below(uint64_t n);
int percent(unsigned p);
void note(enum kind kind, uint32_t id, int file);
void note_range(uint64_t iova, uint64_t length);
void forget(uint32_t id);
uint32_t one_of(enum kind kind);
int file_of(enum kind kind);
uint64_t some_iova(void);
uint64_t some_length(void);
int mapped_range(uint64_t *iova, uint64_t *length);
uint64_t some_window(void);
uint64_t window_of(uint64_t *offset);
int told(int result);
void look_at(const char *what, int file);
int say(unsigned long number, void *argument, const char *format, ...);
struct iommu_test_cmd test(uint32_t op, uint32_t id);

/* A step prints itself and its outcome, without a line end; or nothing, where it is not possible now. */
struct step {
	void (*run)(void);
	int weight;
};

void alloc_ioas(void);
void map(void);
void unmap(void);
void option(void);
void change_process(void);
void limit_memory(void);
void new_memfd(void);
void grow_memfd(void);
void map_memfd(void);
void change_ground(void);
void map_ground(void);
void get_dmabuf(void);
void map_file(void);
void withdraw(void);
void close_dmabuf(void);
void alloc_access(void);
void close_access(void);
void access_bytes(void);
void set_dirty(void);
void make_dirty(void);
void get_dirty(void);
void device(void);
void replace(void);
void destroy(void);
void alloc_hwpt(void);
void hw_info(void);
void alloc_viommu(void);
void show_window(void);
void drop_window(void);
void alloc_vdevice(void);
void invalidate(void);
void check_cache(void);
void alloc_queue(void);
void alloc_fault(void);
void page_fault(void);
void read_faults(void);
void write_answers(void);
void look(void);
void alloc_veventq(void);
void event(void);
void read_events(void);
void write_events(void);
void vfio_ioas(void);
void vfio_ask(void);
void vfio_info(void);
void vfio_map(void);
void vfio_unmap(void);
void vfio_other(void);
void copy(void);
void check_map(void);
void look_at_process(void);
void look_at_memory(void);
void share_memory(void);
void look_at_files(void);
void open_oddly(void);
uint32_t ready_device(void);
uint32_t ready_table(void);
int ready_range(uint64_t *iova, uint64_t *length);
void make_queues(void);
void make_tracked(void);
void answer_nowhere(void);
void few_places(void);
void watch_queue(void);
void look_for_edges(void);
void show_piece(void);
void drop_piece(void);
void map_piece(void);
void change_limits(void);
void odd_bitmap(void);
void map_oddly(void);
void change_context(void);
void odd_test(void);

#endif
