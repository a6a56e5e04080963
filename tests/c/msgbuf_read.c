/* Reading messages of a format of one's own: msgbuf_new_reader, msgbuf_read, ibuf_read, msgbuf_get. */
#include "peer.h"

#define SMALL_HEADER 2
#define TOO_LONG 200

/* How often it was asked, and what it is to do with a descriptor. */
struct reader {
	int asked;
	int takes;
};

/* A message is its length in one byte, header included, and a kind. */
static struct ibuf *
read_header(struct ibuf *buf, void *argument, int *fd)
{
	struct reader *reader = (struct reader *)argument;
	struct ibuf *message;
	uint8_t len, kind;

	reader->asked++;
	CHECK_INT(ibuf_size(buf), SMALL_HEADER);
	if (ibuf_get_n8(buf, &len) == -1 || ibuf_get_n8(buf, &kind) == -1)
		return NULL;
	if (len < SMALL_HEADER || len > TOO_LONG) {
		errno = ERANGE;
		return NULL;
	}
	if ((message = ibuf_open(len)) == NULL)
		return NULL;
	if (kind == 'f' && reader->takes) {
		ibuf_fd_set(message, *fd);
		*fd = -1;
	}
	return message;
}

static void
expect(struct msgbuf *queue, const void *bytes, size_t len, int number)
{
	struct ibuf *buf = msgbuf_get(queue);

	REQUIRE(buf != NULL);
	CHECK_INT(ibuf_size(buf), len);
	CHECK_INT(ibuf_left(buf), 0);
	CHECK_BYTES(ibuf_data(buf), bytes, len);
	CHECK_INT(number_of(ibuf_fd_get(buf)), number);
	ibuf_free(buf);
}

static void
a_header_has_a_size(void)
{
	struct reader reader = { 0, 1 };
	struct msgbuf *queue;

	CHECK_NULL(msgbuf_new_reader(0, read_header, &reader), EINVAL);
	CHECK_NULL(msgbuf_new_reader(IBUF_READ_SIZE / 2 + 1, read_header, &reader), EINVAL);
	queue = msgbuf_new_reader(IBUF_READ_SIZE / 2, read_header, &reader);
	REQUIRE(queue != NULL);
	msgbuf_free(queue);
}

static void
a_queue_that_does_not_read_says_so(void)
{
	struct msgbuf *queue = msgbuf_new();

	REQUIRE(queue != NULL);
	CHECK_ERROR(msgbuf_read(0, queue), -1, EINVAL);
	CHECK_ERROR(ibuf_read(0, queue), -1, EINVAL);
	CHECK(msgbuf_get(queue) == NULL);
	CHECK_INT(msgbuf_readlen(queue), 0);
	msgbuf_free(queue);
}

static void
messages_are_taken_from_a_pipe(void)
{
	struct reader reader = { 0, 1 };
	struct msgbuf *queue = msgbuf_new_reader(SMALL_HEADER, read_header, &reader);
	int ends[2];

	REQUIRE(queue != NULL && pipe(ends) == 0);
	REQUIRE(write(ends[1], "\2a\5bxyz\4cx", 10) == 10);
	CHECK_INT(ibuf_read(ends[0], queue), 1);
	CHECK_INT(msgbuf_readlen(queue), 2);
	expect(queue, "\2a", 2, -1);
	CHECK_INT(msgbuf_readlen(queue), 1);
	expect(queue, "\5bxyz", 5, -1);
	CHECK(msgbuf_get(queue) == NULL);
	REQUIRE(write(ends[1], "y", 1) == 1);
	CHECK_INT(ibuf_read(ends[0], queue), 1);
	expect(queue, "\4cxy", 4, -1);
	CHECK_INT(reader.asked, 3);
	close(ends[1]);
	CHECK_INT(ibuf_read(ends[0], queue), 0);
	msgbuf_free(queue);
	close(ends[0]);
}

