/* Receiving messages: what a program sees of them, and what is refused. */
#include "drain.h"

static void
send_payload(int peer, uint32_t type, const void *bytes, size_t len)
{
	static unsigned char message[MAX_IMSGSIZE];

	put_header(message, type, (uint32_t)(HEADER + len), 0);
	memcpy(message + HEADER, bytes, len);
	send_bytes(peer, message, HEADER + len);
}

static void
a_message_shows_its_header_and_its_payload(void)
{
	unsigned char bytes[HEADER + 5];
	struct imsgbuf channel;
	struct imsg message;
	int peer = channel_and_peer(&channel);
	uint32_t id = 0xcafe, pid = 4711;

	CHECK_INT(channel_get(&channel, &message), 0);
	put_header(bytes, 7, sizeof(bytes), 0);
	memcpy(bytes + 8, &id, 4);
	memcpy(bytes + 12, &pid, 4);
	memcpy(bytes + HEADER, "hello", 5);
	send_bytes(peer, bytes, sizeof(bytes));
#if MODERN
	CHECK_INT(imsgbuf_read(&channel), 1);
	CHECK_INT(imsgbuf_get(&channel, &message), 1);
#else
	CHECK_INT(imsg_read(&channel), HEADER + 5);
	CHECK_INT(imsg_get(&channel, &message), HEADER + 5);
	CHECK_INT(message.fd, -1);
	CHECK_INT(message.hdr.flags, 0);
#endif
	CHECK_INT(message.hdr.type, 7);
	CHECK_INT(message.hdr.len, HEADER + 5);
	CHECK_INT(message.hdr.peerid, id);
	CHECK_INT(message.hdr.pid, pid);
	CHECK_INT(imsg_get_type(&message), 7);
	CHECK_INT(imsg_get_id(&message), id);
	CHECK_INT(imsg_get_pid(&message), pid);
	CHECK_INT(imsg_get_len(&message), 5);
	CHECK_INT(imsg_get_fd(&message), -1);
	CHECK_BYTES(message.data, "hello", 5);
	/* Programs take it for a structure of theirs. */
	CHECK_INT((uintptr_t)message.data % sizeof(uint64_t), 0);
	REQUIRE(message.buf != NULL);
	CHECK_INT(ibuf_size(message.buf), 5);
	CHECK(ibuf_data(message.buf) == message.data);
	/* Its payload can be changed. */
	memcpy(message.data, "HELLO", 5);
	CHECK_BYTES(ibuf_data(message.buf), "HELLO", 5);
	imsg_free(&message);
	CHECK_INT(channel_get(&channel, &message), 0);
	close(peer);
	CHECK_INT(channel_read(&channel), 0);
	channel_close(&channel);
}

#if !MODERN && !defined(ORIGINAL)
/* As OpenBGPD 7.7 keeps messages for later. */
static void
a_message_is_moved_by_its_data(void)
{
	struct imsgbuf channel;
	struct imsg message, moved;
	unsigned char sent[HEADER + 5];
	int peer = channel_and_peer(&channel);

	put_header(sent, 3, sizeof(sent), 0);
	memcpy(sent + HEADER, "hello", 5);
	send_bytes(peer, sent, sizeof(sent));
	REQUIRE(channel_next(&channel, &message) == 1);
	moved = message;
	message.data = NULL;
	imsg_free(&message);
	REQUIRE(imsg_get_len(&moved) == 5);
	CHECK_BYTES(moved.data, "hello", 5);
	imsg_free(&moved);
	close(peer);
	channel_close(&channel);
}
#endif

#if !MODERN
/* As OpenBGPD and OpenSMTPD do on sockets of clients. */
static void
read_by_the_program(struct imsgbuf *channel)
{
	ssize_t n = read(channel->fd, channel->r.buf + channel->r.wpos,
	    sizeof(channel->r.buf) - channel->r.wpos);

	REQUIRE(n > 0);
	channel->r.wpos += n;
}

