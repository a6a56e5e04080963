/*
 * The stream that the original library wrote on such a machine: composed byte for byte, and read
 * back. It is in the directory IMSG_VECTORS, with a list of its messages.
 */
#include "peer.h"

static FILE *list;
static unsigned char stream[1 << 20], received[1 << 20], payload[MAX_IMSGSIZE];
static size_t stream_len;

struct expected {
	unsigned type;
	unsigned id;
	unsigned pid;
	int marked;
	size_t len;
};

/* The next message of the list, which has one a line. */
static int
next(struct expected *message)
{
	static char line[2 * MAX_IMSGSIZE + 1024];
	char fd[6];
	const char *hex;

	do {
		if (fgets(line, sizeof(line), list) == NULL)
			return 0;
	} while (sscanf(line, " {\"type\": %u, \"id\": %u, \"pid\": %u, \"fd\": %5[a-z]",
	    &message->type, &message->id, &message->pid, fd) != 4);
	message->marked = strcmp(fd, "true") == 0;
	REQUIRE((hex = strstr(line, "\"payload\": \"")) != NULL);
	hex += strlen("\"payload\": \"");
	for (message->len = 0; *hex != '"'; message->len++, hex += 2) {
		unsigned byte;

		REQUIRE(message->len < sizeof(payload) && sscanf(hex, "%2x", &byte) == 1);
		payload[message->len] = (unsigned char)byte;
	}
	return 1;
}

/* In one of the three ways. */
static void
compose(struct imsgbuf *channel, const struct expected *message, int way)
{
	int fd = message->marked ? numbered(1) : -1;
	size_t half = message->len / 2;
	struct ibuf *built;
	struct iovec parts[2];

	switch (way) {
	case 0:
		REQUIRE(imsg_compose(channel, message->type, message->id, (pid_t)message->pid, fd,
		    payload, message->len) == 1);
		return;
	case 1:
		parts[0].iov_base = payload;
		parts[0].iov_len = half;
		parts[1].iov_base = payload + half;
		parts[1].iov_len = message->len - half;
		REQUIRE(imsg_composev(channel, message->type, message->id, (pid_t)message->pid, fd,
		    parts, 2) == 1);
		return;
	default:
		built = imsg_create(channel, message->type, message->id, (pid_t)message->pid, half);
		REQUIRE(built != NULL);
		REQUIRE(imsg_add(built, payload, half) != -1);
		REQUIRE(imsg_add(built, payload + half, message->len - half) != -1);
		ibuf_fd_set(built, fd);
		imsg_close(channel, built);
	}
}

static void
what_is_composed_is_the_stream(void)
{
	int way;

	for (way = 0; way < 3; way++) {
		struct imsgbuf channel;
		struct expected message;
		size_t len = 0;
		int ends[2];

		connect_pair(ends);
		channel_init(&channel, ends[0]);
		channel_allow_descriptors(&channel);
		REQUIRE(fcntl(ends[1], F_SETFL, O_NONBLOCK) == 0);
		rewind(list);
		while (next(&message)) {
			compose(&channel, &message, way);
			REQUIRE(channel_flush(&channel) == 0);
			for (;;) {
				/* The kernel closes the descriptors, as no room is given for them. */
				ssize_t n = read(ends[1], received + len, sizeof(received) - len);

				if (n <= 0)
					break;
				len += (size_t)n;
			}
		}
		CHECK_INT(len, stream_len);
		CHECK_BYTES(received, stream, stream_len);
		channel_clear(&channel);
		close(ends[0]);
		close(ends[1]);
	}
}

/* Sends the stream as an honest peer does: with each marked message, its descriptor. */
static void
send_stream(int to)
{
	struct expected message;
	size_t at = 0;

	rewind(list);
	while (next(&message)) {
		int fd = message.marked ? numbered((int)message.type) : -1;

		send_with(to, stream + at, HEADER + message.len, &fd, message.marked ? 1 : 0);
		at += HEADER + message.len;
	}
	REQUIRE(at == stream_len);
}

