/*
 * corners: a seeded random program of what lies at the edges of /dev/iommu: VFIO's calls, queues that are read and written
 * in odd sizes, virtual IOMMUs with their windows, dma-bufs and memfds, other processes and their limits, structs of any
 * size at the end of a page. It prints every step with its outcome and nothing that depends on the host, so that two
 * kernels, or a kernel and uiommu, agree exactly when they print the same. It keeps away from what is known to differ
 * (docs/divergence.md).
 *
 * usage: corners FIRST LAST STEPS      (seeds, and steps of each)
 */
#include "corners.h"
#include <grp.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* A struct of any size, at the very end of what can be read, or beyond. */
static void edge(void)
{
	static const uint8_t numbers[] = { 0x81, 0x82, 0x84, 0x85, 0x86, 0x88, 0x89, 0x8a, 0x8b, 0x8c, 0x8d, 0x8e,
					   0x8f, 0x90, 0x91, 0x92, 0x93, 0x94, 0x96, 0x97 };
	uint32_t number = numbers[below(sizeof(numbers))], size = percent(80) ? 4 * below(28) : below(112);
	uint32_t there = percent(60) ? size : 4 * below(28);
	uint32_t words[28];

	for (int i = 0; i < 28; i++)
		words[i] = percent(70) ? 0 : percent(80) ? below(9) : (uint32_t)draw();
	words[0] = size;
	if (there > sizeof(words))
		there = sizeof(words);
	char *at = EDGE + 2 * PAGE - there;

	memcpy(at, words, there);
	say(_IO(';', number), at, "edge %x size %u of %u", number, size, there);
	printf(" (%x %x %x)", words[1], words[2], words[3]);
}

static const struct step in_child[] = {
	{ alloc_ioas, 2 }, { map, 8 }, { unmap, 4 }, { device, 3 }, { access_bytes, 4 }, { change_process, 3 }, { option, 3 },
	{ replace, 2 }, { destroy, 2 }, { vfio_map, 2 }, { alloc_hwpt, 2 }, { page_fault, 1 }, { read_faults, 1 },
	{ open_oddly, 1 }, { answer_nowhere, 1 }, { change_limits, 5 }, { show_piece, 1 }, { odd_bitmap, 1 },
};

static void run_one(const struct step *steps, int count)
{
	int total = 0, at;

	for (int i = 0; i < count; i++)
		total += steps[i].weight;
	at = below(total);
	while ((at -= steps->weight) >= 0)
		steps++;
	steps->run();
	putchar('\n');
}

static int staying, leave[2]; /* a child that has done its steps, and lives until the pipe is closed */

static void end_child(void)
{
	int status;

	if (!staying)
		return;
	close(leave[1]);
	waitpid(staying, &status, 0);
	staying = 0;
	printf("child left %x", status);
}

/* Another process goes on for a while; often one that has no privileges and little memory to lock. */
static void child(void)
{
	int poor = percent(60), stays = !staying && percent(50), pages = below(20), steps = 1 + below(12), status = 0;
	int done[2];
	char byte = 0;
	uint64_t seed = draw();

	printf("child %d %d %d\n", poor, stays, pages);
	fflush(stdout);
	if (pipe(done) < 0 || (stays && pipe(leave) < 0))
		return;
	pid_t pid = fork();

	if (pid == 0) {
		struct rlimit limit = { pages * PAGE, pages * PAGE };

		state = seed;
		is_poor = poor;
		if (poor && (setrlimit(RLIMIT_MEMLOCK, &limit) || setgroups(0, NULL) || setresgid(65534, 65534, 65534) ||
			     setresuid(65534, 65534, 65534)))
			_exit(1);
		while (steps-- > 0)
			run_one(in_child, sizeof(in_child) / sizeof(in_child[0]));
		fflush(stdout);
		close(done[1]);
		if (stays) {
			close(leave[1]);
			read(leave[0], &byte, 1);
		}
		_exit(0);
	}
	close(done[1]);
	read(done[0], &byte, 1);
	close(done[0]);
	if (stays) {
		close(leave[0]);
		staying = pid;
		printf("child stays");
		return;
	}
	waitpid(pid, &status, 0);
	printf("child ended %x", status);
}

