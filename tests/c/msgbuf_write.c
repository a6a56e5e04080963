/* The queue of buffers to write: msgbuf_write and ibuf_write, to sockets, pipes and files. */
#include <sys/time.h>

#include <time.h>

#include "peer.h"

#if MODERN
#define QUEUE(name) struct msgbuf *name = msgbuf_new(); REQUIRE(name != NULL)
#define DONE(name) msgbuf_free(name)
#define MSGBUF_WRITE(queue, to) msgbuf_write(to, queue)
#define IBUF_WRITE(queue, to) ibuf_write(to, queue)
/* What a write gives that wrote something, and one that had nothing to write. */
#define WROTE 0
#else
#define QUEUE(name) struct msgbuf name##_storage, *name = &name##_storage; msgbuf_init(name)
#define DONE(name) msgbuf_clear(name)
#define MSGBUF_WRITE(queue, to) ((queue)->fd = (to), msgbuf_write(queue))
#define IBUF_WRITE(queue, to) ((queue)->fd = (to), ibuf_write(queue))
#define WROTE 1
#endif

static void
enqueue(struct msgbuf *queue, const void *bytes, size_t len, int fd)
{
	struct ibuf *buf = ibuf_open(len);

	REQUIRE(buf != NULL);
	REQUIRE(ibuf_add(buf, bytes, len) == 0);
	ibuf_fd_set(buf, fd);
	ibuf_close(queue, buf);
}

/* Bytes of one recvmsg(2), and the number of the file that came with them. */
static size_t
receive(int from, void *bytes, size_t len, int *number)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr message;
	struct cmsghdr *header;
	struct iovec iov;
	ssize_t n;

	memset(&message, 0, sizeof(message));
	iov.iov_base = bytes;
	iov.iov_len = len;
	message.msg_iov = &iov;
	message.msg_iovlen = 1;
	message.msg_control = &control;
	message.msg_controllen = sizeof(control);
	n = recvmsg(from, &message, 0);
	REQUIRE(n >= 0);
	*number = -1;
	if ((header = CMSG_FIRSTHDR(&message)) != NULL) {
		int fd;

		memcpy(&fd, CMSG_DATA(header), sizeof(fd));
		*number = number_of(fd);
	}
	return (size_t)n;
}

static void
a_new_queue_is_empty(void)
{
	int ends[2];
	QUEUE(queue);

	connect_pair(ends);
	CHECK_INT(msgbuf_queuelen(queue), 0);
	CHECK_ERROR(MSGBUF_WRITE(queue, ends[0]), 0, 0);
	CHECK_ERROR(IBUF_WRITE(queue, ends[0]), 0, 0);
	DONE(queue);
	close(ends[0]);
	close(ends[1]);
}

