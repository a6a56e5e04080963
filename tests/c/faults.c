/*
 * What becomes of descriptors when the peer, the kernel or this process does something wrong. Each
 * case is a row of the table in the project's documents, with the outcome that the original
 * libraries get wrong.
 */
#include "drain.h"

#define READ_SIZE 65536

/* The rule by which descriptors find their messages: as the interface does it, or said by name. */
static int exact = MODERN;

#if MODERN
#define BY_THE_RULE(exact_text, ordered_text) (exact_text)
#else
#define BY_THE_RULE(exact_text, ordered_text) (exact ? (exact_text) : (ordered_text))
#endif

static int
channel_by_the_rule(struct imsgbuf *channel)
{
	int peer = channel_and_peer(channel);

#ifndef ORIGINAL
	if (exact)
		REQUIRE(imsgbuf_set_pairing(channel, IMSG_PAIRING_EXACT) == 0);
#endif
	return peer;
}

/* Reads all that the peer sent before it went, and looks for what must hold of any stream. */
static const char *
all_of(struct imsgbuf *channel, int peer)
{
	const char *text;

	if (peer != -1)
		close(peer);
	text = drain(channel);
#ifndef ORIGINAL
	if (strstr(text, "EBADMSG") != NULL) {
		struct imsg message;

		/* It stays as it is, and says why. */
		CHECK(channel_get(channel, &message) != 1);
		CHECK_ERROR(channel_read(channel), -1, EBADMSG);
		CHECK(channel_get(channel, &message) != 1);
		CHECK(imsgbuf_error(channel) != NULL);
	} else if (strstr(text, "end") != NULL) {
		CHECK(imsgbuf_error(channel) == NULL);
	}
#endif
	channel_close(channel);
	return text;
}

/* Fault 1. */
static void
a_marked_header_that_straddles_a_read_keeps_its_descriptor(void)
{
	static unsigned char filler[READ_SIZE];
	size_t len, at;

	for (len = READ_SIZE - 17; len < READ_SIZE; len++) {
		struct imsgbuf channel;
		char expected[64] = "";
		const char *text;
		int peer = channel_by_the_rule(&channel);

		for (at = 0; at < len;) {
			size_t left = len - at, size = left > 8192 + HEADER ? 8192 : left;

			put_header(filler + at, 9, (uint32_t)size, 0);
			at += size;
			strcat(expected, "9 ");
		}
		send_bytes(peer, filler, len);
		send_message(peer, 1, 1, 7);
		strcat(expected, "1:7 end");
		text = all_of(&channel, peer);
		CHECK_TEXT(text, expected);
	}
}

/* Fault 2. By order it cannot be seen before the end. */
static void
a_descriptor_without_a_mark_is_reported(void)
{
	struct imsgbuf channel;
	struct imsg message;
	int peer = channel_by_the_rule(&channel);

	send_message(peer, 1, 0, 11);
	REQUIRE(channel_read(&channel) == 1);
	if (exact) {
		REQUIRE(channel_get(&channel, &message) == 1);
		CHECK_INT(imsg_get_type(&message), 1);
		CHECK_INT(imsg_get_fd(&message), -1);
		imsg_free(&message);
		CHECK(channel_get(&channel, &message) != 1);
	}
	send_message(peer, 2, 1, 12);
	CHECK_TEXT(all_of(&channel, peer), BY_THE_RULE("EBADMSG", "1 2:11 EBADMSG"));
}

/* Fault 3, read apart. */
static void
a_marked_message_without_a_descriptor_does_not_get_the_next_one(void)
{
	struct imsgbuf channel;
	struct imsg message;
	int peer = channel_by_the_rule(&channel);

	send_message(peer, 1, 1, 0);
	REQUIRE(channel_next(&channel, &message) == 1);
	CHECK_TEXT(why_no_descriptor(&message), "!not-sent");
	CHECK_INT(number_of(imsg_get_fd(&message)), -1);
	imsg_free(&message);
	send_message(peer, 2, 1, 12);
	CHECK_TEXT(all_of(&channel, peer), "2:12 end");
}

/* Fault 3, in one read: by order it cannot be seen. */
static void
two_marks_and_one_descriptor_in_a_read(void)
{
	struct imsgbuf channel;
	int peer = channel_by_the_rule(&channel);

	send_message(peer, 1, 0, 0);
	send_message(peer, 2, 1, 0);
	send_message(peer, 3, 1, 13);
	CHECK_TEXT(all_of(&channel, peer), BY_THE_RULE("1 EBADMSG", "1 2:13 3!not-sent end"));
}

/* Fault 4. */
static void
a_flood_of_descriptors_without_marks_is_stopped(void)
{
	struct imsgbuf channel;
	struct imsg message;
	int peer = channel_by_the_rule(&channel), before = open_descriptors(), most = 0, n;
	pid_t flood = fork();

	REQUIRE(flood != -1);
	if (flood == 0) {
		unsigned char header[HEADER];
		int i;

		/* When the other side has had enough, a send fails, and this ends. */
		close(channel.fd);
		(void)freopen("/dev/null", "w", stderr);
		put_header(header, 1, HEADER, 0);
		for (i = 0; i < 500; i++) {
			int fd = numbered(1);

			send_with(peer, header, HEADER, &fd, 1);
		}
		_exit(0);
	}
	close(peer);
	before--;
	while ((n = channel_next(&channel, &message)) == 1) {
		if (open_descriptors() - before > most)
			most = open_descriptors() - before;
		CHECK_INT(imsg_get_fd(&message), -1);
		imsg_free(&message);
	}
	CHECK_INT(n, -1);
	CHECK(most <= 64);
	CHECK_INT(open_descriptors(), before);
	CHECK_TEXT(all_of(&channel, -1), "EBADMSG");
	REQUIRE(waitpid(flood, NULL, 0) == flood);
}

