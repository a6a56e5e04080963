/*
 * Two channels, and random calls on both: all that is composed at one end comes out at the other,
 * in its order, with its descriptor. Takes a seed and a number of sequences.
 */
#include "drain.h"
#include "random.h"

#define STEPS 150
/* The most messages of a sequence, in each direction. */
#define MOST 256

struct sent {
	uint32_t type;
	uint32_t len;
	int number;		/* of its descriptor's file; -1 for none */
};

/* One end, and what is under way to it. */
struct side {
	struct imsgbuf channel;
	struct sent expected[MOST];
	uint32_t composed;
	uint32_t received;
};

static struct side sides[2];

/* A byte of the payload of the n-th message. */
static unsigned char
byte_of(uint32_t n, size_t at)
{
	return (unsigned char)(n * 31 + at);
}

static size_t
any_payload(uint32_t n, unsigned char *bytes)
{
	size_t len = any(8) == 0 ? any(MAX_IMSGSIZE - HEADER + 1) : any(3) == 0 ? 0 : any(300), i;

	for (i = 0; i < len; i++)
		bytes[i] = byte_of(n, i);
	return len;
}

static void
compose(struct side *from, struct side *to)
{
	static unsigned char bytes[MAX_IMSGSIZE];
	struct iovec parts[3];
	struct ibuf *built;
	uint32_t n = to->composed;
	size_t len, cut;
	int number = any(4) == 0 ? (int)any(1000) : -1, fd;

	if (n == MOST)
		return;
	len = any_payload(n, bytes);
	cut = any((uint32_t)len + 1);
	fd = number == -1 ? -1 : numbered(number);
	switch (any(3)) {
	case 0:
		REQUIRE(imsg_compose(&from->channel, n, n, 1, fd, bytes, len) == 1);
		break;
	case 1:
		parts[0].iov_base = bytes;
		parts[0].iov_len = cut;
		parts[1].iov_base = bytes + cut;
		parts[1].iov_len = 0;
		parts[2].iov_base = bytes + cut;
		parts[2].iov_len = len - cut;
		REQUIRE(imsg_composev(&from->channel, n, n, 1, fd, parts, 3) == 1);
		break;
	default:
		built = imsg_create(&from->channel, n, n, 1, any(2) ? 0 : len);
		REQUIRE(built != NULL);
		REQUIRE(imsg_add(built, bytes, cut) != -1);
		REQUIRE(imsg_add(built, bytes + cut, len - cut) != -1);
		ibuf_fd_set(built, fd);
		imsg_close(&from->channel, built);
	}
	to->expected[n].type = n;
	to->expected[n].len = (uint32_t)len;
	to->expected[n].number = number;
	to->composed++;
}

/* Has the other side receive the same once more, without a descriptor. */
static void
forward(struct side *from, struct side *to, struct imsg *message, const struct sent *sent)
{
	uint32_t n = to->composed;

	if (n == MOST)
		return;
	REQUIRE(imsg_forward(&from->channel, message) == 1);
	to->expected[n] = *sent;
	to->expected[n].number = -1;
	to->composed++;
}

static void
check_message(struct imsg *message, const struct sent *sent)
{
	size_t i;

	CHECK_INT(imsg_get_type(message), sent->type);
	CHECK_INT(imsg_get_id(message), sent->type);
	CHECK_INT(message->hdr.len, HEADER + sent->len);
	if (!CHECK_INT(imsg_get_len(message), sent->len))
		return;
	for (i = 0; i < sent->len; i++) {
		if (((unsigned char *)message->data)[i] != byte_of(sent->type, i)) {
			CHECK_INT(i, sent->len);
			return;
		}
	}
}

static void
take(struct side *side, struct side *other)
{
	struct imsg message;
	const struct sent *sent;
	int n = channel_get(&side->channel, &message);

	if (n == 0)
		return;
	REQUIRE(n == 1 && side->received < side->composed);
	sent = &side->expected[side->received++];
	check_message(&message, sent);
	CHECK_INT(number_of(imsg_get_fd(&message)), sent->number);
	if (any(10) == 0)
		forward(side, other, &message, sent);
	imsg_free(&message);
}

static void
read_some(struct side *side)
{
	int n = channel_read(&side->channel);

	REQUIRE(n == 1 || (n == -1 && errno == EAGAIN));
}

static void
sequence(void)
{
	int ends[2], i, step, small = 2048 << any(5), whole = any(2) == 0;

	connect_pair(ends);
	memset(sides, 0, sizeof(sides));
	for (i = 0; i < 2; i++) {
		REQUIRE(fcntl(ends[i], F_SETFL, O_NONBLOCK) == 0);
		REQUIRE(setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) == 0);
		channel_init(&sides[i].channel, ends[i]);
		channel_allow_descriptors(&sides[i].channel);
	}
	for (step = 0; step < STEPS && check_failures == 0; step++) {
		struct side *side = &sides[any(2)], *other = &sides[side == sides];

		switch (any(6)) {
		case 0:
		case 1:
			compose(side, other);
			break;
		case 2:
			REQUIRE(channel_write(&side->channel) == 0);
			break;
		case 3:
			read_some(side);
			break;
		default:
			take(side, other);
		}
	}
	/* Half of them end in the middle of it. */
	for (i = 0; whole && i < 100000; i++) {
		struct side *side = &sides[i % 2], *other = &sides[side == sides];

		if (sides[0].received == sides[0].composed && sides[1].received == sides[1].composed)
			break;
		REQUIRE(channel_write(&side->channel) == 0);
		read_some(side);
		while (side->received < side->composed) {
			uint32_t before = side->received;

			take(side, other);
			if (side->received == before)
				break;
		}
	}
	if (whole && check_failures == 0) {
		CHECK_INT(sides[0].received, sides[0].composed);
		CHECK_INT(sides[1].received, sides[1].composed);
	}
	for (i = 0; i < 2; i++)
		channel_close(&sides[i].channel);
}

static void
what_is_composed_comes_out(void)
{
	run_sequences(sequence, "imsg_model");
}

int
main(int argc, char **argv)
{
	take_seed(argc, argv, 300);
	RUN(what_is_composed_comes_out);
	return finish();
}
