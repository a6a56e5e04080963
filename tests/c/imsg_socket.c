/* A channel and its socket: full buffers, signals, pipes, and sockets that are changed. */
#include <sys/time.h>

#include "drain.h"

#define MOST 100

/* Messages of 1000 bytes, numbered from 0; sent at once, as small parts fill a socket sooner. */
static void
send_many(int peer, uint32_t count)
{
	static unsigned char messages[MOST * 1000];
	uint32_t i;

	memset(messages, 'm', sizeof(messages));
	for (i = 0; i < count; i++)
		put_header(messages + i * 1000, i, 1000, 0);
	send_bytes(peer, messages, count * 1000);
}

static void
a_program_that_reads_on_without_taking_messages_loses_none(void)
{
	struct imsgbuf channel;
	struct imsg message;
	int peer = channel_and_peer(&channel), i;
	uint32_t next = 0;

	/* More than fits in a classic channel. */
	send_many(peer, MOST);
	close(peer);
	for (i = 0; i < 10; i++) {
		int result = channel_read(&channel);

		/* When a classic channel is full, it is to be tried again; the original gives 0. */
		CHECK(result == 1 || (MODERN ? result == 0 : errno == EAGAIN));
	}
	while (channel_next(&channel, &message) == 1) {
		CHECK_INT(imsg_get_type(&message), next);
		next++;
		imsg_free(&message);
	}
	CHECK_INT(next, MOST);
	channel_close(&channel);
}

#if !MODERN
/* As programs do that take one message for each read. */
static void
a_full_channel_is_read_again_later(void)
{
	struct imsgbuf channel;
	struct imsg message;
	int peer = channel_and_peer(&channel);
	uint32_t next = 0;

	send_many(peer, MOST);
	close(peer);
	while (imsg_read(&channel) > 0)
		continue;
	CHECK_ERROR(imsg_read(&channel), -1, EAGAIN);
	while (next < MOST) {
		ssize_t n = imsg_read(&channel);

		REQUIRE(n >= 0 || errno == EAGAIN);
		REQUIRE(imsg_get(&channel, &message) > 0);
		CHECK_INT(imsg_get_type(&message), next);
		next++;
		imsg_free(&message);
	}
	CHECK_INT(imsg_read(&channel), 0);
	channel_close(&channel);
}
#endif

static void
a_program_may_always_leave_a_message(void)
{
	static char payload[100];
	struct imsgbuf from, to;
	struct imsg message;
	int ends[2];
	uint32_t i;

	connect_pair(ends);
	channel_init(&from, ends[0]);
	channel_init(&to, ends[1]);
	for (i = 0; i < 2000; i++) {
		REQUIRE(imsg_compose(&from, i, 0, 0, -1, payload, sizeof(payload)) == 1);
		REQUIRE(channel_flush(&from) == 0);
		REQUIRE(channel_read(&to) == 1);
		if (i == 0)
			continue;
		REQUIRE(channel_get(&to, &message) == 1);
		CHECK_INT(imsg_get_type(&message), i - 1);
		imsg_free(&message);
	}
	channel_close(&from);
	channel_close(&to);
}

static int interrupting;

static void
send_one(int signal)
{
	unsigned char header[HEADER];

	(void)signal;
	put_header(header, 1, HEADER, 0);
	if (write(interrupting, header, HEADER) != (ssize_t)HEADER)
		_exit(1);
}

static void
a_read_that_a_signal_interrupts_is_made_again(void)
{
	struct imsgbuf channel;
	struct imsg message;
	struct sigaction action, before;
	struct itimerval soon;

	interrupting = channel_and_peer(&channel);
	memset(&action, 0, sizeof(action));
	action.sa_handler = send_one;
	REQUIRE(sigaction(SIGALRM, &action, &before) == 0);
	memset(&soon, 0, sizeof(soon));
	soon.it_value.tv_usec = 20000;
	REQUIRE(setitimer(ITIMER_REAL, &soon, NULL) == 0);
	CHECK_INT(channel_read(&channel), 1);
	CHECK_INT(channel_get(&channel, &message), 1);
	imsg_free(&message);
	REQUIRE(sigaction(SIGALRM, &before, NULL) == 0);
	close(interrupting);
	channel_close(&channel);
}

