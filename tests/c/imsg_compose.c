/* Composing messages: the bytes, the limits, and who owns the descriptor. */
#include "peer.h"

#define MOST (MAX_IMSGSIZE - HEADER)

/* What imsg_add gives. */
#define CHECK_ADDED(call, len) CHECK_INT(call, MODERN ? 0 : (len))

static unsigned char payload[MAX_IMSGSIZE + 1];

/* What was flushed is this message. */
static void
expect(struct imsgbuf *channel, int peer, uint32_t type, uint32_t id, uint32_t pid, int marked,
    const void *bytes, size_t len)
{
	static unsigned char got[MAX_IMSGSIZE];
	unsigned char header[HEADER];
	size_t have = 0;

	CHECK_INT(channel_flush(channel), 0);
	CHECK_INT(channel_queued(channel), 0);
	while (have < HEADER + len) {
		ssize_t n = recv(peer, got + have, HEADER + len - have, 0);

		REQUIRE(n > 0);
		have += (size_t)n;
	}
	put_header(header, type, (uint32_t)(HEADER + len), marked);
	memcpy(header + 8, &id, 4);
	memcpy(header + 12, &pid, 4);
	CHECK_BYTES(got, header, HEADER);
	CHECK_BYTES(got + HEADER, bytes, len);
	CHECK_ERROR(recv(peer, got, 1, MSG_DONTWAIT), -1, EAGAIN);
}

static void
a_message_is_a_header_and_a_payload(void)
{
	struct imsgbuf channel;
	int peer = channel_and_peer(&channel);

	CHECK_INT(channel_queued(&channel), 0);
	CHECK_INT(imsg_compose(&channel, 1, 2, 3, -1, "hello", 5), 1);
	CHECK_INT(channel_queued(&channel), 1);
	expect(&channel, peer, 1, 2, 3, 0, "hello", 5);
	CHECK_INT(imsg_compose(&channel, UINT32_MAX, UINT32_MAX, -1, -1, NULL, 0), 1);
	expect(&channel, peer, UINT32_MAX, UINT32_MAX, UINT32_MAX, 0, "", 0);
	channel_close(&channel);
	close(peer);
}

static void
pid_zero_is_the_process_that_made_the_channel(void)
{
	struct imsgbuf channel;
	int peer = channel_and_peer(&channel);

	CHECK_INT(channel.pid, getpid());
	CHECK_INT(imsg_compose(&channel, 1, 2, 0, -1, NULL, 0), 1);
	expect(&channel, peer, 1, 2, (uint32_t)getpid(), 0, "", 0);
	channel.pid = 77;
	CHECK_INT(imsg_compose(&channel, 1, 2, 0, -1, NULL, 0), 1);
	expect(&channel, peer, 1, 2, 77, 0, "", 0);
	channel_close(&channel);
	close(peer);
}

static void
the_largest_message_and_one_more_byte(void)
{
	struct imsgbuf channel;
	int peer = channel_and_peer(&channel), fd;

	CHECK_INT(imsg_compose(&channel, 1, 2, 3, -1, payload, MOST), 1);
	expect(&channel, peer, 1, 2, 3, 0, payload, MOST);
	fd = numbered(1);
	CHECK_ERROR(imsg_compose(&channel, 1, 2, 3, fd, payload, MOST + 1), -1, ERANGE);
	CHECK_INT(channel_queued(&channel), 0);
	/* The descriptor of a message that was refused is still the program's. */
	CHECK_INT(number_of(fd), 1);
	channel_close(&channel);
	close(peer);
}

static void
a_descriptor_is_closed_once_it_was_sent(void)
{
	struct imsgbuf channel;
	int peer = channel_and_peer(&channel), fd = numbered(1);

	CHECK_INT(imsg_compose(&channel, 1, 2, 3, fd, "a", 1), 1);
	CHECK(fcntl(fd, F_GETFD) != -1);
	expect(&channel, peer, 1, 2, 3, 1, "a", 1);
	CHECK_ERROR(fcntl(fd, F_GETFD), -1, EBADF);
	channel_close(&channel);
	close(peer);
}

