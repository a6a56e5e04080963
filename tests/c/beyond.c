/* What the original libraries do not have: dialects, rules of pairing, and which fault it was. */
#include "drain.h"

static void
a_rule_is_set_before_anything_is_read(void)
{
	struct imsgbuf channel;
	int peer = channel_and_peer(&channel);

	CHECK_INT(imsgbuf_set_pairing(&channel, IMSG_PAIRING_EXACT), 0);
	CHECK_INT(imsgbuf_set_pairing(&channel, IMSG_PAIRING_ORDERED), 0);
	CHECK_ERROR(imsgbuf_set_pairing(&channel, 2), -1, EINVAL);
	CHECK_ERROR(imsgbuf_set_pairing(&channel, -1), -1, EINVAL);
	send_message(peer, 1, 0, 0);
	CHECK_INT(channel_read(&channel), 1);
	CHECK_ERROR(imsgbuf_set_pairing(&channel, IMSG_PAIRING_EXACT), -1, EINVAL);
	close(peer);
	CHECK_TEXT(drain(&channel), "1 end");
	channel_close(&channel);
}

static void
a_fault_is_told_as_a_sentence(void)
{
	struct imsgbuf channel;
	struct imsg message;
	unsigned char header[HEADER];
	int peer = channel_and_peer(&channel), fds[2];
	const char *fault;

	CHECK(imsgbuf_error(&channel) == NULL);
	fds[0] = numbered(1);
	fds[1] = numbered(2);
	put_header(header, 1, HEADER, 1);
	send_with(peer, header, HEADER, fds, 2);
	CHECK_INT(channel_next(&channel, &message), -1);
	fault = imsgbuf_error(&channel);
	REQUIRE(fault != NULL);
	CHECK(strlen(fault) > 10);
	CHECK(strstr(fault, "descriptor") != NULL);
	close(peer);
	channel_close(&channel);

	peer = channel_and_peer(&channel);
	put_header(header, 1, 15, 0);
	send_bytes(peer, header, HEADER);
	CHECK_INT(channel_next(&channel, &message), -1);
	fault = imsgbuf_error(&channel);
	REQUIRE(fault != NULL);
	CHECK(strstr(fault, "15") != NULL);
	close(peer);
	channel_close(&channel);
}

static void
a_stream_that_ends_in_a_message_is_told(void)
{
	struct imsgbuf channel;
	unsigned char header[HEADER];
	int peer = channel_and_peer(&channel);

	send_message(peer, 1, 0, 0);
	put_header(header, 2, HEADER + 1, 0);
	send_bytes(peer, header, HEADER);
	close(peer);
	CHECK_TEXT(drain(&channel), "1 end");
	CHECK(imsgbuf_error(&channel) != NULL);
	channel_close(&channel);
}

static void
a_descriptor_that_is_there_needs_no_reason(void)
{
	struct imsgbuf channel;
	struct imsg message;
	int peer = channel_and_peer(&channel);

	send_message(peer, 1, 1, 11);
	REQUIRE(channel_next(&channel, &message) == 1);
	CHECK_INT(imsg_fd_reason(&message), IMSG_FD_PRESENT);
	CHECK_INT(number_of(imsg_get_fd(&message)), 11);
	imsg_free(&message);
	send_message(peer, 2, 0, 0);
	REQUIRE(channel_next(&channel, &message) == 1);
	CHECK_INT(imsg_fd_reason(&message), IMSG_FD_PRESENT);
	imsg_free(&message);
	close(peer);
	channel_close(&channel);
}

#if MODERN
/* A classic header, byte by byte. */
static void
put_classic(unsigned char *at, uint32_t type, uint16_t len, uint16_t flags)
{
	uint32_t id = 5, pid = 6;

	memcpy(at, &type, 4);
	memcpy(at + 4, &len, 2);
	memcpy(at + 6, &flags, 2);
	memcpy(at + 8, &id, 4);
	memcpy(at + 12, &pid, 4);
}

