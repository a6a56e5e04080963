/*
 * No surprises: the library has no threads and no signal handlers, prints nothing, and takes no names
 * that its header does not declare.
 */
#include <dirent.h>

#include "drain.h"

static int
threads(void)
{
	DIR *tasks = opendir("/proc/self/task");
	int n = 0;

	REQUIRE(tasks != NULL);
	while (readdir(tasks) != NULL)
		n++;
	closedir(tasks);
	return n - 2;
}

/* Messages there and back, with a fault in the end. */
static void
use_it(void)
{
	struct imsgbuf channel;
	unsigned char header[HEADER];
	int ends[2];

	connect_pair(ends);
	channel_init(&channel, ends[0]);
	channel_allow_descriptors(&channel);
	REQUIRE(imsg_compose(&channel, 1, 2, 3, numbered(1), NULL, 0) == 1);
	REQUIRE(channel_flush(&channel) == 0);
	send_message(ends[1], 1, 1, 7);
	put_header(header, 2, 3, 0);
	send_bytes(ends[1], header, HEADER);
	CHECK_TEXT(drain(&channel), "1:7 ERANGE");
	close(ends[1]);
	CHECK_INT(imsg_compose(&channel, 1, 2, 3, -1, NULL, 0), 1);
	/* A peer that is gone raises no signal. */
	CHECK_ERROR(channel_flush(&channel), -1, EPIPE);
	channel_clear(&channel);
	close(ends[0]);
}

static void
a_program_has_its_threads_and_signals_for_itself(void)
{
	struct sigaction before[32], after;
	sigset_t mask;
	int signal;

	for (signal = 1; signal < 32; signal++)
		REQUIRE(sigaction(signal, NULL, &before[signal]) == 0);
	use_it();
	CHECK_INT(threads(), 1);
	for (signal = 1; signal < 32; signal++) {
#ifdef __SANITIZE_ADDRESS__
		/* The sanitizer has some. */
		if (signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE)
			continue;
#endif
		REQUIRE(sigaction(signal, NULL, &after) == 0);
		/* Who started this may have had some ignored. */
		if (!CHECK(after.sa_handler == SIG_DFL || after.sa_handler == SIG_IGN) ||
		    !CHECK(after.sa_handler == before[signal].sa_handler))
			fprintf(stderr, "signal %d\n", signal);
	}
	REQUIRE(sigprocmask(SIG_SETMASK, NULL, &mask) == 0);
	for (signal = 1; signal < 32; signal++)
		CHECK_INT(sigismember(&mask, signal), 0);
}

static void
use_it_in_a_child(void *argument)
{
	int *out = (int *)argument;

	REQUIRE(dup2(*out, 1) == 1 && dup2(*out, 2) == 2);
	use_it();
}

static void
a_program_has_its_output_for_itself(void)
{
	int file = numbered(0);
	struct stat status;

	CHECK_IN_CHILD(use_it_in_a_child, &file);
	REQUIRE(fstat(file, &status) == 0);
	CHECK_INT(status.st_size, 0);
	close(file);
}

#if !MODERN
/* Names of the modern interface, which a program of the classic one has for itself. */
#ifdef __cplusplus
extern "C" {
#endif
int imsgbuf_init(int);
int ibuf_get_string(int);
int msgbuf_get(int);
int ibufq_new(int);

int
imsgbuf_init(int n)
{
	return n + 1;
}

int
ibuf_get_string(int n)
{
	return n + 2;
}

int
msgbuf_get(int n)
{
	return n + 3;
}

int
ibufq_new(int n)
{
	return n + 4;
}
#ifdef __cplusplus
}
#endif

static void
a_classic_program_has_the_modern_names_for_itself(void)
{
	use_it();
	CHECK_INT(imsgbuf_init(1), 2);
	CHECK_INT(ibuf_get_string(1), 3);
	CHECK_INT(msgbuf_get(1), 4);
	CHECK_INT(ibufq_new(1), 5);
}
#endif

int
main(void)
{
	RUN(a_program_has_its_threads_and_signals_for_itself);
	RUN(a_program_has_its_output_for_itself);
#if !MODERN
	RUN(a_classic_program_has_the_modern_names_for_itself);
#endif
	return finish();
}
