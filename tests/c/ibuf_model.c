/*
 * Random calls on buffers, against a plain model of what the manual says: an array, two positions
 * and a maximum. Takes a seed and a number of sequences.
 */
#include "peer.h"
#include "random.h"

#define LIMIT 96
#define STEPS 60

struct model {
	unsigned char bytes[LIMIT];
	size_t rpos;
	size_t wpos;
	size_t max;
	int number;		/* of its descriptor's file; 0 for none */
	int lent;
};

/* Mostly small, at times too large, at times huge. */
static size_t
any_len(void)
{
	switch (any(12)) {
	case 0:
		return 0;
	case 1:
		return SIZE_MAX - any(LIMIT);
	case 2:
		return any(2 * LIMIT);
	default:
		return any(12);
	}
}

static size_t
unread(const struct model *model)
{
	return model->wpos - model->rpos;
}

/* Whether `len` more bytes fit. */
static int
fits(const struct model *model, size_t len)
{
	return !model->lent && len <= model->max - model->wpos;
}

static int
no_room(const struct model *model)
{
	return model->lent && MODERN ? EINVAL : ERANGE;
}

static int
within(const struct model *model, size_t pos, size_t len)
{
	return pos <= unread(model) && len <= unread(model) - pos;
}

static void
model_add(struct model *model, const void *bytes, size_t len)
{
	memcpy(model->bytes + model->wpos, bytes, len);
	model->wpos += len;
}

static void
compare(const struct ibuf *buf, const struct model *model)
{
	CHECK_INT(ibuf_size(buf), unread(model));
	CHECK_INT(ibuf_left(buf), model->lent ? 0 : model->max - model->wpos);
	CHECK_INT(ibuf_fd_avail((struct ibuf *)(uintptr_t)buf) != 0, model->number != 0);
	if (unread(model) != 0)
		CHECK_BYTES(ibuf_data(buf), model->bytes + model->rpos, unread(model));
}

/* How a value of `len` bytes lies in the buffer. */
static void
encode(uint64_t value, size_t len, int network, unsigned char *to)
{
	uint16_t one = 1;
	int big = network || *(unsigned char *)&one == 0;
	size_t i;

	for (i = 0; i < len; i++)
		to[i] = (unsigned char)(value >> 8 * (big ? len - 1 - i : i));
}

static uint64_t
decode(const unsigned char *from, size_t len, int network)
{
	uint16_t one = 1;
	int big = network || *(unsigned char *)&one == 0;
	uint64_t value = 0;
	size_t i;

	for (i = 0; i < len; i++)
		value |= (uint64_t)from[i] << 8 * (big ? len - 1 - i : i);
	return value;
}

static const size_t WIDTH[] = { 1, 2, 4, 8, 2, 4, 8 };
#define NETWORK(kind) ((kind) < 4)