/* What this channel writes is classic, and what it reads. */
static void
speaks_classic(struct imsgbuf *channel, int peer)
{
	unsigned char bytes[HEADER + 3], got[HEADER + 3];
	struct imsg message;
	int fd = numbered(9);

	put_classic(bytes, 4, sizeof(bytes), 1);
	memcpy(bytes + HEADER, "abc", 3);
	CHECK_INT(imsg_compose(channel, 4, 5, 6, numbered(1), "abc", 3), 1);
	CHECK_INT(imsgbuf_flush(channel), 0);
	CHECK_INT(recv(peer, got, sizeof(got), 0), sizeof(got));
	CHECK_BYTES(got, bytes, sizeof(got));
	send_with(peer, bytes, sizeof(bytes), &fd, 1);
	REQUIRE(channel_next(channel, &message) == 1);
	CHECK_INT(message.hdr.len, sizeof(bytes));
	CHECK_INT(imsg_get_type(&message), 4);
	CHECK_INT(imsg_get_id(&message), 5);
	CHECK_INT(imsg_get_pid(&message), 6);
	CHECK_INT(imsg_get_len(&message), 3);
	CHECK_BYTES(message.data, "abc", 3);
	CHECK_INT(number_of(imsg_get_fd(&message)), 9);
	/* It can be sent on to a peer of any dialect. */
	CHECK_INT(imsg_forward(channel, &message), 1);
	CHECK_INT(imsgbuf_flush(channel), 0);
	CHECK_INT(recv(peer, got, sizeof(got), 0), sizeof(got));
	put_classic(bytes, 4, sizeof(bytes), 0);
	CHECK_BYTES(got, bytes, sizeof(got));
	imsg_free(&message);
}

static void
a_modern_program_speaks_classic(void)
{
	struct imsgbuf channel;
	int peer = channel_and_peer(&channel);

	CHECK_ERROR(imsgbuf_set_dialect(&channel, 2), -1, EINVAL);
	CHECK_ERROR(imsgbuf_set_dialect(&channel, -1), -1, EINVAL);
	CHECK_INT(imsgbuf_set_dialect(&channel, IMSG_DIALECT_CLASSIC), 0);
	speaks_classic(&channel, peer);
	CHECK_ERROR(imsgbuf_set_dialect(&channel, IMSG_DIALECT_MODERN), -1, EINVAL);
	close(peer);
	channel_close(&channel);
}

static void
a_message_built_by_hand_is_classic_too(void)
{
	unsigned char bytes[HEADER + 4], got[HEADER + 4];
	struct imsgbuf channel;
	struct ibuf *message;
	int peer = channel_and_peer(&channel);

	CHECK_INT(imsgbuf_set_dialect(&channel, IMSG_DIALECT_CLASSIC), 0);
	message = imsg_create(&channel, 4, 5, 6, 0);
	REQUIRE(message != NULL);
	CHECK_INT(ibuf_add_n32(message, 0x01020304), 0);
	imsg_close(&channel, message);
	CHECK_INT(imsgbuf_flush(&channel), 0);
	CHECK_INT(recv(peer, got, sizeof(got), 0), sizeof(got));
	put_classic(bytes, 4, sizeof(bytes), 0);
	memcpy(bytes + HEADER, "\1\2\3\4", 4);
	CHECK_BYTES(got, bytes, sizeof(got));
	close(peer);
	channel_close(&channel);
}

