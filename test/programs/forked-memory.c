/*
 * A child pins memory that it shares with its parent, and goes: what a device then writes must be what the parent reads.
 * For the stub device (stub-device.ts).
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define STUB_ECHO 0x3b01
#define STUB_PIN 0x3b03
#define STUB_PEEK 0x3b04
#define STUB_POKE 0x3b05

int main(void)
{
	uint64_t words[4] = { 1 };
	volatile uint64_t *memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int fd = open("/dev/uiommu-stub", O_RDWR), status;

	if (fd < 0 || memory == MAP_FAILED || ioctl(fd, STUB_ECHO, words) < 0)
		return 1;
	if (fork() == 0) {
		uint64_t pin[4] = { (uintptr_t)memory, 8192, 1 };

		memory[0] = 11;
		_exit(ioctl(fd, STUB_PIN, pin) < 0);
	}
	wait(&status);
	uint64_t peek[4] = { 0, 0 }, poke[4] = { 0, 4096, 22 };
	int read_result = ioctl(fd, STUB_PEEK, peek);
	int write_result = ioctl(fd, STUB_POKE, poke);

	printf("%d %d %llu %d %llu\n", WEXITSTATUS(status), read_result, (unsigned long long)peek[2], write_result,
	       (unsigned long long)memory[512]);
	return 0;
}