static const struct step steps[] = {
	{ alloc_ioas, 4 }, { device, 6 }, { replace, 8 }, { destroy, 8 }, { map, 16 }, { unmap, 5 }, { alloc_hwpt, 12 },
	{ alloc_fault, 4 }, { page_fault, 8 }, { read_faults, 7 }, { write_answers, 5 }, { look, 5 }, { alloc_viommu, 7 },
	{ show_window, 3 }, { drop_window, 2 }, { alloc_vdevice, 8 }, { alloc_veventq, 5 }, { event, 8 }, { read_events, 7 },
	{ write_events, 1 }, { invalidate, 8 }, { check_cache, 3 }, { alloc_queue, 5 }, { option, 5 }, { change_process, 2 },
	{ get_dmabuf, 3 }, { map_file, 6 }, { withdraw, 2 }, { close_dmabuf, 1 }, { alloc_access, 4 }, { close_access, 1 },
	{ access_bytes, 10 }, { limit_memory, 1 }, { vfio_ioas, 4 }, { vfio_ask, 3 }, { vfio_info, 4 }, { vfio_map, 6 },
	{ new_memfd, 4 }, { grow_memfd, 3 }, { map_memfd, 8 }, { change_ground, 6 }, { map_ground, 8 }, { set_dirty, 3 }, { make_dirty, 4 },
	{ get_dirty, 4 }, { copy, 8 }, { check_map, 5 }, { look_at_process, 3 }, { look_at_files, 2 }, { look_at_memory, 1 }, { change_context, 1 },
	{ odd_test, 6 }, { open_oddly, 5 }, { map_oddly, 4 }, { make_queues, 4 }, { make_tracked, 4 }, { answer_nowhere, 5 }, { few_places, 3 },
	{ watch_queue, 4 }, { look_for_edges, 6 }, { show_piece, 3 }, { drop_piece, 2 }, { map_piece, 2 }, { odd_bitmap, 5 }, { hw_info, 3 }, { vfio_unmap, 4 }, { vfio_other, 1 }, { edge, 10 }, { child, 6 }, { end_child, 2 },
};

static void fill(char *at, uint64_t factor)
{
	for (unsigned i = 0; i < BUFFER_SIZE / 8; i++)
		((uint64_t *)at)[i] = i * factor;
}

static void *at(char *address, uint64_t length, int flags)
{
	char *got = mmap(address, length, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (got != address) {
		perror("mmap");
		exit(1);
	}
	return got;
}

static void run_seed(int seed, int count)
{
	state = seed * 0x2545f4914f6cdd1dull;
	madvise(at(BUFFER, BUFFER_SIZE, MAP_PRIVATE), BUFFER_SIZE, MADV_NOHUGEPAGE);
	at(SHARED, BUFFER_SIZE, MAP_SHARED);
	at(EDGE, 2 * PAGE, MAP_PRIVATE);
	at(GROUND, GROUND_PAGES * PAGE, MAP_SHARED);
	fill(BUFFER, 0x9e3779b97f4a7c15ull);
	fill(SHARED, 0xbf58476d1ce4e5b9ull);
	share_memory();
	null_file = open("/dev/null", O_RDWR);
	iommufd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (iommufd < 0) {
		perror("/dev/iommu");
		exit(1);
	}
	printf("== seed %d\n", seed);
	alloc_ioas(), putchar('\n');
	device(), putchar('\n');
	for (int i = 0; i < count; i++)
		run_one(steps, sizeof(steps) / sizeof(steps[0]));
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: corners FIRST LAST STEPS\n");
		return 2;
	}
	/* Each in a process of its own: its end takes everything along, so that a seed does the same in any company. */
	for (int seed = atoi(argv[1]); seed <= atoi(argv[2]); seed++) {
		int status;

		if (fork() == 0) {
			run_seed(seed, atoi(argv[3]));
			exit(0);
		}
		wait(&status);
		if (status != 0) {
			fprintf(stderr, "seed %d ended with status %x\n", seed, status);
			return 1;
		}
	}
	return 0;
}
