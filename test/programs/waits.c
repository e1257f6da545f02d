/*
 * A client whose calls are answered later, for the stub device. Each line is what a case has shown; the cases are described
 * where they are.
 *
 * usage: waits CASE
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define ECHO 0x3b01
#define STREAM 0x3b08
#define WAIT 0x3b0d
#define ANSWER 0x3b0e
#define WAITING 0x3b0f
#define MOST 64 /* that uiommu parks */
#define PATIENCE 2000 /* times 5 ms */

static int device;
static volatile sig_atomic_t handled;

/* An ioctl on the device: its result, or the negative errno. */
static long call(unsigned int number, int64_t word, int64_t *out, int which)
{
	int64_t words[4] = { word, 0, 0, 0 };
	long result = ioctl(device, number, words);

	if (out != NULL)
		*out = words[which];
	return result < 0 ? -errno : result;
}

static long echo(void)
{
	int64_t word;

	call(ECHO, 41, &word, 1);
	return word;
}

static long waiting(void)
{
	int64_t word;

	call(WAITING, 0, &word, 0);
	return word;
}

static void until_waiting(long count)
{
	for (int i = 0; i < PATIENCE && waiting() != count; i++)
		usleep(5000);
}

static void *wait_in_thread(void *kind)
{
	return (void *)call(WAIT, (intptr_t)kind, NULL, 0);
}

static pthread_t start(intptr_t kind)
{
	pthread_t thread;
	long before = waiting();

	pthread_create(&thread, NULL, wait_in_thread, (void *)kind);
	until_waiting(before + 1);
	return thread;
}

static long result_of(pthread_t thread)
{
	void *result;

	pthread_join(thread, &result);
	return (long)result;
}

static pid_t start_process(void)
{
	long before = waiting();
	pid_t child = fork();

	if (child == 0)
		_exit(call(WAIT, 0, NULL, 0));
	until_waiting(before + 1);
	return child;
}

/* Other calls are answered while one waits; it gets a value, or an errno. */
static void answered(void)
{
	pthread_t thread = start(0);

	printf("echo %ld\n", echo());
	call(ANSWER, 7, NULL, 0);
	printf("value %ld\n", result_of(thread));
	thread = start(0);
	call(ANSWER, -EBUSY, NULL, 0);
	printf("errno %ld\n", result_of(thread));
}

/* A call that waits until another process has closed its file. */
static void closed(void)
{
	int ends[2];
	char byte = 0;
	pid_t child;
	pthread_t thread;

	pipe(ends);
	child = fork();
	if (child == 0) {
		close(ends[1]);
		open("/dev/uiommu-stub", O_RDWR);
		byte = read(ends[0], &byte, 1);
		_exit(byte);
	}
	close(ends[0]);
	thread = start(1);
	printf("echo %ld\n", echo());
	close(ends[1]);
	printf("closed %ld\n", result_of(thread));
	waitpid(child, NULL, 0);
}

static void count(int number)
{
	handled += number == SIGUSR1;
}

/* A signal handler runs when the call has been answered, and the call is not repeated. */
static void signalled(void)
{
	struct sigaction action = { .sa_handler = count };

	for (int i = 0; i < 2; i++) {
		pthread_t thread;

		action.sa_flags = i == 0 ? 0 : SA_RESTART;
		sigaction(SIGUSR1, &action, NULL);
		handled = 0;
		thread = start(0);
		pthread_kill(thread, SIGUSR1);
		usleep(50000);
		printf("handled %d waiting %ld\n", (int)handled, waiting());
		call(ANSWER, 9, NULL, 0);
		printf("value %ld", result_of(thread));
		printf(" handled %d waiting %ld\n", (int)handled, waiting());
	}
}

/* A caller that is killed ends at once; its operation goes on, and its answer goes nowhere. */
static void killed(void)
{
	int status;
	pid_t child = start_process();

	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	printf("signal %d waiting %ld\n", WTERMSIG(status), waiting());
	call(ANSWER, 3, NULL, 0);
	printf("waiting %ld echo %ld\n", waiting(), echo());
}

/* So does one whose process execs in another thread. */
static void replaced(void)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		start(0);
		execl("/bin/true", "true", (char *)NULL);
		_exit(1);
	}
	waitpid(child, &status, 0);
	printf("status %d waiting %ld\n", WEXITSTATUS(status), waiting());
	call(ANSWER, 3, NULL, 0);
	printf("waiting %ld echo %ld\n", waiting(), echo());
}

/* One call too many is refused at once; a caller that has died counts no more. */
static void full(void)
{
	pid_t children[MOST];
	pthread_t thread;

	for (int i = 0; i < MOST; i++)
		children[i] = start_process();
	printf("one more %ld waiting %ld\n", call(WAIT, 0, NULL, 0), waiting());
	kill(children[0], SIGKILL);
	waitpid(children[0], NULL, 0);
	thread = start(0);
	printf("waiting %ld\n", waiting());
	for (int i = 0; i < MOST; i++)
		call(ANSWER, 1, NULL, 0);
	call(ANSWER, 8, NULL, 0);
	printf("value %ld\n", result_of(thread));
	while (wait(NULL) > 0)
		;
}

static int stream;

static void *write_in_thread(void *unused)
{
	static const unsigned char bytes[2] = { 0xff, 1 };
	long result = write(stream, bytes, sizeof(bytes));

	(void)unused;
	return (void *)(result < 0 ? -errno : result);
}

/* A write whose file is closed while it waits. */
static void written(void)
{
	int64_t number;
	pthread_t thread;

	call(STREAM, 0, &number, 1);
	stream = number;
	pthread_create(&thread, NULL, write_in_thread, NULL);
	until_waiting(1);
	close(stream);
	printf("echo %ld\n", echo());
	call(ANSWER, 2, NULL, 0);
	printf("value %ld\n", result_of(thread));
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	{ "answered", answered },
	{ "closed", closed },
	{ "signalled", signalled },
	{ "killed", killed },
	{ "replaced", replaced },
	{ "full", full },
	{ "written", written },
};

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	device = open("/dev/uiommu-stub", O_RDWR);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (argc > 1 && strcmp(argv[1], cases[i].name) == 0) {
			cases[i].run();
			return 0;
		}
	}
	return 2;
}