static void
change_socket(struct imsgbuf *channel, int fd)
{
	close(channel->fd);
	channel->fd = fd;
#if !MODERN
	channel->w.fd = fd;
#endif
}

static void
a_channel_follows_its_member_fd(void)
{
	struct imsgbuf channel;
	unsigned char got[HEADER];
	int peer = channel_and_peer(&channel), others[2];

	connect_pair(others);
	send_message(peer, 1, 0, 0);
	CHECK_INT(channel_read(&channel), 1);
	close(peer);
	change_socket(&channel, others[0]);
	send_message(others[1], 2, 1, 7);
	CHECK_INT(imsg_compose(&channel, 3, 0, 1, -1, NULL, 0), 1);
	CHECK_INT(channel_flush(&channel), 0);
	CHECK_INT(recv(others[1], got, sizeof(got), 0), HEADER);
	close(others[1]);
	CHECK_TEXT(drain(&channel), "1 2:7 end");
	channel_close(&channel);
}

static void
a_message_outlives_its_channel(void)
{
	struct imsgbuf channel;
	struct imsg message, later;
	unsigned char bytes[HEADER + 5];
	int peer = channel_and_peer(&channel), fd = numbered(7);
	char got[5];

	put_header(bytes, 1, sizeof(bytes), 1);
	memcpy(bytes + HEADER, "hello", 5);
	send_with(peer, bytes, sizeof(bytes), &fd, 1);
	REQUIRE(channel_next(&channel, &message) == 1);
	send_many(peer, 60);
	REQUIRE(channel_next(&channel, &later) == 1);
	close(peer);
	channel_close(&channel);
	imsg_free(&later);
	CHECK_INT(imsg_get_data(&message, got, 5), 0);
	CHECK_BYTES(got, "hello", 5);
	CHECK_INT(number_of(imsg_get_fd(&message)), 7);
	imsg_free(&message);
}

static void
a_channel_is_used_for_one_socket_after_the_other(void)
{
	struct imsgbuf channel;
	int i;

	for (i = 0; i < 3; i++) {
		int peer = channel_and_peer(&channel);

		/* A message that is cut off, and one that is not sent. */
		send_message(peer, 1, 1, 7);
		send_bytes(peer, "half", 4);
		CHECK_INT(channel_read(&channel), 1);
		CHECK_INT(imsg_compose(&channel, 3, 0, 1, numbered(1), NULL, 0), 1);
		close(peer);
		channel_close(&channel);
	}
}

static void
descriptors_of_many_messages_wait_for_them(void)
{
	struct imsgbuf channel;
	char expected[512] = "";
	int peer = channel_and_peer(&channel), i;

	/* As many as may wait. */
	for (i = 1; i <= 30; i++) {
		send_message(peer, (uint32_t)i, 1, i);
		sprintf(expected + strlen(expected), "%d:%d ", i, i);
	}
	for (i = 0; i < 30; i++)
		CHECK_INT(channel_read(&channel), 1);
	close(peer);
	strcat(expected, "end");
	CHECK_TEXT(drain(&channel), expected);
	channel_close(&channel);
}

#if MODERN
static void
a_channel_without_descriptors_works_over_a_pipe(void)
{
	struct imsgbuf in, out;
	struct imsg message;
	int ends[2];

	REQUIRE(pipe(ends) == 0);
	REQUIRE(imsgbuf_init(&in, ends[0]) == 0);
	REQUIRE(imsgbuf_init(&out, ends[1]) == 0);
	CHECK_INT(imsg_compose(&out, 1, 2, 3, -1, "hello", 5), 1);
	CHECK_INT(imsgbuf_flush(&out), 0);
	REQUIRE(channel_next(&in, &message) == 1);
	CHECK_INT(imsg_get_len(&message), 5);
	CHECK_BYTES(message.data, "hello", 5);
	imsg_free(&message);
	imsgbuf_clear(&out);
	close(ends[1]);
	CHECK_INT(imsgbuf_read(&in), 0);
	imsgbuf_clear(&in);
	close(ends[0]);
}