static void
a_message_is_composed_of_parts(void)
{
	struct imsgbuf channel;
	struct iovec parts[4];
	int peer = channel_and_peer(&channel);

	parts[0].iov_base = (void *)(uintptr_t)"one";
	parts[0].iov_len = 3;
	parts[1].iov_base = NULL;
	parts[1].iov_len = 0;
	parts[2].iov_base = (void *)(uintptr_t)"two";
	parts[2].iov_len = 3;
	CHECK_INT(imsg_composev(&channel, 1, 2, 3, -1, parts, 3), 1);
	expect(&channel, peer, 1, 2, 3, 0, "onetwo", 6);
	CHECK_INT(imsg_composev(&channel, 1, 2, 3, numbered(1), NULL, 0), 1);
	expect(&channel, peer, 1, 2, 3, 1, "", 0);
	parts[3].iov_base = payload;
	parts[3].iov_len = MOST - 5;
	CHECK_ERROR(imsg_composev(&channel, 1, 2, 3, -1, parts, 4), -1, ERANGE);
	CHECK_INT(channel_queued(&channel), 0);
	parts[3].iov_len = MOST - 6;
	CHECK_INT(imsg_composev(&channel, 1, 2, 3, -1, parts, 4), 1);
	CHECK_INT(channel_queued(&channel), 1);
	channel_close(&channel);
	close(peer);
}

static void
a_message_is_built_step_by_step(void)
{
	struct imsgbuf channel;
	struct ibuf *message;
	int peer = channel_and_peer(&channel);

	message = imsg_create(&channel, 1, 2, 3, 4);
	REQUIRE(message != NULL);
	CHECK_INT(ibuf_size(message), HEADER);
	/* More than was said is fine. */
	CHECK_ADDED(imsg_add(message, "abc", 3), 3);
	CHECK_ADDED(imsg_add(message, "", 0), 0);
	CHECK_INT(ibuf_add_n32(message, 0x01020304), 0);
	CHECK_INT(channel_queued(&channel), 0);
	imsg_close(&channel, message);
	CHECK_INT(channel_queued(&channel), 1);
	expect(&channel, peer, 1, 2, 3, 0, "abc\1\2\3\4", 7);

	message = imsg_create(&channel, 1, 2, 3, 0);
	REQUIRE(message != NULL);
	ibuf_fd_set(message, numbered(1));
	imsg_close(&channel, message);
	expect(&channel, peer, 1, 2, 3, 1, "", 0);

	/* What was set is not what counts: the length is that of the end. */
	message = imsg_create(&channel, 1, 2, 3, 8);
	REQUIRE(message != NULL);
	CHECK_INT(ibuf_add_zero(message, 8), 0);
	CHECK_INT(ibuf_truncate(message, HEADER + 2), 0);
	imsg_close(&channel, message);
	expect(&channel, peer, 1, 2, 3, 0, "\0\0", 2);
	channel_close(&channel);
	close(peer);
}

static void
a_message_that_grows_too_large_is_freed(void)
{
	struct imsgbuf channel;
	struct ibuf *message;
	int peer = channel_and_peer(&channel), fd = numbered(1);

	CHECK_NULL(imsg_create(&channel, 1, 2, 3, MOST + 1), ERANGE);
	message = imsg_create(&channel, 1, 2, 3, MOST);
	REQUIRE(message != NULL);
	ibuf_fd_set(message, fd);
	CHECK_ADDED(imsg_add(message, payload, MOST), MOST);
	CHECK_ERROR(imsg_add(message, "a", 1), -1, ERANGE);
	CHECK_ERROR(fcntl(fd, F_GETFD), -1, EBADF);
	message = imsg_create(&channel, 1, 2, 3, 0);
	REQUIRE(message != NULL);
	CHECK_INT(ibuf_left(message), MOST);
	ibuf_free(message);
	CHECK_INT(channel_queued(&channel), 0);
	channel_close(&channel);
	close(peer);
}