static void
add_bytes(struct ibuf *buf, struct model *model)
{
	unsigned char bytes[2 * LIMIT];
	size_t len = any_len(), i;
	int zero = any(2);

	/* Of nothing, C gives what it likes: a buffer without memory has no address. */
	if (len == 0)
		return;
	for (i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(zero ? 0 : any(256));
	if (fits(model, len)) {
		CHECK_INT(zero ? ibuf_add_zero(buf, len) : ibuf_add(buf, bytes, len), 0);
		model_add(model, bytes, len);
	} else if (len <= sizeof(bytes)) {
		CHECK_ERROR(zero ? ibuf_add_zero(buf, len) : ibuf_add(buf, bytes, len), -1,
		    no_room(model));
	} else {
		CHECK_ERROR(ibuf_add_zero(buf, len), -1,
		    len > SIZE_MAX - model->wpos ? ERANGE : no_room(model));
	}
}

static void
reserve(struct ibuf *buf, struct model *model)
{
	size_t len = any_len();
	unsigned char *at;

	if (len == 0)
		return;
	if (!fits(model, len)) {
		CHECK_NULL(ibuf_reserve(buf, len),
		    len > SIZE_MAX - model->wpos ? ERANGE : no_room(model));
		return;
	}
	at = (unsigned char *)ibuf_reserve(buf, len);
	REQUIRE(at != NULL);
	memset(at, 'r', len);
	memset(model->bytes + model->wpos, 'r', len);
	model->wpos += len;
	CHECK(at == (unsigned char *)ibuf_data(buf) + ibuf_size(buf) - len);
}

static void
add_number(struct ibuf *buf, struct model *model)
{
	static int (*const calls[])(struct ibuf *, uint64_t) = { ibuf_add_n8, ibuf_add_n16,
		ibuf_add_n32, ibuf_add_n64, ibuf_add_h16, ibuf_add_h32, ibuf_add_h64 };
	uint32_t kind = any(7);
	size_t width = WIDTH[kind];
	uint64_t value = (uint64_t)any(0x7fffffff) * any(0x7fffffff) >> any(63);
	unsigned char bytes[8];

	if (width < 8 && value >> 8 * width != 0) {
		CHECK_ERROR(calls[kind](buf, value), -1, EINVAL);
	} else if (fits(model, width)) {
		encode(value, width, NETWORK(kind), bytes);
		CHECK_INT(calls[kind](buf, value), 0);
		model_add(model, bytes, width);
	} else {
		CHECK_ERROR(calls[kind](buf, value), -1, no_room(model));
	}
}

static void
set_number(struct ibuf *buf, struct model *model)
{
	static int (*const calls[])(struct ibuf *, size_t, uint64_t) = { ibuf_set_n8, ibuf_set_n16,
		ibuf_set_n32, ibuf_set_n64, ibuf_set_h16, ibuf_set_h32, ibuf_set_h64 };
	uint32_t kind = any(7);
	size_t width = WIDTH[kind], pos = any_len();
	uint64_t value = (uint64_t)any(0x7fffffff) * any(0x7fffffff) >> any(63);

	if (width < 8 && value >> 8 * width != 0) {
		CHECK_ERROR(calls[kind](buf, pos, value), -1, EINVAL);
	} else if (within(model, pos, width)) {
		CHECK_INT(calls[kind](buf, pos, value), 0);
		encode(value, width, NETWORK(kind), model->bytes + model->rpos + pos);
	} else {
		CHECK_ERROR(calls[kind](buf, pos, value), -1, ERANGE);
	}
}

static void
set_bytes(struct ibuf *buf, struct model *model)
{
	unsigned char bytes[2 * LIMIT];
	size_t pos = any_len(), len = any_len();

	memset(bytes, 's', sizeof(bytes));
	if (within(model, pos, len)) {
		if (len == 0)
			return;
		CHECK_INT(ibuf_set(buf, pos, bytes, len), 0);
		memset(model->bytes + model->rpos + pos, 's', len);
	} else {
		CHECK_ERROR(ibuf_set(buf, pos, bytes, len), -1, ERANGE);
	}
}

static void
seek(struct ibuf *buf, struct model *model)
{
	size_t pos = any_len(), len = any_len();

	if (!within(model, pos, len))
		CHECK_NULL(ibuf_seek(buf, pos, len), ERANGE);
	else if (unread(model) != 0)
		CHECK(ibuf_seek(buf, pos, len) == (unsigned char *)ibuf_data(buf) + pos);
}

static void
get_bytes(struct ibuf *buf, struct model *model)
{
	unsigned char bytes[2 * LIMIT];
	size_t len = any_len();
	struct ibuf part;

	if (len > unread(model)) {
		CHECK_ERROR(ibuf_get(buf, bytes, len), -1, EBADMSG);
		CHECK_ERROR(ibuf_skip(buf, len), -1, EBADMSG);
		CHECK_ERROR(ibuf_get_ibuf(buf, len, &part), -1, EBADMSG);
		return;
	}
	switch (any(3)) {
	case 0:
		CHECK_INT(ibuf_get(buf, bytes, len), 0);
		CHECK_BYTES(bytes, model->bytes + model->rpos, len);
		break;
	case 1:
		CHECK_INT(ibuf_skip(buf, len), 0);
		break;
	default:
		CHECK_INT(ibuf_get_ibuf(buf, len, &part), 0);
		CHECK_INT(ibuf_size(&part), len);
		if (len != 0)
			CHECK_BYTES(ibuf_data(&part), model->bytes + model->rpos, len);
	}
	model->rpos += len;
}

static void
get_number(struct ibuf *buf, struct model *model)
{
	uint32_t kind = any(7);
	size_t width = WIDTH[kind];
	uint64_t eight = 0, got;
	uint32_t four = 0;
	uint16_t two = 0;
	uint8_t one = 0;
	int result;

	errno = 0;
	switch (kind) {
	case 0:
		result = ibuf_get_n8(buf, &one);
		got = one;
		break;
	case 1:
	case 4:
		result = kind == 1 ? ibuf_get_n16(buf, &two) : ibuf_get_h16(buf, &two);
		got = two;
		break;
	case 2:
	case 5:
		result = kind == 2 ? ibuf_get_n32(buf, &four) : ibuf_get_h32(buf, &four);
		got = four;
		break;
	default:
		result = kind == 3 ? ibuf_get_n64(buf, &eight) : ibuf_get_h64(buf, &eight);
		got = eight;
	}
	if (unread(model) < width) {
		CHECK_INT(result, -1);
		CHECK_INT(errno, EBADMSG);
		return;
	}
	CHECK_INT(result, 0);
	CHECK(got == decode(model->bytes + model->rpos, width, NETWORK(kind)));
	model->rpos += width;
}

static void
truncate_to(struct ibuf *buf, struct model *model)
{
	size_t len = any_len();

	if (len <= unread(model)) {
		CHECK_INT(ibuf_truncate(buf, len), 0);
		model->wpos = model->rpos + len;
	} else if (fits(model, len - unread(model))) {
		CHECK_INT(ibuf_truncate(buf, len), 0);
		memset(model->bytes + model->wpos, 0, len - unread(model));
		model->wpos = model->rpos + len;
	} else {
		CHECK_ERROR(ibuf_truncate(buf, len), -1, ERANGE);
	}
}

static void
descriptor(struct ibuf *buf, struct model *model)
{
	int number = (int)any(3);

	if (model->lent || any(2)) {
		int fd = ibuf_fd_get(buf);

		CHECK_INT(fd == -1 ? 0 : number_of(fd), model->number);
		model->number = 0;
	} else {
		ibuf_fd_set(buf, number == 0 ? -1 : numbered(number));
		model->number = number;
	}
}

#if MODERN
static void
strings(struct ibuf *buf, struct model *model)
{
	char bytes[LIMIT], *string;
	const unsigned char *at = model->bytes + model->rpos;
	size_t len = any(10), text = any(10);

	memset(bytes, 0, sizeof(bytes));
	switch (any(3)) {
	case 0:
		memset(bytes, 't', text);
		/* What is left behind when the field is too small is not the manual's. */
		if (text >= len)
			return;
		if (fits(model, len)) {
			CHECK_INT(ibuf_add_strbuf(buf, bytes, len), 0);
			model_add(model, bytes, len);
		} else {
			CHECK_ERROR(ibuf_add_strbuf(buf, bytes, len), -1, no_room(model));
		}
		return;
	case 1:
		if (len == 0) {
			CHECK_ERROR(ibuf_get_strbuf(buf, bytes, len), -1, EINVAL);
		} else if (len > unread(model)) {
			CHECK_ERROR(ibuf_get_strbuf(buf, bytes, len), -1, EBADMSG);
		} else {
			const void *end = memchr(at, 0, len);

			model->rpos += len;
			if (end == NULL) {
				CHECK_ERROR(ibuf_get_strbuf(buf, bytes, len), -1, EOVERFLOW);
			} else {
				CHECK_INT(ibuf_get_strbuf(buf, bytes, len), 0);
				CHECK(strcmp(bytes, (const char *)at) == 0);
			}
		}
		return;
	default:
		if (len > unread(model)) {
			CHECK_NULL(ibuf_get_string(buf, len), EBADMSG);
			return;
		}
		string = ibuf_get_string(buf, len);
		REQUIRE(string != NULL);
		CHECK(strncmp(string, (const char *)at, len) == 0);
		CHECK(strlen(string) <= len);
		free(string);
		model->rpos += len;
	}
}

static void
set_max(struct ibuf *buf, struct model *model)
{
	size_t max = any(4) == 0 ? any_len() : model->max - any(3);

	if (model->lent) {
		CHECK_ERROR(ibuf_set_maxsize(buf, max), -1, EINVAL);
	} else if (max > model->max || max < model->wpos) {
		CHECK_ERROR(ibuf_set_maxsize(buf, max), -1, ERANGE);
	} else {
		CHECK_INT(ibuf_set_maxsize(buf, max), 0);
		model->max = max;
	}
}
#endif

static void
peek(struct ibuf *buf, struct model *model)
{
	struct ibuf peeked;

	ibuf_from_ibuf(&peeked, buf);
	CHECK_INT(ibuf_size(&peeked), unread(model));
	CHECK_INT(ibuf_left(&peeked), 0);
	CHECK_INT(ibuf_fd_avail(&peeked), 0);
	CHECK_INT(ibuf_skip(&peeked, unread(model)), 0);
}

static void
add_itself_to_another(struct ibuf *buf, struct model *model)
{
	struct ibuf *other = ibuf_dynamic(0, LIMIT);

	REQUIRE(other != NULL);
	if (unread(model) != 0) {
		CHECK_INT(ibuf_add_ibuf(other, buf), 0);
		CHECK_INT(ibuf_size(other), unread(model));
		CHECK_BYTES(ibuf_data(other), model->bytes + model->rpos, unread(model));
	}
	ibuf_free(other);
}

static void
rewind_it(struct ibuf *buf, struct model *model)
{
	ibuf_rewind(buf);
	model->rpos = 0;
}

static void
sequence(void)
{
	static void (*const calls[])(struct ibuf *, struct model *) = { add_bytes, reserve,
		add_number, add_number, set_number, set_bytes, seek, get_bytes, get_number,
		truncate_to, descriptor, peek, add_itself_to_another, rewind_it,
#if MODERN
		strings, set_max,
#endif
	};
	unsigned char memory[LIMIT];
	struct ibuf *buf, lent;
	struct model model;
	int step;

	memset(&model, 0, sizeof(model));
	model.max = 1 + any(LIMIT - 1);
	switch (any(3)) {
	case 0:
		buf = ibuf_open(model.max);
		break;
	case 1:
		buf = ibuf_dynamic(any((uint32_t)model.max + 1), model.max);
		break;
	default:
		memset(memory, 'm', sizeof(memory));
		memcpy(model.bytes, memory, sizeof(memory));
		ibuf_from_buffer(&lent, memory, model.max);
		model.wpos = model.max;
		model.lent = 1;
		buf = &lent;
	}
	REQUIRE(buf != NULL);
	for (step = 0; step < STEPS && check_failures == 0; step++) {
		calls[any(sizeof(calls) / sizeof(calls[0]))](buf, &model);
		compare(buf, &model);
	}
	if (!model.lent)
		ibuf_free(buf);
}

static void
any_calls_do_what_the_model_does(void)
{
	run_sequences(sequence, "ibuf_model");
}

int
main(int argc, char **argv)
{
	take_seed(argc, argv, 2000);
	RUN(any_calls_do_what_the_model_does);
	return finish();
}