static int
take_all(struct imsgbuf *channel, int count)
{
	struct imsg message;
	ssize_t n;

	while ((n = imsg_get(channel, &message)) > 0) {
		CHECK_INT(message.hdr.type, count % 3);
		CHECK_INT(imsg_get_len(&message), 1000);
		CHECK_INT(((unsigned char *)message.data)[999], count % 251);
		imsg_free(&message);
		count++;
	}
	CHECK_INT(n, 0);
	return (count);
}

static void
a_program_reads_into_the_buffer(void)
{
	static unsigned char sent[300 * (HEADER + 1000)];
	struct imsgbuf channel;
	size_t at, part, len;
	int peer = channel_and_peer(&channel), i, count = 0;

	for (i = 0; i < 300; i++) {
		unsigned char *place = sent + i * (HEADER + 1000);

		put_header(place, i % 3, HEADER + 1000, 0);
		memset(place + HEADER, i % 251, 1000);
	}
	/* Every third part by the library, and messages that are left for later. */
	for (at = 0, part = 0; at < sizeof(sent); at += len, part++) {
		len = part * 37 % 3000 + 1;
		if (len > sizeof(sent) - at)
			len = sizeof(sent) - at;
		send_bytes(peer, sent + at, len);
		if (part % 3 == 2)
			REQUIRE(imsg_read(&channel) == (ssize_t)len);
		else
			read_by_the_program(&channel);
		if (part % 5 != 4)
			count = take_all(&channel, count);
	}
	CHECK_INT(take_all(&channel, count), 300);
	close(peer);
	channel_close(&channel);
}
#endif

static void
a_message_without_a_payload(void)
{
	struct imsgbuf channel;
	struct imsg message;
	struct ibuf payload;
	int peer = channel_and_peer(&channel);
	char byte;

	send_message(peer, 3, 0, 0);
	REQUIRE(channel_next(&channel, &message) == 1);
	CHECK_INT(message.hdr.len, HEADER);
	CHECK(message.data == NULL);
	CHECK_INT(imsg_get_len(&message), 0);
	CHECK_ERROR(imsg_get_data(&message, &byte, 0), -1, EINVAL);
	CHECK_ERROR(imsg_get_data(&message, &byte, 1), -1, EBADMSG);
	CHECK_ERROR(imsg_get_ibuf(&message, &payload), -1, EBADMSG);
#if MODERN
	CHECK_ERROR(imsg_get_buf(&message, &byte, 1), -1, EBADMSG);
	CHECK_ERROR(imsg_get_strbuf(&message, &byte, 1), -1, EBADMSG);
#endif
	imsg_free(&message);
	close(peer);
	channel_close(&channel);
}

static void
a_payload_is_taken_as_a_whole(void)
{
	struct imsgbuf channel;
	struct imsg message;
	struct ibuf payload;
	int peer = channel_and_peer(&channel);
	char got[8];

	send_payload(peer, 1, "abcde", 5);
	REQUIRE(channel_next(&channel, &message) == 1);
	CHECK_ERROR(imsg_get_data(&message, got, 0), -1, EINVAL);
	CHECK_ERROR(imsg_get_data(&message, got, 4), -1, EBADMSG);
	CHECK_ERROR(imsg_get_data(&message, got, 6), -1, EBADMSG);
	CHECK_INT(imsg_get_data(&message, got, 5), 0);
	CHECK_BYTES(got, "abcde", 5);
	/* It is consumed. */
	CHECK_INT(imsg_get_len(&message), 0);
	CHECK_ERROR(imsg_get_data(&message, got, 5), -1, EBADMSG);
	imsg_free(&message);

	send_payload(peer, 2, "abcde", 5);
	REQUIRE(channel_next(&channel, &message) == 1);
	CHECK_INT(imsg_get_ibuf(&message, &payload), 0);
	CHECK_INT(ibuf_size(&payload), 5);
	CHECK_INT(ibuf_get(&payload, got, 5), 0);
	CHECK_BYTES(got, "abcde", 5);
	CHECK_ERROR(imsg_get_data(&message, got, 5), -1, EBADMSG);
	imsg_free(&message);
	close(peer);
	channel_close(&channel);
}