#ifndef LACKS_COMPOSE_IBUF
static void
a_payload_is_given_as_a_buffer(void)
{
	struct imsgbuf channel;
	struct ibuf *buf = ibuf_dynamic(0, MAX_IMSGSIZE);
	int peer = channel_and_peer(&channel);

	REQUIRE(buf != NULL && ibuf_add(buf, "hello", 5) == 0);
	CHECK_INT(imsg_compose_ibuf(&channel, 1, 2, 3, buf), 1);
	expect(&channel, peer, 1, 2, 3, 0, "hello", 5);
	buf = ibuf_dynamic(0, MAX_IMSGSIZE);
	REQUIRE(buf != NULL && ibuf_add(buf, payload, MOST + 1) == 0);
	/* It is consumed either way. */
	CHECK_ERROR(imsg_compose_ibuf(&channel, 1, 2, 3, buf), -1, ERANGE);
	CHECK_INT(channel_queued(&channel), 0);
	channel_close(&channel);
	close(peer);
}
#endif

#if MODERN
static void
a_string_is_added_as_a_field(void)
{
	struct imsgbuf channel;
	struct ibuf *message;
	int peer = channel_and_peer(&channel);

	message = imsg_create(&channel, 1, 2, 3, 8);
	REQUIRE(message != NULL);
	CHECK_INT(imsg_add_strbuf(message, "hello", 8), 0);
	imsg_close(&channel, message);
	expect(&channel, peer, 1, 2, 3, 0, "hello\0\0\0", 8);
	message = imsg_create(&channel, 1, 2, 3, 4);
	REQUIRE(message != NULL);
	CHECK_ERROR(imsg_add_strbuf(message, "hello", 4), -1, EOVERFLOW);
	channel_close(&channel);
	close(peer);
}

static void
a_channel_has_a_maximum_of_its_own(void)
{
	struct imsgbuf channel;
	struct ibuf *message;
	int peer = channel_and_peer(&channel);

	CHECK_INT(channel.maxsize, MAX_IMSGSIZE);
	CHECK_INT(imsgbuf_set_maxsize(&channel, 4), 0);
	CHECK_INT(channel.maxsize, HEADER + 4);
	CHECK_INT(imsg_compose(&channel, 1, 2, 3, -1, "abcd", 4), 1);
	expect(&channel, peer, 1, 2, 3, 0, "abcd", 4);
	CHECK_ERROR(imsg_compose(&channel, 1, 2, 3, -1, "abcde", 5), -1, ERANGE);
	CHECK_ERROR(imsgbuf_set_maxsize(&channel, UINT32_MAX), -1, ERANGE);
	CHECK_ERROR(imsgbuf_set_maxsize(&channel, UINT32_MAX - HEADER + 1), -1, ERANGE);
	CHECK_ERROR(imsgbuf_set_maxsize(&channel, UINT32_MAX - HEADER), -1, EINVAL);
	CHECK_ERROR(imsgbuf_set_maxsize(&channel, 0x80000000U - HEADER), -1, EINVAL);
	CHECK_INT(channel.maxsize, HEADER + 4);
	CHECK_INT(imsgbuf_set_maxsize(&channel, MAX_IMSGSIZE), 0);
	CHECK_INT(imsg_compose(&channel, 1, 2, 3, -1, payload, MAX_IMSGSIZE), 1);
	CHECK_INT(channel_queued(&channel), 1);

	message = imsg_create(&channel, 1, 2, 3, 0);
	REQUIRE(message != NULL);
	CHECK_INT(imsg_set_maxsize(message, 3), 0);
	CHECK_ERROR(imsg_set_maxsize(message, 4), -1, ERANGE);
	CHECK_ERROR(imsg_set_maxsize(message, SIZE_MAX), -1, ERANGE);
	CHECK_ERROR(imsg_set_maxsize(message, UINT32_MAX), -1, ERANGE);
	CHECK_INT(ibuf_add(message, "abc", 3), 0);
	CHECK_ERROR(imsg_set_maxsize(message, 2), -1, ERANGE);
	CHECK_ERROR(imsg_add(message, "d", 1), -1, ERANGE);
	channel_close(&channel);
	close(peer);
}
#endif

