/* The descriptor of a buffer, and what a lent buffer may not do. */
#include "peer.h"

static void
a_buffer_owns_its_descriptor(void)
{
	struct ibuf *buf = ibuf_open(1);
	int fd = numbered(1);

	REQUIRE(buf != NULL);
	CHECK_INT(ibuf_fd_avail(buf), 0);
	CHECK_INT(ibuf_fd_get(buf), -1);
	ibuf_fd_set(buf, fd);
	CHECK(ibuf_fd_avail(buf));
	CHECK_INT(ibuf_fd_get(buf), fd);
	CHECK_INT(ibuf_fd_avail(buf), 0);
	CHECK_INT(ibuf_fd_get(buf), -1);
	CHECK_INT(number_of(fd), 1);
	ibuf_free(buf);
}

static void
a_second_descriptor_closes_the_first(void)
{
	struct ibuf *buf = ibuf_open(1);
	int first = numbered(1), second = numbered(2);

	REQUIRE(buf != NULL);
	ibuf_fd_set(buf, first);
	ibuf_fd_set(buf, second);
	CHECK_ERROR(fcntl(first, F_GETFD), -1, EBADF);
	CHECK_INT(number_of(ibuf_fd_get(buf)), 2);
	ibuf_free(buf);
}

static void
no_descriptor_closes_the_one_before(void)
{
	struct ibuf *buf = ibuf_open(1);
	int fd = numbered(1);

	REQUIRE(buf != NULL);
	ibuf_fd_set(buf, fd);
	ibuf_fd_set(buf, -1);
	CHECK_ERROR(fcntl(fd, F_GETFD), -1, EBADF);
	CHECK_INT(ibuf_fd_avail(buf), 0);
	ibuf_free(buf);
}

static void
a_freed_buffer_closes_its_descriptor(void)
{
	struct ibuf *buf = ibuf_open(1);
	int fd = numbered(1);

	REQUIRE(buf != NULL);
	ibuf_fd_set(buf, fd);
	ibuf_free(buf);
	CHECK_ERROR(fcntl(fd, F_GETFD), -1, EBADF);
}

/* Where standard input is closed, it is a descriptor as any other. */
static void
descriptor_zero_is_a_descriptor(void)
{
	struct ibuf *buf = ibuf_open(1);
	int kept = dup(0), fd = numbered(1);

	REQUIRE(buf != NULL && kept != -1);
	REQUIRE(dup2(fd, 0) == 0);
	close(fd);
	ibuf_fd_set(buf, 0);
	CHECK(ibuf_fd_avail(buf));
	CHECK_INT(ibuf_fd_get(buf), 0);
	REQUIRE(dup2(kept, 0) == 0);
	close(kept);
	ibuf_free(buf);
}

static void
nothing_is_freed_where_there_is_nothing(void)
{
	ibuf_free(NULL);
	CHECK(1);
}

#if MODERN
static void
freeing_keeps_errno(void)
{
	struct ibuf *buf = ibuf_open(1);

	REQUIRE(buf != NULL);
	errno = EDOM;
	ibuf_free(buf);
	CHECK_INT(errno, EDOM);
}
#endif

static void
free_lent(void *argument)
{
	struct ibuf buf;

	ibuf_from_buffer(&buf, argument, 1);
	ibuf_free(&buf);
}

static void
give_lent_a_descriptor(void *argument)
{
	struct ibuf buf;

	ibuf_from_buffer(&buf, argument, 1);
	ibuf_fd_set(&buf, 0);
}

static void
queue_lent(void *argument)
{
	struct ibuf buf;
#if MODERN
	struct msgbuf *queue = msgbuf_new();
#else
	struct msgbuf queued, *queue = &queued;

	msgbuf_init(queue);
#endif
	ibuf_from_buffer(&buf, argument, 1);
	ibuf_close(queue, &buf);
}

static void
a_lent_buffer_is_not_given_away(void)
{
	char byte = 'a';

	CHECK_ABORTS(free_lent, &byte);
	CHECK_ABORTS(give_lent_a_descriptor, &byte);
	CHECK_ABORTS(queue_lent, &byte);
}

int
main(void)
{
	RUN(a_buffer_owns_its_descriptor);
	RUN(a_second_descriptor_closes_the_first);
	RUN(no_descriptor_closes_the_one_before);
	RUN(a_freed_buffer_closes_its_descriptor);
	RUN(descriptor_zero_is_a_descriptor);
	RUN(nothing_is_freed_where_there_is_nothing);
#if MODERN
	RUN(freeing_keeps_errno);
#endif
	RUN(a_lent_buffer_is_not_given_away);
	return finish();
}