/* Fault 5. */
static void
no_descriptor_is_free(void *argument)
{
	struct imsgbuf channel;
	struct rlimit limit;
	int peer = channel_by_the_rule(&channel), slots[64], n = 0, i;

	(void)argument;
	send_message(peer, 1, 1, 11);
	send_message(peer, 2, 0, 0);
	REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	limit.rlim_cur = 64;
	REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	while ((slots[n] = dup(peer)) != -1)
		n++;
	CHECK_INT(errno, EMFILE);
	CHECK_INT(channel_read(&channel), 1);
	for (i = 0; i < n; i++)
		close(slots[i]);
	send_message(peer, 3, 1, 13);
	CHECK_TEXT(all_of(&channel, peer), "1!dropped 2 3:13 end");
}

static void
a_descriptor_that_finds_no_free_number_is_reported_as_dropped(void)
{
	/* It has limits of its own. */
	if (getenv("IMSG_VALGRIND") != NULL)
		return;
	CHECK_IN_CHILD(no_descriptor_is_free, NULL);
}

/* Fault 6. */
static void
a_descriptor_in_the_middle_of_a_message_is_reported(void)
{
	unsigned char bytes[HEADER + 8];
	struct imsgbuf channel;
	int peer = channel_by_the_rule(&channel), fd = numbered(11);

	put_header(bytes, 1, sizeof(bytes), 0);
	memset(bytes + HEADER, 'p', 8);
	send_bytes(peer, bytes, HEADER + 2);
	send_with(peer, bytes + HEADER + 2, 6, &fd, 1);
	send_message(peer, 2, 1, 12);
	CHECK_TEXT(all_of(&channel, peer), BY_THE_RULE("1 EBADMSG", "1 2:11 EBADMSG"));
}

/* Fault 7. */
static void
several_descriptors_at_once_are_refused(void)
{
	unsigned char header[HEADER];
	struct imsgbuf channel;
	int peer = channel_by_the_rule(&channel), fds[3], i;

	send_message(peer, 1, 1, 11);
	for (i = 0; i < 3; i++)
		fds[i] = numbered(20 + i);
	put_header(header, 2, HEADER, 1);
	send_with(peer, header, HEADER, fds, 3);
	send_message(peer, 3, 1, 13);
	CHECK_TEXT(all_of(&channel, peer), "1:11 EBADMSG");
}

/* Fault 8. The classic interface has no way to forbid descriptors. */
#if MODERN
static void
a_descriptor_that_is_not_allowed_is_closed(void)
{
	struct imsgbuf channel;
	int ends[2];

	connect_pair(ends);
	REQUIRE(imsgbuf_init(&channel, ends[0]) == 0);
	send_message(ends[1], 1, 1, 11);
	send_message(ends[1], 2, 0, 0);
	CHECK_TEXT(all_of(&channel, ends[1]), "1!not-allowed 2 end");
}
#endif

/* No fault: what was sent as it should be arrives so, however it is read. */
static void
honest_descriptors_find_their_messages(void)
{
	struct imsgbuf channel;
	int peer = channel_by_the_rule(&channel), i;

	for (i = 1; i <= 40; i++)
		send_message(peer, (uint32_t)i, i % 3 == 0, i % 3 == 0 ? i : 0);
	CHECK_TEXT(all_of(&channel, peer), "1 2 3:3 4 5 6:6 7 8 9:9 10 11 12:12 13 14 15:15 16 17 "
	    "18:18 19 20 21:21 22 23 24:24 25 26 27:27 28 29 30:30 31 32 33:33 34 35 36:36 37 38 "
	    "39:39 40 end");
}

#if !MODERN
/* A sender of before 2021: the marked message is the last of its sendmsg(2). */
static void
a_descriptor_that_overtook_its_message_is_found_by_order(void)
{
	unsigned char bytes[4 * HEADER];
	struct imsgbuf channel;
	int peer = channel_by_the_rule(&channel), fd = numbered(14), i;

	for (i = 0; i < 4; i++)
		put_header(bytes + (size_t)i * HEADER, (uint32_t)i + 1, HEADER, i == 3);
	send_with(peer, bytes, sizeof(bytes), &fd, 1);
	send_message(peer, 5, 1, 15);
	CHECK_TEXT(all_of(&channel, peer), "1 2 3 4:14 5:15 end");
}
#endif

static void
all_faults(void)
{
	RUN(a_marked_header_that_straddles_a_read_keeps_its_descriptor);
	RUN(a_descriptor_without_a_mark_is_reported);
	RUN(a_marked_message_without_a_descriptor_does_not_get_the_next_one);
	RUN(two_marks_and_one_descriptor_in_a_read);
	RUN(a_flood_of_descriptors_without_marks_is_stopped);
	RUN(a_descriptor_that_finds_no_free_number_is_reported_as_dropped);
	RUN(a_descriptor_in_the_middle_of_a_message_is_reported);
	RUN(several_descriptors_at_once_are_refused);
	RUN(honest_descriptors_find_their_messages);
}

int
main(void)
{
	(void)signal(SIGPIPE, SIG_IGN);
	all_faults();
#if MODERN
	RUN(a_descriptor_that_is_not_allowed_is_closed);
#else
	RUN(a_descriptor_that_overtook_its_message_is_found_by_order);
#ifndef ORIGINAL
	exact = 1;
	all_faults();
#endif
#endif
	return finish();
}