static void
a_cleared_channel_closes_what_it_did_not_send(void)
{
	struct imsgbuf channel;
	int peer = channel_and_peer(&channel), fd = numbered(1), other = numbered(2);

	CHECK_INT(imsg_compose(&channel, 1, 2, 3, fd, "a", 1), 1);
	CHECK_INT(imsg_compose(&channel, 1, 2, 3, -1, "a", 1), 1);
	CHECK_INT(imsg_compose(&channel, 1, 2, 3, other, "a", 1), 1);
	CHECK_INT(channel_queued(&channel), 3);
	channel_close(&channel);
	close(peer);
	CHECK_ERROR(fcntl(fd, F_GETFD), -1, EBADF);
	CHECK_ERROR(fcntl(other, F_GETFD), -1, EBADF);
}

static void
a_message_is_forwarded_without_its_descriptor(void)
{
	struct imsgbuf from, to;
	struct imsg message;
	int peer = channel_and_peer(&from), far = channel_and_peer(&to), fd = numbered(1);
	unsigned char bytes[HEADER + 5];
	char first;

	put_header(bytes, 9, sizeof(bytes), 1);
	memcpy(bytes + HEADER, "hello", 5);
	/* A pid of 0 would be this process. */
	send_with(peer, bytes, sizeof(bytes), &fd, 1);
	REQUIRE(channel_next(&from, &message) == 1);
	/* Also when some of it was read. */
	CHECK_INT(ibuf_get(message.buf, &first, 1), 0);
	CHECK_INT(imsg_forward(&to, &message), 1);
	expect(&to, far, 9, 0, 1, 0, "hello", 5);
	CHECK_INT(imsg_forward(&to, &message), 1);
	expect(&to, far, 9, 0, 1, 0, "hello", 5);
#if !MODERN
	/* The classic one closes it. */
	CHECK_INT(imsg_get_fd(&message), -1);
#endif
	imsg_free(&message);
	send_message(peer, 4, 0, 0);
	REQUIRE(channel_next(&from, &message) == 1);
	CHECK_INT(imsg_forward(&to, &message), 1);
	expect(&to, far, 4, 0, 1, 0, "", 0);
	imsg_free(&message);
	channel_close(&from);
	close(peer);
	channel_close(&to);
	close(far);
}

static void
many_messages_are_flushed(void)
{
	struct imsgbuf channel;
	int peer = channel_and_peer(&channel), i;
	pid_t reader = fork();

	REQUIRE(reader != -1);
	if (reader == 0) {
		static char got[65536];
		size_t n = 0;
		ssize_t m;

		close(channel.fd);
		while ((m = recv(peer, got, sizeof(got), 0)) > 0)
			n += (size_t)m;
		_exit(n != 5000 * (HEADER + 100));
	}
	for (i = 0; i < 5000; i++)
		REQUIRE(imsg_compose(&channel, 1, 2, 3, -1, payload, 100) == 1);
	CHECK_INT(channel_queued(&channel), 5000);
	CHECK_INT(channel_flush(&channel), 0);
	CHECK_INT(channel_queued(&channel), 0);
	channel_close(&channel);
	close(peer);
	REQUIRE(waitpid(reader, &i, 0) == reader);
	CHECK_INT(i, 0);
}

int
main(void)
{
	size_t i;

	for (i = 0; i < sizeof(payload); i++)
		payload[i] = (unsigned char)(i / 3);
	RUN(a_message_is_a_header_and_a_payload);
	RUN(pid_zero_is_the_process_that_made_the_channel);
	RUN(the_largest_message_and_one_more_byte);
	RUN(a_descriptor_is_closed_once_it_was_sent);
	RUN(a_message_is_composed_of_parts);
	RUN(a_message_is_built_step_by_step);
	RUN(a_message_that_grows_too_large_is_freed);
#ifndef LACKS_COMPOSE_IBUF
	RUN(a_payload_is_given_as_a_buffer);
#endif
#if MODERN
	RUN(a_string_is_added_as_a_field);
	RUN(a_channel_has_a_maximum_of_its_own);
#endif
	RUN(a_cleared_channel_closes_what_it_did_not_send);
	RUN(a_message_is_forwarded_without_its_descriptor);
	RUN(many_messages_are_flushed);
	return finish();
}
