/* What has been made so far, and choices among it. */
#include <stdarg.h>
#include "corners.h"

struct known known[KINDS];
int iommufd, null_file, is_poor;
uint64_t state;

static struct {
	uint64_t iova, length;
} ranges[MANY];
static int range_count;

uint64_t draw(void)
{
	uint64_t z = (state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

uint64_t below(uint64_t n)
{
	return draw() % n;
}

int percent(unsigned p)
{
	return below(100) < p;
}

void note(enum kind kind, uint32_t id, int file)
{
	if (known[kind].count == MANY) {
		if (file >= 0)
			close(file);
		return;
	}
	known[kind].fds[known[kind].count] = file;
	known[kind].ids[known[kind].count++] = id;
}

void forget(uint32_t id)
{
	for (int kind = 0; kind < KINDS; kind++)
		for (int i = 0; i < known[kind].count; i++)
			if (known[kind].ids[i] == id) {
				int last = --known[kind].count;

				if (known[kind].fds[i] >= 0)
					close(known[kind].fds[i]);
				known[kind].ids[i] = known[kind].ids[last];
				known[kind].fds[i--] = known[kind].fds[last];
			}
}

void note_range(uint64_t iova, uint64_t length)
{
	int slot = range_count < MANY ? range_count++ : (int)below(MANY);

	ranges[slot].iova = iova;
	ranges[slot].length = length;
}

/* One that was mapped, if there is any. */
int mapped_range(uint64_t *iova, uint64_t *length)
{
	if (!range_count || !percent(70))
		return 0;
	int i = below(range_count);

	*iova = ranges[i].iova;
	*length = ranges[i].length;
	return 1;
}

uint32_t one_of(enum kind kind)
{
	if (percent(94) && known[kind].count)
		return known[kind].ids[below(known[kind].count)];
	if (percent(60)) {
		enum kind other = below(KINDS);

		if (known[other].count)
			return known[other].ids[below(known[other].count)];
	}
	return percent(80) ? below(14) : (uint32_t)draw();
}

int file_of(enum kind kind)
{
	return known[kind].count ? known[kind].fds[below(known[kind].count)] : -1;
}

uint64_t some_iova(void)
{
	if (percent(80) && range_count) {
		int i = below(range_count);

		return ranges[i].iova + (percent(20) ? below(4) * PAGE : 0) + (percent(5) ? below(PAGE) : 0);
	}
	if (percent(80))
		return (1 << 24) + below(512) * PAGE;
	return percent(50) ? draw() : -below(4 * PAGE);
}

uint64_t some_length(void)
{
	if (percent(80))
		return PAGE * (1 + below(8));
	if (percent(50))
		return below(3 * PAGE);
	return percent(30) ? draw() : BUFFER_SIZE;
}

int told(int result)
{
	int error = errno;

	if (result < 0)
		printf(" = -%d", error);
	else
		printf(" = %d", result);
	return result < 0 ? -error : result;
}

int say(unsigned long number, void *argument, const char *format, ...)
{
	int result = ioctl(iommufd, number, argument), error = errno;
	va_list list;

	va_start(list, format);
	vprintf(format, list);
	va_end(list);
	errno = error;
	return told(result);
}

struct iommu_test_cmd test(uint32_t op, uint32_t id)
{
	struct iommu_test_cmd cmd = { .size = sizeof(cmd), .op = op, .id = id };

	return cmd;
}

/* One context is used for a while, then the other one. */
void change_context(void)
{
	static int other = -1;
	int now = iommufd;

	if (other < 0)
		other = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	iommufd = other;
	other = now;
	printf("other context");
}

/* Any operation of the test driver, with words that make sense now and then. PASIDs are left out: losing a device warns. */
void odd_test(void)
{
	static const uint8_t numbers[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 21, 23, 24, 25 };
	union {
		struct iommu_test_cmd cmd;
		uint32_t words[32];
	} u = { .words = { 0 } };

	for (unsigned i = 4; i < sizeof(u.cmd) / 4; i++)
		u.words[i] = percent(50) ? 0 : percent(60) ? below(20) : percent(50) ? (uint32_t)some_iova() : (uint32_t)draw();
	u.cmd.size = percent(85) ? sizeof(u.cmd) : 4 * below(24);
	u.cmd.op = numbers[below(sizeof(numbers))];
	u.cmd.id = one_of(below(KINDS));
	u.words[3] = percent(3);
	say(IOMMU_TEST_CMD, &u, "odd test %u %u", u.cmd.op, u.cmd.size);
}
