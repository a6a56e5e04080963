/*
 * Two programs with this interface at either end: short reads and writes, after a fork, and peers
 * that are killed at any byte.
 */
#include <poll.h>

#include "drain.h"

#define MESSAGES 300

/* What the n-th message is. Some are as large as can be, some carry a descriptor. */
static size_t
len_of(uint32_t n)
{
	if (n % 50 == 49)
		return MAX_IMSGSIZE - HEADER;
	return n * 37 % 900;
}

static int
number_for(uint32_t n)
{
	return n % 5 == 2 ? (int)n + 1 : -1;
}

static void
fill(unsigned char *bytes, uint32_t n)
{
	size_t i;

	for (i = 0; i < len_of(n); i++)
		bytes[i] = (unsigned char)(n + i * 7);
}

static void
compose_nth(struct imsgbuf *channel, uint32_t n)
{
	static unsigned char bytes[MAX_IMSGSIZE];
	int fd = number_for(n) == -1 ? -1 : numbered(number_for(n));

	fill(bytes, n);
	REQUIRE(imsg_compose(channel, n, n * 3, 0, fd, bytes, len_of(n)) == 1);
}

static void
check_nth(struct imsg *message, uint32_t n, pid_t pid)
{
	static unsigned char bytes[MAX_IMSGSIZE];

	fill(bytes, n);
	REQUIRE(imsg_get_type(message) == n);
	CHECK_INT(imsg_get_id(message), n * 3);
	CHECK_INT(imsg_get_pid(message), pid);
	REQUIRE(imsg_get_len(message) == len_of(n));
	if (len_of(n) != 0)
		CHECK_BYTES(message->data, bytes, len_of(n));
	CHECK_INT(number_of(imsg_get_fd(message)), number_for(n));
	imsg_free(message);
}

/* Sends and receives all, on a socket that takes little at a time. */
static void
talk(int socket, pid_t other)
{
	struct imsgbuf channel;
	struct imsg message;
	uint32_t composed = 0, received = 0;
	int small = 4096, n;

	REQUIRE(fcntl(socket, F_SETFL, O_NONBLOCK) == 0);
	REQUIRE(setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) == 0);
	channel_init(&channel, socket);
	channel_allow_descriptors(&channel);
	while (received < MESSAGES || channel_queued(&channel) != 0 || composed < MESSAGES) {
		struct pollfd wait;

		while (composed < MESSAGES && channel_queued(&channel) < 10)
			compose_nth(&channel, composed++);
		wait.fd = socket;
		wait.events = POLLIN | (channel_queued(&channel) != 0 ? POLLOUT : 0);
		wait.revents = 0;
		REQUIRE(poll(&wait, 1, 60000) == 1);
		if (wait.revents & POLLOUT)
			REQUIRE(channel_write(&channel) == 0);
		if (wait.revents & POLLIN) {
			n = channel_read(&channel);
			REQUIRE(n == 1 || (n == -1 && errno == EAGAIN));
			while ((n = channel_get(&channel, &message)) == 1)
				check_nth(&message, received++, other);
			REQUIRE(n == 0);
		}
	}
	REQUIRE(fcntl(socket, F_SETFL, 0) == 0);
	/* The other one ends when it has all. */
	REQUIRE(shutdown(socket, SHUT_WR) == 0);
	CHECK_INT(channel_next(&channel, &message), 0);
	channel_clear(&channel);
	close(socket);
}

static void
both_directions_with_descriptors_through_small_sockets(void)
{
	int ends[2], status;
	pid_t parent = getpid(), child;

	connect_pair(ends);
	REQUIRE((child = fork()) != -1);
	if (child == 0) {
		close(ends[0]);
		talk(ends[1], parent);
		_exit(check_failures != 0);
	}
	close(ends[1]);
	talk(ends[0], child);
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_INT(status, 0);
}

/* A program that forks with queued and received messages has them in both processes. */
static void
a_fork_copies_what_is_queued_and_received(void)
{
	struct imsgbuf channel;
	struct imsg message;
	int ends[2], status;
	pid_t child;

	connect_pair(ends);
	channel_init(&channel, ends[0]);
	channel_allow_descriptors(&channel);
	send_message(ends[1], 1, 0, 0);
	send_message(ends[1], 2, 0, 0);
	REQUIRE(channel_next(&channel, &message) == 1);
	imsg_free(&message);
	REQUIRE(imsg_compose(&channel, 8, 0, 1, -1, NULL, 0) == 1);
	REQUIRE((child = fork()) != -1);
	REQUIRE(channel_next(&channel, &message) == 1);
	CHECK_INT(imsg_get_type(&message), 2);
	imsg_free(&message);
	if (child == 0) {
		REQUIRE(channel_flush(&channel) == 0);
		channel_clear(&channel);
		_exit(check_failures != 0);
	}
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_INT(status, 0);
	CHECK_INT(channel_queued(&channel), 1);
	REQUIRE(channel_flush(&channel) == 0);
	channel_clear(&channel);
	close(ends[0]);
	channel_init(&channel, ends[1]);
	CHECK_TEXT(drain(&channel), "8 8 end");
	channel_clear(&channel);
	close(ends[1]);
}

/*
 * A peer that dies has sent a part of its last message. Nothing of that is delivered, all that
 * was before is, and no descriptor is left open.
 */
static void
a_peer_that_dies_at_any_byte(void)
{
	static unsigned char stream[4 * (HEADER + 64)];
	static const size_t lengths[] = { 0, 5, 64, 1 };
	size_t at, len = 0, starts[5];
	int i, before = open_descriptors();

	for (i = 0; i < 4; i++) {
		starts[i] = len;
		put_header(stream + len, (uint32_t)i + 1, (uint32_t)(HEADER + lengths[i]), i % 2 == 0);
		len += HEADER + lengths[i];
	}
	starts[4] = len;
	for (at = 0; at <= len; at++) {
		struct imsgbuf channel;
		char expected[64] = "";
		const char *got;
		int ends[2];

		connect_pair(ends);
		channel_init(&channel, ends[0]);
		channel_allow_descriptors(&channel);
		for (i = 0; i < 4; i++) {
			size_t end = starts[i + 1] < at ? starts[i + 1] : at;
			int fd = i % 2 == 0 ? numbered(i + 1) : -1;

			if (starts[i] >= at) {
				close(fd);
				continue;
			}
			send_with(ends[1], stream + starts[i], end - starts[i], &fd, fd != -1);
			if (end == starts[i + 1])
				sprintf(expected + strlen(expected), fd != -1 ? "%d:%d " : "%d ",
				    i + 1, i + 1);
		}
		close(ends[1]);
		strcat(expected, "end");
		got = drain(&channel);
		CHECK_TEXT(got, expected);
		channel_clear(&channel);
		close(ends[0]);
		CHECK_INT(open_descriptors(), before);
	}
}

int
main(void)
{
	RUN(both_directions_with_descriptors_through_small_sockets);
	RUN(a_fork_copies_what_is_queued_and_received);
	RUN(a_peer_that_dies_at_any_byte);
	return finish();
}