static void
a_descriptor_is_not_sent_where_none_is_allowed(void)
{
	struct imsgbuf from, to;
	int ends[2];

	connect_pair(ends);
	REQUIRE(imsgbuf_init(&from, ends[0]) == 0);
	REQUIRE(imsgbuf_init(&to, ends[1]) == 0);
	imsgbuf_allow_fdpass(&to);
	CHECK_INT(imsg_compose(&from, 1, 2, 3, numbered(1), NULL, 0), 1);
	CHECK_INT(imsgbuf_flush(&from), 0);
	imsgbuf_clear(&from);
	close(ends[0]);
	CHECK_TEXT(drain(&to), "1!not-sent end");
	imsgbuf_clear(&to);
	close(ends[1]);
}

static void
messages_of_a_mebibyte_with_descriptors(void)
{
	static unsigned char payload[1 << 20];
	struct ibufqueue *queue = ibufq_new();
	struct imsgbuf channel;
	struct imsg message;
	int ends[2], i, status;
	pid_t sender;

	memset(payload, 'p', sizeof(payload));
	connect_pair(ends);
	REQUIRE((sender = fork()) != -1);
	REQUIRE(imsgbuf_init(&channel, ends[sender == 0]) == 0);
	imsgbuf_allow_fdpass(&channel);
	REQUIRE(imsgbuf_set_maxsize(&channel, sizeof(payload)) == 0);
	close(ends[sender != 0]);
	if (sender == 0) {
		for (i = 0; i < 5; i++)
			REQUIRE(imsg_compose(&channel, (uint32_t)i, 0, 0, numbered(i + 1), payload,
			    sizeof(payload) - (size_t)i) == 1);
		REQUIRE(imsgbuf_flush(&channel) == 0);
		imsgbuf_clear(&channel);
		_exit(0);
	}
	for (i = 0; i < 5; i++) {
		REQUIRE(channel_next(&channel, &message) == 1);
		/* Wherever it lies, it is one like any other. */
		imsg_ibufq_push(queue, &message);
		REQUIRE(imsg_ibufq_pop(queue, &message) == 1);
		CHECK_INT(imsg_get_type(&message), i);
		CHECK_INT(imsg_get_len(&message), sizeof(payload) - (size_t)i);
		CHECK_BYTES(message.data, payload, imsg_get_len(&message));
		CHECK_INT(number_of(imsg_get_fd(&message)), i + 1);
		imsg_free(&message);
	}
	CHECK_TEXT(drain(&channel), "end");
	ibufq_free(queue);
	imsgbuf_clear(&channel);
	close(ends[0]);
	REQUIRE(waitpid(sender, &status, 0) == sender);
	CHECK_INT(status, 0);
}
#endif

static void
a_channel_goes_on_with_another_socket_after_the_end(void)
{
	struct imsgbuf channel;
	int peer = channel_and_peer(&channel), others[2];

	send_message(peer, 1, 1, 5);
	close(peer);
	CHECK_TEXT(drain(&channel), "1:5 end");
	CHECK_INT(channel_read(&channel), 0);
	connect_pair(others);
	change_socket(&channel, others[0]);
	send_message(others[1], 2, 1, 7);
	close(others[1]);
	CHECK_TEXT(drain(&channel), "2:7 end");
	channel_close(&channel);
}

int
main(void)
{
	RUN(a_program_that_reads_on_without_taking_messages_loses_none);
#if !MODERN
	RUN(a_full_channel_is_read_again_later);
#endif
	RUN(a_program_may_always_leave_a_message);
	RUN(a_read_that_a_signal_interrupts_is_made_again);
	RUN(a_channel_follows_its_member_fd);
	RUN(a_message_outlives_its_channel);
	RUN(a_channel_is_used_for_one_socket_after_the_other);
	RUN(descriptors_of_many_messages_wait_for_them);
#if MODERN
	RUN(a_channel_without_descriptors_works_over_a_pipe);
	RUN(a_descriptor_is_not_sent_where_none_is_allowed);
	RUN(messages_of_a_mebibyte_with_descriptors);
#endif
	RUN(a_channel_goes_on_with_another_socket_after_the_end);
	return finish();
}