static void
the_environment_chooses_for_tests(void)
{
	struct imsgbuf channel;
	unsigned char bytes[HEADER], got[HEADER];
	int peer;

	REQUIRE(setenv("IMSG_DIALECT", "classic", 1) == 0);
	peer = channel_and_peer(&channel);
	speaks_classic(&channel, peer);
	close(peer);
	channel_close(&channel);
	/* What the program says counts for more. */
	peer = channel_and_peer(&channel);
	CHECK_INT(imsgbuf_set_dialect(&channel, IMSG_DIALECT_MODERN), 0);
	CHECK_INT(imsg_compose(&channel, 1, 0, 1, numbered(1), NULL, 0), 1);
	CHECK_INT(imsgbuf_flush(&channel), 0);
	CHECK_INT(recv(peer, got, sizeof(got), 0), sizeof(got));
	put_header(bytes, 1, HEADER, 1);
	CHECK_BYTES(got, bytes, HEADER);
	close(peer);
	channel_close(&channel);
	REQUIRE(setenv("IMSG_DIALECT", "modern", 1) == 0);
	peer = channel_and_peer(&channel);
	send_message(peer, 1, 1, 7);
	close(peer);
	CHECK_TEXT(drain(&channel), "1:7 end");
	channel_close(&channel);
	REQUIRE(unsetenv("IMSG_DIALECT") == 0);
}

static void
a_classic_message_has_at_most_what_its_length_can_say(void)
{
	static unsigned char payload[65536];
	struct imsgbuf channel;
	int peer = channel_and_peer(&channel);

	CHECK_INT(imsgbuf_set_dialect(&channel, IMSG_DIALECT_CLASSIC), 0);
	(void)imsgbuf_set_maxsize(&channel, 100000);
	CHECK_INT(imsg_compose(&channel, 1, 0, 0, -1, payload, 65535 - HEADER), 1);
	CHECK_ERROR(imsg_compose(&channel, 1, 0, 0, -1, payload, 65536 - HEADER), -1, ERANGE);
	CHECK_INT(imsgbuf_queuelen(&channel), 1);
	close(peer);
	channel_close(&channel);
}

static int called;

static void
count_call(struct imsgbuf *channel, void *data)
{
	CHECK_INT(imsgbuf_queuelen(channel), ++called);
	CHECK(data == (void *)&called);
}

/* In the original too, but in its latest version only. */
static void
a_program_is_told_of_each_queued_message(void)
{
	struct imsgbuf channel;
	struct ibuf *message;
	int peer = channel_and_peer(&channel), other;

	CHECK(imsgbuf_get_userdata(&channel) == NULL);
	CHECK(imsgbuf_set_userdata(&channel, &other) == NULL);
	CHECK(imsgbuf_set_userdata(&channel, &called) == (void *)&other);
	CHECK(imsgbuf_get_userdata(&channel) == (void *)&called);
	CHECK_INT(imsg_compose(&channel, 1, 2, 3, -1, NULL, 0), 1);
	CHECK_INT(imsgbuf_flush(&channel), 0);
	imsgbuf_set_close_callback(&channel, count_call);
	CHECK_INT(imsg_compose(&channel, 1, 2, 3, -1, NULL, 0), 1);
	CHECK_INT(called, 1);
	message = imsg_create(&channel, 1, 2, 3, 0);
	REQUIRE(message != NULL);
	CHECK_INT(called, 1);
	imsg_close(&channel, message);
	CHECK_INT(called, 2);
	imsgbuf_set_close_callback(&channel, NULL);
	CHECK_INT(imsg_compose(&channel, 1, 2, 3, -1, NULL, 0), 1);
	CHECK_INT(called, 2);
	close(peer);
	channel_close(&channel);
}
#endif

int
main(void)
{
	RUN(a_rule_is_set_before_anything_is_read);
	RUN(a_fault_is_told_as_a_sentence);
	RUN(a_stream_that_ends_in_a_message_is_told);
	RUN(a_descriptor_that_is_there_needs_no_reason);
#if MODERN
	RUN(a_modern_program_speaks_classic);
	RUN(a_message_built_by_hand_is_classic_too);
	RUN(the_environment_chooses_for_tests);
	RUN(a_classic_message_has_at_most_what_its_length_can_say);
	RUN(a_program_is_told_of_each_queued_message);
#endif
	return finish();
}