static void
messages_come_together_byte_by_byte(void)
{
	static const char stream[] = "\2a\5bxyz\2c\11d1234567";
	struct reader reader = { 0, 1 };
	struct msgbuf *queue = msgbuf_new_reader(SMALL_HEADER, read_header, &reader);
	int ends[2];
	size_t i;

	REQUIRE(queue != NULL);
	connect_pair(ends);
	for (i = 0; i < sizeof(stream) - 1; i++) {
		send_bytes(ends[1], stream + i, 1);
		CHECK_INT(i % 2 ? ibuf_read(ends[0], queue) : msgbuf_read(ends[0], queue), 1);
	}
	CHECK_INT(msgbuf_readlen(queue), 4);
	CHECK_INT(reader.asked, 4);
	expect(queue, "\2a", 2, -1);
	expect(queue, "\5bxyz", 5, -1);
	expect(queue, "\2c", 2, -1);
	expect(queue, "\11d1234567", 9, -1);
	msgbuf_free(queue);
	close(ends[0]);
	close(ends[1]);
}

static void
nothing_to_read_is_no_error(void)
{
	struct reader reader = { 0, 1 };
	struct msgbuf *queue = msgbuf_new_reader(SMALL_HEADER, read_header, &reader);
	int ends[2];

	REQUIRE(queue != NULL);
	connect_pair(ends);
	REQUIRE(fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
	CHECK_INT(msgbuf_read(ends[0], queue), 1);
	CHECK_INT(ibuf_read(ends[0], queue), 1);
	CHECK(msgbuf_get(queue) == NULL);
	close(ends[1]);
	CHECK_INT(msgbuf_read(ends[0], queue), 0);
	CHECK_INT(ibuf_read(ends[0], queue), 0);
	CHECK_ERROR(msgbuf_read(-1, queue), -1, EBADF);
	CHECK_ERROR(ibuf_read(-1, queue), -1, EBADF);
	msgbuf_free(queue);
	close(ends[0]);
}

static void
a_descriptor_is_offered_to_the_reader(void)
{
	struct reader reader = { 0, 1 };
	struct msgbuf *queue = msgbuf_new_reader(SMALL_HEADER, read_header, &reader);
	int ends[2], fd;

	REQUIRE(queue != NULL);
	connect_pair(ends);
	send_bytes(ends[1], "\3ax", 3);
	fd = numbered(1);
	send_with(ends[1], "\3fy", 3, &fd, 1);
	while (msgbuf_readlen(queue) < 2)
		REQUIRE(msgbuf_read(ends[0], queue) == 1);
	expect(queue, "\3ax", 3, -1);
	expect(queue, "\3fy", 3, 1);
	/* It is closed when nobody wants it. */
	reader.takes = 0;
	fd = numbered(2);
	send_with(ends[1], "\3fy", 3, &fd, 1);
	CHECK_INT(msgbuf_read(ends[0], queue), 1);
	expect(queue, "\3fy", 3, -1);
	/* And where descriptors are not read. */
	reader.takes = 1;
	fd = numbered(3);
	send_with(ends[1], "\3fy", 3, &fd, 1);
	CHECK_INT(ibuf_read(ends[0], queue), 1);
	expect(queue, "\3fy", 3, -1);
	msgbuf_free(queue);
	close(ends[0]);
	close(ends[1]);
}

static void
a_header_that_is_refused_is_an_error(void)
{
	struct reader reader = { 0, 1 };
	struct msgbuf *queue = msgbuf_new_reader(SMALL_HEADER, read_header, &reader);
	int ends[2], fd = numbered(1), result;

	REQUIRE(queue != NULL);
	connect_pair(ends);
	send_bytes(ends[1], "\2a", 2);
	send_with(ends[1], "\1fy", 3, &fd, 1);
	/* Linux gives both in one read, others do not. */
	while ((result = msgbuf_read(ends[0], queue)) == 1)
		continue;
	CHECK_INT(result, -1);
	CHECK_INT(errno, ERANGE);
	/* What was before it is there. */
	expect(queue, "\2a", 2, -1);
	CHECK(msgbuf_get(queue) == NULL);
	msgbuf_free(queue);
	close(ends[0]);
	close(ends[1]);
}

static void
clearing_forgets_what_was_read(void)
{
	struct reader reader = { 0, 1 };
	struct msgbuf *queue = msgbuf_new_reader(SMALL_HEADER, read_header, &reader);
	int ends[2], fd = numbered(1);

	REQUIRE(queue != NULL);
	connect_pair(ends);
	send_with(ends[1], "\5fab", 4, &fd, 1);
	CHECK_INT(msgbuf_read(ends[0], queue), 1);
	msgbuf_clear(queue);
	send_bytes(ends[1], "\2a\5b", 4);
	CHECK_INT(msgbuf_read(ends[0], queue), 1);
	CHECK_INT(msgbuf_readlen(queue), 1);
	msgbuf_clear(queue);
	CHECK_INT(msgbuf_readlen(queue), 0);
	send_bytes(ends[1], "\2c\2", 3);
	CHECK_INT(msgbuf_read(ends[0], queue), 1);
	msgbuf_clear(queue);
	send_bytes(ends[1], "\2d", 2);
	CHECK_INT(msgbuf_read(ends[0], queue), 1);
	expect(queue, "\2d", 2, -1);
	msgbuf_free(queue);
	close(ends[0]);
	close(ends[1]);
}

static void
a_queue_reads_and_writes(void)
{
	struct reader reader = { 0, 1 };
	struct msgbuf *queue = msgbuf_new_reader(SMALL_HEADER, read_header, &reader);
	struct ibuf *buf;
	int ends[2];

	REQUIRE(queue != NULL);
	connect_pair(ends);
	send_bytes(ends[1], "\3ax", 3);
	CHECK_INT(msgbuf_read(ends[0], queue), 1);
	buf = msgbuf_get(queue);
	REQUIRE(buf != NULL);
	/* What was read is written as it is. */
	ibuf_close(queue, buf);
	CHECK_INT(msgbuf_queuelen(queue), 1);
	CHECK_INT(msgbuf_write(ends[1], queue), 0);
	CHECK_INT(msgbuf_read(ends[0], queue), 1);
	expect(queue, "\3ax", 3, -1);
	msgbuf_free(queue);
	close(ends[0]);
	close(ends[1]);
}

/* Takes what came before, and queues an answer, while the next message is begun. */
static struct ibuf *
read_and_answer(struct ibuf *header, void *argument, int *fd)
{
	struct msgbuf *queue = *(struct msgbuf **)argument;
	struct ibuf *before = msgbuf_get(queue), *answer = ibuf_open(1);
	struct reader reader = { 0, 0 };

	REQUIRE(answer != NULL && ibuf_add(answer, "a", 1) == 0);
	ibuf_close(queue, answer);
	CHECK_INT(msgbuf_queuelen(queue) > 1, before != NULL);
	ibuf_free(before);
	return read_header(header, &reader, fd);
}

static void
the_function_may_use_the_queue_that_is_read_for(void)
{
	struct msgbuf *queue;
	int ends[2];

	connect_pair(ends);
	queue = msgbuf_new_reader(SMALL_HEADER, read_and_answer, &queue);
	REQUIRE(queue != NULL);
	send_bytes(ends[1], "\3ab\4cde\3", 8);
	CHECK_INT(msgbuf_read(ends[0], queue), 1);
	CHECK_INT(msgbuf_queuelen(queue), 2);
	send_bytes(ends[1], "fg", 2);
	CHECK_INT(msgbuf_read(ends[0], queue), 1);
	CHECK_INT(msgbuf_queuelen(queue), 3);
	expect(queue, "\3fg", 3, -1);
	CHECK(msgbuf_get(queue) == NULL);
	msgbuf_free(queue);
	close(ends[0]);
	close(ends[1]);
}

static void
descriptors_that_come_together_are_closed(void)
{
	struct reader reader = { 0, 1 };
	struct msgbuf *queue;
	int ends[2], fds[2];

	connect_pair(ends);
	queue = msgbuf_new_reader(SMALL_HEADER, read_header, &reader);
	REQUIRE(queue != NULL);
	fds[0] = numbered(1);
	fds[1] = numbered(2);
	send_with(ends[1], "\2f", 2, fds, 2);
	CHECK_INT(msgbuf_read(ends[0], queue), 1);
	expect(queue, "\2f", 2, -1);
	msgbuf_free(queue);
	close(ends[0]);
	close(ends[1]);
}

int
main(void)
{
	RUN(a_header_has_a_size);
	RUN(a_queue_that_does_not_read_says_so);
	RUN(messages_are_taken_from_a_pipe);
	RUN(messages_come_together_byte_by_byte);
	RUN(nothing_to_read_is_no_error);
	RUN(a_descriptor_is_offered_to_the_reader);
	RUN(a_header_that_is_refused_is_an_error);
	RUN(clearing_forgets_what_was_read);
	RUN(a_queue_reads_and_writes);
	RUN(the_function_may_use_the_queue_that_is_read_for);
	RUN(descriptors_that_come_together_are_closed);
	return finish();
}
