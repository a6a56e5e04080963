/*
 * What the C programs share: checks that print what they saw and go on, and cases that may not
 * leave a descriptor behind.
 */
#ifndef CHECK_H
#define CHECK_H

#include <sys/types.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *check_case = "";
static int check_failures;

static inline void
check_failed(const char *file, int line, const char *what)
{
	check_failures++;
	fprintf(stderr, "%s:%d: %s: %s", file, line, check_case, what);
}

static inline int
check_true(int holds, const char *file, int line, const char *what)
{
	if (!holds) {
		check_failed(file, line, what);
		fprintf(stderr, " does not hold\n");
	}
	return holds;
}

static inline int
check_int(long long got, long long expected, const char *file, int line, const char *what)
{
	if (got == expected)
		return 1;
	check_failed(file, line, what);
	fprintf(stderr, " is %lld, not %lld\n", got, expected);
	return 0;
}

/* With the error that goes with the result. */
static inline void
check_error(long long got, int got_errno, long long expected, int expected_errno,
    const char *file, int line, const char *what)
{
	if (got == expected && got_errno == expected_errno)
		return;
	check_failed(file, line, what);
	fprintf(stderr, " is %lld (%s), not %lld (%s)\n", got, strerror(got_errno), expected,
	    strerror(expected_errno));
}

static inline void
check_bytes(const void *got, const void *expected, size_t len, const char *file, int line,
    const char *what)
{
	const unsigned char *a = (const unsigned char *)got;
	const unsigned char *b = (const unsigned char *)expected;
	size_t i;

	if (a == NULL) {
		check_failed(file, line, what);
		fprintf(stderr, " is NULL\n");
		return;
	}
	for (i = 0; i < len; i++) {
		if (a[i] != b[i]) {
			check_failed(file, line, what);
			fprintf(stderr, ": byte %zu is %#x, not %#x\n", i, a[i], b[i]);
			return;
		}
	}
}

#define CHECK(holds) check_true((holds) ? 1 : 0, __FILE__, __LINE__, #holds)
#define CHECK_INT(got, expected) \
	check_int((long long)(got), (long long)(expected), __FILE__, __LINE__, #got)
#define CHECK_BYTES(got, expected, len) \
	check_bytes(got, expected, len, __FILE__, __LINE__, #got)

/* A call that fails as the manual says. */
#define CHECK_ERROR(call, expected, error) do {					\
	long long check_got;							\
	errno = 0;								\
	check_got = (long long)(call);						\
	check_error(check_got, errno, expected, error, __FILE__, __LINE__, #call); \
} while (0)
#define CHECK_NULL(call, error) do {						\
	int check_is_null;							\
	errno = 0;								\
	check_is_null = (call) == NULL;						\
	check_error(check_is_null, errno, 1, error, __FILE__, __LINE__, #call " == NULL"); \
} while (0)

/* What the rest of the program builds on. */
#define REQUIRE(holds) do {							\
	if (!CHECK(holds)) {							\
		perror("errno");						\
		exit(1);							\
	}									\
} while (0)

static inline int
open_descriptors(void)
{
	int fd, n = 0;

	for (fd = 0; fd < 1024; fd++)
		if (fcntl(fd, F_GETFD) != -1)
			n++;
	return n;
}

static inline void
run_case(const char *name, void (*body)(void))
{
	int before = open_descriptors();

	check_case = name;
	body();
	check_int(open_descriptors(), before, __FILE__, __LINE__, "descriptors left open");
}

/* Runs a case: a function that is named as what it shows. */
#define RUN(name) run_case(#name, name)

/* What `main` returns. */
static inline int
finish(void)
{
	if (check_failures != 0)
		fprintf(stderr, "%d checks failed\n", check_failures);
	return check_failures != 0;
}

/*
 * Runs `body` in a process of its own, and gives what wait(2) says of it. Its failures count here.
 */
static inline int
in_child(void (*body)(void *), void *argument)
{
	pid_t pid;
	int status;

	fflush(NULL);
	if ((pid = fork()) == -1) {
		perror("fork");
		exit(1);
	}
	if (pid == 0) {
		struct rlimit none = { 0, 0 };

		/* A child that aborts leaves no core. */
		(void)setrlimit(RLIMIT_CORE, &none);
		/* A child that hangs is a failure. */
		(void)alarm(120);
		check_failures = 0;
		body(argument);
		fflush(NULL);
		_exit(check_failures != 0);
	}
	while (waitpid(pid, &status, 0) == -1) {
		if (errno != EINTR) {
			perror("waitpid");
			exit(1);
		}
	}
	return status;
}

#define CHECK_ABORTS(body, argument) do {					\
	int check_status = in_child(body, argument);				\
	CHECK(WIFSIGNALED(check_status) && WTERMSIG(check_status) == SIGABRT);	\
} while (0)

#define CHECK_IN_CHILD(body, argument) do {					\
	int check_status = in_child(body, argument);				\
	CHECK(WIFEXITED(check_status) && WEXITSTATUS(check_status) == 0);	\
} while (0)

#endif