static void
the_stream_is_read_back(void)
{
	struct expected expected;
	struct imsgbuf channel;
	struct imsg message;
	int ends[2], status;
	pid_t sender;

	connect_pair(ends);
	REQUIRE((sender = fork()) != -1);
	if (sender == 0) {
		close(ends[0]);
		send_stream(ends[1]);
		_exit(check_failures != 0);
	}
	/* All of it fits in the socket. */
	REQUIRE(waitpid(sender, &status, 0) == sender && status == 0);
	close(ends[1]);
	channel_init(&channel, ends[0]);
	channel_allow_descriptors(&channel);
	/* The child has moved the position in the file, which is the same in both. */
	rewind(list);
	while (next(&expected)) {
		REQUIRE(channel_next(&channel, &message) == 1);
		CHECK_INT(imsg_get_type(&message), expected.type);
		CHECK_INT(imsg_get_id(&message), expected.id);
		CHECK_INT((uint32_t)imsg_get_pid(&message), expected.pid);
		CHECK_INT(imsg_get_len(&message), expected.len);
		CHECK_INT(message.hdr.len, HEADER + expected.len);
		if (expected.len != 0)
			CHECK_BYTES(message.data, payload, expected.len);
		CHECK_INT(number_of(imsg_get_fd(&message)),
		    expected.marked ? (int)expected.type : -1);
		imsg_free(&message);
	}
	CHECK_INT(channel_next(&channel, &message), 0);
	channel_clear(&channel);
	close(ends[0]);
}

/* The last message of each stream was built field by field. */
static void
the_last_message_is_built_field_by_field(void)
{
	struct expected expected;
	struct imsgbuf channel;
	struct ibuf *message;

	rewind(list);
	while (next(&expected))
		continue;
	channel_init(&channel, -1);
	message = imsg_create(&channel, expected.type, expected.id, (pid_t)expected.pid, 0);
	REQUIRE(message != NULL);
	CHECK_INT(ibuf_add_n8(message, 0x12), 0);
	CHECK_INT(ibuf_add_n16(message, 0x1234), 0);
	CHECK_INT(ibuf_add_n32(message, 0x12345678), 0);
	CHECK_INT(ibuf_add_n64(message, 0x123456789abcdef0ULL), 0);
	CHECK_INT(ibuf_add_h16(message, 0x1234), 0);
	CHECK_INT(ibuf_add_h32(message, 0x12345678), 0);
	CHECK_INT(ibuf_add_h64(message, 0x123456789abcdef0ULL), 0);
	CHECK_INT(ibuf_add_zero(message, 3), 0);
	CHECK_INT(ibuf_add(message, "imsg", 4), 0);
#if MODERN
	CHECK_INT(ibuf_add_strbuf(message, "hello", 8), 0);
#else
	CHECK_INT(ibuf_add(message, "hello\0\0\0", 8), 0);
#endif
	CHECK_INT(ibuf_set_n16(message, HEADER + 1, 0xbeef), 0);
	CHECK_INT(ibuf_set_h32(message, HEADER + 17, 0xcafef00d), 0);
	CHECK_INT(ibuf_size(message), HEADER + expected.len);
	CHECK_BYTES((char *)ibuf_data(message) + HEADER, payload, expected.len);
	ibuf_free(message);
	channel_clear(&channel);
}

static FILE *
open_vector(const char *extension)
{
	const char *directory = getenv("IMSG_VECTORS");
	uint16_t one = 1;
	char path[4096];
	FILE *file;

	REQUIRE(directory != NULL);
	snprintf(path, sizeof(path), "%s/%s-%s.%s", directory, MODERN ? "modern" : "classic",
	    *(unsigned char *)&one == 1 ? "le" : "be", extension);
	REQUIRE((file = fopen(path, "r")) != NULL);
	return file;
}

int
main(void)
{
	FILE *file = open_vector("bin");

	stream_len = fread(stream, 1, sizeof(stream), file);
	fclose(file);
	REQUIRE(stream_len != 0);
	list = open_vector("json");
	RUN(what_is_composed_is_the_stream);
	RUN(the_stream_is_read_back);
	RUN(the_last_message_is_built_field_by_field);
	fclose(list);
	return finish();
}