static double
seconds(void)
{
	struct timespec now;

	REQUIRE(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Fills a socket that waits, so that not even a byte has room. */
static void
fill(int socket)
{
	static char bytes[4096];

	REQUIRE(fcntl(socket, F_SETFL, O_NONBLOCK) == 0);
	while (write(socket, bytes, sizeof(bytes)) > 0 || write(socket, bytes, 1) > 0)
		continue;
	REQUIRE(errno == EAGAIN && fcntl(socket, F_SETFL, 0) == 0);
}

#if !MODERN
static void
the_members_of_a_queue_are_the_programs_too(void)
{
	int ends[2];
	QUEUE(queue);

	connect_pair(ends);
	CHECK_INT(queue->fd, -1);
	CHECK_INT(queue->queued, 0);
	enqueue(queue, "a", 1, -1);
	enqueue(queue, "b", 1, -1);
	CHECK_INT(queue->queued, 2);
	/* As the macros of sys/queue.h go over it. */
	REQUIRE(queue->bufs.tqh_first != NULL);
	CHECK_BYTES(ibuf_data(queue->bufs.tqh_first), "a", 1);
	CHECK_BYTES(ibuf_data(queue->bufs.tqh_first->entry.tqe_next), "b", 1);
	CHECK(queue->bufs.tqh_last == &queue->bufs.tqh_first->entry.tqe_next->entry.tqe_next);
	CHECK_INT(MSGBUF_WRITE(queue, ends[0]), 1);
	CHECK_INT(queue->queued, 0);
	CHECK(queue->bufs.tqh_first == NULL);
	DONE(queue);
	close(ends[0]);
	close(ends[1]);
}
#endif

static void
buffers_are_written_in_order(void)
{
	char got[16];
	int ends[2], number;
	QUEUE(queue);

	connect_pair(ends);
	enqueue(queue, "abc", 3, -1);
	enqueue(queue, "d", 1, -1);
	enqueue(queue, "efg", 3, -1);
	CHECK_INT(msgbuf_queuelen(queue), 3);
	CHECK_INT(IBUF_WRITE(queue, ends[0]), WROTE);
	CHECK_INT(msgbuf_queuelen(queue), 0);
	CHECK_INT(receive(ends[1], got, sizeof(got), &number), 7);
	CHECK_BYTES(got, "abcdefg", 7);
	enqueue(queue, "xyz", 3, -1);
	CHECK_INT(MSGBUF_WRITE(queue, ends[0]), WROTE);
	CHECK_INT(receive(ends[1], got, sizeof(got), &number), 3);
	CHECK_BYTES(got, "xyz", 3);
	CHECK_INT(number, -1);
	DONE(queue);
	close(ends[0]);
	close(ends[1]);
}

static void
a_buffer_begins_at_its_read_position(void)
{
	struct ibuf *buf = ibuf_open(4);
	char got[4];
	int ends[2], number;
	QUEUE(queue);

	connect_pair(ends);
	REQUIRE(buf != NULL && ibuf_add(buf, "abcd", 4) == 0 && ibuf_skip(buf, 2) == 0);
	ibuf_close(queue, buf);
	CHECK_INT(MSGBUF_WRITE(queue, ends[0]), WROTE);
	CHECK_INT(receive(ends[1], got, sizeof(got), &number), 2);
	CHECK_BYTES(got, "cd", 2);
	DONE(queue);
	close(ends[0]);
	close(ends[1]);
}

/* A buffer that was read to its end has nothing to write. */
static void
empty_buffers_go_with_the_others(void)
{
	struct ibuf *empty;
	char got[8];
	int ends[2], number, place;

	for (place = 0; place < 3; place++) {
		QUEUE(queue);

		connect_pair(ends);
		empty = ibuf_open(2);
		REQUIRE(empty != NULL && ibuf_add(empty, "xx", 2) == 0 && ibuf_skip(empty, 2) == 0);
		if (place == 0)
			ibuf_close(queue, empty);
		enqueue(queue, "ab", 2, -1);
		if (place == 1)
			ibuf_close(queue, empty);
		enqueue(queue, "cd", 2, -1);
		if (place == 2)
			ibuf_close(queue, empty);
		CHECK_INT(MSGBUF_WRITE(queue, ends[0]), WROTE);
		/* The original leaves one at the end to the next call. */
		if (msgbuf_queuelen(queue) != 0)
			(void)MSGBUF_WRITE(queue, ends[0]);
		CHECK_INT(receive(ends[1], got, sizeof(got), &number), 4);
		CHECK_BYTES(got, "abcd", 4);
		CHECK_INT(msgbuf_queuelen(queue), 0);
		DONE(queue);
		close(ends[0]);
		close(ends[1]);
	}
}

static void
more_buffers_than_one_call_takes(void)
{
	char got[3000];
	int ends[2], number, i;
	size_t have = 0;
	QUEUE(queue);

	connect_pair(ends);
	for (i = 0; i < 3000; i++)
		enqueue(queue, &"abcdefghij"[i % 10], 1, -1);
	CHECK_INT(msgbuf_queuelen(queue), 3000);
	for (i = 0; msgbuf_queuelen(queue) != 0; i++) {
		REQUIRE(i < 3000);
		CHECK_INT((i % 2 == 0 ? MSGBUF_WRITE(queue, ends[0]) :
		    IBUF_WRITE(queue, ends[0])), WROTE);
	}
	while (have < sizeof(got)) {
		size_t n = receive(ends[1], got + have, sizeof(got) - have, &number);

		REQUIRE(n != 0);
		have += n;
	}
	for (i = 0; i < 3000; i++)
		REQUIRE(got[i] == "abcdefghij"[i % 10]);
	DONE(queue);
	close(ends[0]);
	close(ends[1]);
}

static void
a_descriptor_goes_with_the_first_byte_of_its_buffer(void)
{
	char got[16];
	int ends[2], number, fd = numbered(7), second = numbered(8);
	QUEUE(queue);

	connect_pair(ends);
	enqueue(queue, "before", 6, -1);
	enqueue(queue, "with", 4, fd);
	enqueue(queue, "after", 5, -1);
	enqueue(queue, "second", 6, second);
	while (msgbuf_queuelen(queue) != 0)
		REQUIRE(MSGBUF_WRITE(queue, ends[0]) == WROTE);
	CHECK_INT(receive(ends[1], got, 6, &number), 6);
	CHECK_BYTES(got, "before", 6);
	CHECK_INT(number, -1);
	CHECK_INT(receive(ends[1], got, 4, &number), 4);
	CHECK_BYTES(got, "with", 4);
	CHECK_INT(number, 7);
	CHECK_INT(receive(ends[1], got, 5, &number), 5);
	CHECK_BYTES(got, "after", 5);
	CHECK_INT(number, -1);
	CHECK_INT(receive(ends[1], got, 6, &number), 6);
	CHECK_INT(number, 8);
	CHECK_ERROR(fcntl(fd, F_GETFD), -1, EBADF);
	CHECK_ERROR(fcntl(second, F_GETFD), -1, EBADF);
	DONE(queue);
	close(ends[0]);
	close(ends[1]);
}

static void
clearing_closes_the_descriptors(void)
{
	int fd = numbered(1), other = numbered(2);
	QUEUE(queue);

	enqueue(queue, "a", 1, fd);
	enqueue(queue, "b", 1, -1);
	enqueue(queue, "c", 1, other);
	msgbuf_clear(queue);
	CHECK_INT(msgbuf_queuelen(queue), 0);
	CHECK_ERROR(fcntl(fd, F_GETFD), -1, EBADF);
	CHECK_ERROR(fcntl(other, F_GETFD), -1, EBADF);
	/* It can be used again. */
	enqueue(queue, "a", 1, -1);
	CHECK_INT(msgbuf_queuelen(queue), 1);
	DONE(queue);
}

static void
what_a_full_socket_does_not_take_stays_queued(void)
{
	static unsigned char chunk[8192], expected[64 * 8192], got[64 * 8192];
	int ends[2], number, full = 0;
	size_t have = 0, i;
	QUEUE(queue);

	connect_pair(ends);
	REQUIRE(fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
	for (i = 0; i < sizeof(expected); i++)
		expected[i] = (unsigned char)(i / 7);
	for (i = 0; i < 64; i++) {
		memcpy(chunk, expected + i * sizeof(chunk), sizeof(chunk));
		enqueue(queue, chunk, sizeof(chunk), -1);
	}
	while (msgbuf_queuelen(queue) != 0) {
		uint32_t before = msgbuf_queuelen(queue);
		int result;

		errno = 0;
		result = MSGBUF_WRITE(queue, ends[0]);
#if MODERN
		CHECK_INT(result, 0);
#else
		if (result == -1)
			CHECK_INT(errno, EAGAIN);
		else
			CHECK_INT(result, 1);
#endif
		full += msgbuf_queuelen(queue) == before;
		/* An odd number, so that buffers are left in part. */
		have += receive(ends[1], got + have, 3333, &number);
	}
	CHECK(full > 0);
	while (have < sizeof(got)) {
		size_t n = receive(ends[1], got + have, sizeof(got) - have, &number);

		REQUIRE(n != 0);
		have += n;
	}
	CHECK_BYTES(got, expected, sizeof(got));
	DONE(queue);
	close(ends[0]);
	close(ends[1]);
}

static void
a_peer_that_is_gone_is_an_error_that_keeps_the_queue(void)
{
	int ends[2];
	QUEUE(queue);

	connect_pair(ends);
	close(ends[1]);
	(void)signal(SIGPIPE, SIG_IGN);
	enqueue(queue, "a", 1, -1);
	CHECK_ERROR(MSGBUF_WRITE(queue, ends[0]), -1, EPIPE);
	CHECK_ERROR(IBUF_WRITE(queue, ends[0]), -1, EPIPE);
	CHECK_INT(msgbuf_queuelen(queue), 1);
	DONE(queue);
	close(ends[0]);
}

static void
a_descriptor_that_is_not_open_is_an_error(void)
{
	QUEUE(queue);

	enqueue(queue, "a", 1, -1);
	CHECK_ERROR(IBUF_WRITE(queue, -1), -1, EBADF);
	CHECK_ERROR(MSGBUF_WRITE(queue, -1), -1, EBADF);
	CHECK_INT(msgbuf_queuelen(queue), 1);
	DONE(queue);
}

static void
buffers_are_written_to_pipes_and_files(void)
{
	char got[8];
	int ends[2], file = numbered(0);
	QUEUE(queue);

	REQUIRE(pipe(ends) == 0);
	enqueue(queue, "ab", 2, -1);
	enqueue(queue, "cd", 2, -1);
	CHECK_INT(IBUF_WRITE(queue, ends[1]), WROTE);
	CHECK_INT(read(ends[0], got, sizeof(got)), 4);
	CHECK_BYTES(got, "abcd", 4);
	enqueue(queue, "ef", 2, -1);
	CHECK_INT(IBUF_WRITE(queue, file), WROTE);
	CHECK_INT(pread(file, got, sizeof(got), 0), 2);
	CHECK_BYTES(got, "ef", 2);
	enqueue(queue, "gh", 2, -1);
	CHECK_ERROR(MSGBUF_WRITE(queue, file), -1, ENOTSOCK);
	DONE(queue);
	close(ends[0]);
	close(ends[1]);
	close(file);
}

static void
a_send_with_a_descriptor_ends_at_the_time_out_of_the_socket(void)
{
	/* More than a wait of the library's, which looks at the socket each second. */
	struct timeval timeout = { 1, 500000 };
	double begin;
	int ends[2];
	QUEUE(queue);

	connect_pair(ends);
	fill(ends[0]);
	REQUIRE(setsockopt(ends[0], SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) == 0);
	enqueue(queue, "a", 1, numbered(1));
	begin = seconds();
	/* A call that hangs ends the program. */
	(void)alarm(60);
#if MODERN
	CHECK_INT(MSGBUF_WRITE(queue, ends[0]), 0);
#else
	CHECK_ERROR(MSGBUF_WRITE(queue, ends[0]), -1, EAGAIN);
#endif
	(void)alarm(0);
	CHECK(seconds() - begin >= 1.4);
	CHECK_INT(msgbuf_queuelen(queue), 1);
	DONE(queue);
	close(ends[0]);
	close(ends[1]);
}

static void
read_all(void *argument)
{
	int socket = *(int *)argument;
	char bytes[4096];
	ssize_t n;

	while ((n = read(socket, bytes, sizeof(bytes))) > 0)
		continue;
	CHECK_INT(n, 0);
}

static void
a_send_with_a_descriptor_waits_also_where_no_descriptor_may_be_opened(void)
{
	struct rlimit before, none;
	int ends[2], status;
	pid_t reader;
	QUEUE(queue);

	connect_pair(ends);
	fill(ends[0]);
	enqueue(queue, "a", 1, numbered(1));
	REQUIRE((reader = fork()) != -1);
	if (reader == 0) {
		close(ends[0]);
		read_all(&ends[1]);
		_exit(check_failures != 0);
	}
	close(ends[1]);
	REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
	none = before;
	none.rlim_cur = 0;
	REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
	CHECK_INT(MSGBUF_WRITE(queue, ends[0]), WROTE);
	REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
	CHECK_INT(msgbuf_queuelen(queue), 0);
	DONE(queue);
	close(ends[0]);
	REQUIRE(waitpid(reader, &status, 0) == reader);
	CHECK_INT(status, 0);
}

static void
read_in_pieces(int socket, size_t left)
{
	char bytes[1000];
	int number;

	CHECK_INT(receive(socket, bytes, 1, &number), 1);
	CHECK_INT(number, 7);
	left--;
	while (left > 0) {
		ssize_t n = read(socket, bytes, sizeof(bytes));

		REQUIRE(n > 0);
		left -= (size_t)n;
	}
}

static void
write_to_its_end(void *argument)
{
	static char bytes[100000];
	int *ends = (int *)argument, small = 4096;
	QUEUE(queue);

	REQUIRE(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) == 0);
	enqueue(queue, bytes, sizeof(bytes), numbered(7));
	CHECK_INT(MSGBUF_WRITE(queue, ends[0]), WROTE);
	CHECK_INT(msgbuf_queuelen(queue), 0);
	DONE(queue);
}

static void
a_socket_that_waits_takes_all_of_a_message_with_a_descriptor(void)
{
	int ends[2], status;
	pid_t writer;

	connect_pair(ends);
	REQUIRE((writer = fork()) != -1);
	if (writer == 0) {
		write_to_its_end(ends);
		_exit(check_failures != 0);
	}
	close(ends[0]);
	read_in_pieces(ends[1], 100000);
	REQUIRE(waitpid(writer, &status, 0) == writer);
	CHECK_INT(status, 0);
	close(ends[1]);
}

#if MODERN
static void
queues_of_buffers_are_moved(void)
{
	struct ibufqueue *one = ibufq_new(), *other = ibufq_new();
	struct ibuf *buf;
	char got[8];
	int ends[2], number, i;
	QUEUE(queue);

	connect_pair(ends);
	REQUIRE(one != NULL && other != NULL);
	CHECK_INT(ibufq_queuelen(one), 0);
	CHECK(ibufq_pop(one) == NULL);
	for (i = 0; i < 4; i++) {
		buf = ibuf_open(1);
		REQUIRE(buf != NULL && ibuf_add(buf, &"abcd"[i], 1) == 0);
		ibufq_push(i < 2 ? one : other, buf);
	}
	CHECK_INT(ibufq_queuelen(one), 2);
	ibufq_concat(one, other);
	/* It is behind itself as it is. */
	ibufq_concat(one, one);
	CHECK_INT(ibufq_queuelen(one), 4);
	CHECK_INT(ibufq_queuelen(other), 0);
	CHECK(ibufq_pop(other) == NULL);
	buf = ibufq_pop(one);
	REQUIRE(buf != NULL);
	CHECK_BYTES(ibuf_data(buf), "a", 1);
	CHECK_INT(ibufq_queuelen(one), 3);
	enqueue(queue, "+", 1, -1);
	msgbuf_concat(queue, one);
	CHECK_INT(msgbuf_queuelen(queue), 4);
	CHECK_INT(ibufq_queuelen(one), 0);
	ibuf_close(queue, buf);
	CHECK_INT(msgbuf_write(ends[0], queue), 0);
	CHECK_INT(receive(ends[1], got, sizeof(got), &number), 5);
	CHECK_BYTES(got, "+bcda", 5);
	/* What is moved from nothing is nothing. */
	msgbuf_concat(queue, one);
	ibufq_concat(one, other);
	CHECK_INT(msgbuf_queuelen(queue), 0);
	ibufq_free(one);
	ibufq_free(other);
	ibufq_free(NULL);
	DONE(queue);
	msgbuf_free(NULL);
	close(ends[0]);
	close(ends[1]);
}

static void
a_queue_that_is_flushed_or_freed_closes_its_descriptors(void)
{
	struct ibufqueue *queue = ibufq_new();
	int fds[2], i;

	REQUIRE(queue != NULL);
	for (i = 0; i < 2; i++) {
		struct ibuf *buf = ibuf_open(0);

		fds[i] = numbered(i);
		REQUIRE(buf != NULL);
		ibuf_fd_set(buf, fds[i]);
		ibufq_push(queue, buf);
		if (i == 0) {
			ibufq_flush(queue);
			CHECK_INT(ibufq_queuelen(queue), 0);
			CHECK_ERROR(fcntl(fds[0], F_GETFD), -1, EBADF);
		}
	}
	ibufq_free(queue);
	CHECK_ERROR(fcntl(fds[1], F_GETFD), -1, EBADF);
}

static void
push_lent(void *argument)
{
	static struct ibufqueue *queue;
	struct ibuf buf;

	queue = ibufq_new();
	REQUIRE(queue != NULL);
	ibuf_from_buffer(&buf, argument, 1);
	ibufq_push(queue, &buf);
}

static void
a_lent_buffer_is_not_queued(void)
{
	char byte = 'a';

	CHECK_ABORTS(push_lent, &byte);
}
#endif

int
main(void)
{
	RUN(a_new_queue_is_empty);
#if !MODERN
	RUN(the_members_of_a_queue_are_the_programs_too);
#endif
	RUN(buffers_are_written_in_order);
	RUN(a_buffer_begins_at_its_read_position);
	RUN(empty_buffers_go_with_the_others);
	RUN(more_buffers_than_one_call_takes);
	RUN(a_descriptor_goes_with_the_first_byte_of_its_buffer);
	RUN(clearing_closes_the_descriptors);
	RUN(what_a_full_socket_does_not_take_stays_queued);
	RUN(a_send_with_a_descriptor_ends_at_the_time_out_of_the_socket);
	RUN(a_send_with_a_descriptor_waits_also_where_no_descriptor_may_be_opened);
	RUN(a_socket_that_waits_takes_all_of_a_message_with_a_descriptor);
	RUN(a_peer_that_is_gone_is_an_error_that_keeps_the_queue);
	RUN(a_descriptor_that_is_not_open_is_an_error);
	RUN(buffers_are_written_to_pipes_and_files);
#if MODERN
	RUN(queues_of_buffers_are_moved);
	RUN(a_queue_that_is_flushed_or_freed_closes_its_descriptors);
	RUN(a_lent_buffer_is_not_queued);
#endif
	return finish();
}