#if MODERN
static void
a_payload_is_taken_in_parts(void)
{
	struct imsgbuf channel;
	struct imsg message;
	int peer = channel_and_peer(&channel);
	char got[8];

	send_payload(peer, 1, "abcde\0\0\0xyz", 11);
	REQUIRE(channel_next(&channel, &message) == 1);
	CHECK_INT(imsg_get_buf(&message, got, 2), 0);
	CHECK_BYTES(got, "ab", 2);
	CHECK_INT(imsg_get_len(&message), 9);
	CHECK_INT(imsg_get_strbuf(&message, got, 6), 0);
	CHECK_BYTES(got, "cde\0\0\0", 6);
	CHECK_ERROR(imsg_get_buf(&message, got, 4), -1, EBADMSG);
	CHECK_ERROR(imsg_get_strbuf(&message, got, 4), -1, EBADMSG);
	CHECK_ERROR(imsg_get_strbuf(&message, got, 0), -1, EINVAL);
	CHECK_ERROR(imsg_get_strbuf(&message, got, 3), -1, EOVERFLOW);
	CHECK_INT(imsg_get_len(&message), 0);
	imsg_free(&message);
	close(peer);
	channel_close(&channel);
}

static void
messages_are_kept_in_queues(void)
{
	struct ibufqueue *queue = ibufq_new();
	struct imsgbuf channel;
	struct imsg message;
	int peer = channel_and_peer(&channel), i;
	char got[2];

	REQUIRE(queue != NULL);
	CHECK_INT(imsg_ibufq_pop(queue, &message), 0);
	send_message(peer, 1, 1, 11);
	send_payload(peer, 2, "ab", 2);
	for (i = 1; i <= 2; i++) {
		REQUIRE(channel_next(&channel, &message) == 1);
		if (i == 2)
			CHECK_INT(imsg_get_buf(&message, got, 1), 0);
		imsg_ibufq_push(queue, &message);
		/* It is the queue's now. */
		CHECK(message.buf == NULL);
		CHECK(message.data == NULL);
		CHECK_INT(message.hdr.type, 0);
		CHECK_INT(ibufq_queuelen(queue), i);
	}
	CHECK_INT(imsg_ibufq_pop(queue, &message), 1);
	CHECK_INT(imsg_get_type(&message), 1);
	CHECK_INT(message.hdr.len, HEADER);
	CHECK(message.data == NULL);
	CHECK_INT(number_of(imsg_get_fd(&message)), 11);
	imsg_free(&message);
	CHECK_INT(imsg_ibufq_pop(queue, &message), 1);
	CHECK_INT(imsg_get_type(&message), 2);
	/* All of it, also what had been read. */
	CHECK_INT(imsg_get_len(&message), 2);
	CHECK_BYTES(message.data, "ab", 2);
	imsg_free(&message);
	CHECK_INT(imsg_ibufq_pop(queue, &message), 0);
	ibufq_free(queue);
	close(peer);
	channel_close(&channel);
}

static void
a_receiver_has_a_maximum_of_its_own(void)
{
	unsigned char bytes[HEADER];
	static unsigned char large[100000];
	struct imsgbuf channel;
	struct imsg message;
	int peer = channel_and_peer(&channel);
	pid_t sender;

	CHECK_INT(imsgbuf_set_maxsize(&channel, sizeof(large)), 0);
	REQUIRE((sender = fork()) != -1);
	if (sender == 0) {
		size_t sent = 0;

		put_header(bytes, 1, HEADER + sizeof(large), 0);
		send_bytes(peer, bytes, HEADER);
		memset(large, 'l', sizeof(large));
		while (sent < sizeof(large))
			sent += (size_t)send(peer, large + sent, sizeof(large) - sent, 0);
		_exit(0);
	}
	REQUIRE(channel_next(&channel, &message) == 1);
	CHECK_INT(imsg_get_len(&message), sizeof(large));
	memset(large, 'l', sizeof(large));
	CHECK_BYTES(message.data, large, sizeof(large));
	imsg_free(&message);
	put_header(bytes, 2, HEADER + sizeof(large) + 1, 0);
	send_bytes(peer, bytes, HEADER);
	CHECK_TEXT(drain(&channel), "ERANGE");
	REQUIRE(waitpid(sender, NULL, 0) == sender);
	close(peer);
	channel_close(&channel);
}
#endif

static void
a_descriptor_is_given_once(void)
{
	struct imsgbuf channel;
	struct imsg message;
	int peer = channel_and_peer(&channel);

	send_message(peer, 1, 1, 11);
	REQUIRE(channel_next(&channel, &message) == 1);
#if !MODERN
	CHECK(message.fd != -1);
#endif
	CHECK_INT(number_of(imsg_get_fd(&message)), 11);
	CHECK_INT(imsg_get_fd(&message), -1);
#if !MODERN
	CHECK_INT(message.fd, -1);
#endif
	imsg_free(&message);
	close(peer);
	channel_close(&channel);
}

static void
a_descriptor_that_nobody_took(void)
{
	struct imsgbuf channel;
	struct imsg message;
	int peer = channel_and_peer(&channel);

	send_message(peer, 1, 1, 11);
	REQUIRE(channel_next(&channel, &message) == 1);
#if MODERN
	/* The message closes it. */
	imsg_free(&message);
#else
	/* It is the program's, as programs take it from the member. */
	{
		int fd = message.fd;

		imsg_free(&message);
		CHECK_INT(number_of(fd), 11);
	}
#endif
	close(peer);
	channel_close(&channel);
}

static void
a_received_descriptor_is_closed_by_exec(void)
{
	struct imsgbuf channel;
	struct imsg message;
	int peer = channel_and_peer(&channel), fd;

	send_message(peer, 1, 1, 11);
	REQUIRE(channel_next(&channel, &message) == 1);
	fd = imsg_get_fd(&message);
	CHECK_INT(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	CHECK_INT(number_of(fd), 11);
	imsg_free(&message);
	close(peer);
	channel_close(&channel);
}

static void
a_length_out_of_range_ends_the_stream(void)
{
	static const uint32_t lengths[] = { 0, 1, 15, MAX_IMSGSIZE + 1, 65535 };
	unsigned char bytes[2 * HEADER];
	size_t i;

	for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct imsgbuf channel;
		int peer = channel_and_peer(&channel);

		put_header(bytes, 1, HEADER, 0);
		put_header(bytes + HEADER, 2, lengths[i], 0);
		send_bytes(peer, bytes, sizeof(bytes));
		/* What was complete before it is delivered. */
		CHECK_TEXT(drain(&channel), "1 ERANGE");
		close(peer);
		channel_close(&channel);
	}
}

static void
the_smallest_and_the_largest_message(void)
{
	static unsigned char bytes[MAX_IMSGSIZE];
	struct imsgbuf channel;
	struct imsg message;
	int peer = channel_and_peer(&channel);

	put_header(bytes, 1, MAX_IMSGSIZE, 0);
	memset(bytes + HEADER, 'l', MAX_IMSGSIZE - HEADER);
	send_bytes(peer, bytes, sizeof(bytes));
	send_message(peer, 2, 0, 0);
	REQUIRE(channel_next(&channel, &message) == 1);
	CHECK_INT(imsg_get_len(&message), MAX_IMSGSIZE - HEADER);
	CHECK_BYTES(message.data, bytes + HEADER, MAX_IMSGSIZE - HEADER);
	imsg_free(&message);
	close(peer);
	CHECK_TEXT(drain(&channel), "2 end");
	channel_close(&channel);
}

static void
a_socket_that_would_block(void)
{
	struct imsgbuf channel;
	struct imsg message;
	int peer = channel_and_peer(&channel);

	REQUIRE(fcntl(channel.fd, F_SETFL, O_NONBLOCK) == 0);
#if MODERN
	CHECK_INT(imsgbuf_read(&channel), 1);
#else
	CHECK_ERROR(imsg_read(&channel), -1, EAGAIN);
#endif
	CHECK_INT(channel_get(&channel, &message), 0);
	send_message(peer, 1, 0, 0);
	CHECK_INT(channel_read(&channel), 1);
	CHECK_INT(channel_get(&channel, &message), 1);
	imsg_free(&message);
	close(peer);
	CHECK_TEXT(drain(&channel), "end");
	channel_close(&channel);
}

static void
bytes_that_come_one_by_one(void)
{
	unsigned char bytes[HEADER + 3];
	struct imsgbuf channel;
	struct imsg message;
	int peer = channel_and_peer(&channel), round, fd;
	size_t i;

	for (round = 0; round < 3; round++) {
		put_header(bytes, 1, sizeof(bytes), round == 1);
		memcpy(bytes + HEADER, "abc", 3);
		for (i = 0; i < sizeof(bytes); i++) {
			CHECK_INT(channel_get(&channel, &message), 0);
			if (round == 1 && i == 0) {
				fd = numbered(5);
				send_with(peer, bytes, 1, &fd, 1);
			} else {
				send_bytes(peer, bytes + i, 1);
			}
			CHECK_INT(channel_read(&channel), 1);
		}
		REQUIRE(channel_get(&channel, &message) == 1);
		CHECK_BYTES(message.data, "abc", 3);
		CHECK_INT(number_of(imsg_get_fd(&message)), round == 1 ? 5 : -1);
		imsg_free(&message);
	}
	close(peer);
	channel_close(&channel);
}

static void
a_cleared_channel_frees_what_was_not_taken(void)
{
	struct imsgbuf channel;
	unsigned char half[HEADER];
	int peer = channel_and_peer(&channel), fd = numbered(2);

	send_payload(peer, 1, "abc", 3);
	send_message(peer, 2, 1, 1);
	put_header(half, 3, HEADER + 10, 1);
	send_with(peer, half, HEADER, &fd, 1);
	CHECK_INT(channel_read(&channel), 1);
	CHECK_INT(channel_read(&channel), 1);
	close(peer);
	channel_close(&channel);
}

static void
a_descriptor_that_is_not_a_socket(void)
{
	struct imsgbuf channel;

	channel_init(&channel, -1);
	CHECK_ERROR(channel_read(&channel), -1, EBADF);
	channel_clear(&channel);
}

int
main(void)
{
	RUN(a_message_shows_its_header_and_its_payload);
#if !MODERN && !defined(ORIGINAL)
	RUN(a_message_is_moved_by_its_data);
#endif
#if !MODERN
	RUN(a_program_reads_into_the_buffer);
#endif
	RUN(a_message_without_a_payload);
	RUN(a_payload_is_taken_as_a_whole);
#if MODERN
	RUN(a_payload_is_taken_in_parts);
	RUN(messages_are_kept_in_queues);
	RUN(a_receiver_has_a_maximum_of_its_own);
#endif
	RUN(a_descriptor_is_given_once);
	RUN(a_descriptor_that_nobody_took);
	RUN(a_received_descriptor_is_closed_by_exec);
	RUN(a_length_out_of_range_ends_the_stream);
	RUN(the_smallest_and_the_largest_message);
	RUN(a_socket_that_would_block);
	RUN(bytes_that_come_one_by_one);
	RUN(a_cleared_channel_frees_what_was_not_taken);
	RUN(a_descriptor_that_is_not_a_socket);
	return finish();
}
