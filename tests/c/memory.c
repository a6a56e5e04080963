/*
 * Memory: how much is allocated, that nothing is lost when there is none, and that secrets are
 * overwritten before it is given back. The functions of malloc(3) are this program's here, over those
 * of glibc.
 */
#include "peer.h"

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)

#include <malloc.h>

#ifdef __cplusplus
extern "C" {
#endif
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void __libc_free(void *);
#ifdef __cplusplus
}
#endif

/* How many more can be had; negative for any number. */
static long left = -1;
static long allocations;
/* How many bytes are in use, and the most that were since this was set. */
static size_t in_use, most_in_use;
/* What must not be in memory that is freed. */
static const char SECRET[] = "the secret of this test";
static long leaks;

static int
allowed(void)
{
	allocations++;
	if (left == 0) {
		errno = ENOMEM;
		return 0;
	}
	if (left > 0)
		left--;
	return 1;
}

static void
look_for_the_secret(const void *memory)
{
	const char *bytes = (const char *)memory;
	size_t size = malloc_usable_size((void *)(uintptr_t)memory), i;

	for (i = 0; i + sizeof(SECRET) - 1 <= size; i++)
		if (memcmp(bytes + i, SECRET, sizeof(SECRET) - 1) == 0)
			leaks++;
}

static void *
counted(void *memory)
{
	in_use += malloc_usable_size(memory);
	if (most_in_use < in_use)
		most_in_use = in_use;
	return memory;
}

void *
malloc(size_t size)
{
	return allowed() ? counted(__libc_malloc(size)) : NULL;
}

void *
calloc(size_t count, size_t size)
{
	return allowed() ? counted(__libc_calloc(count, size)) : NULL;
}

void *
realloc(void *memory, size_t size)
{
	void *bigger;

	if (!allowed())
		return NULL;
	/* Moved always, so that the old place is seen. */
	if ((bigger = counted(__libc_malloc(size))) == NULL)
		return NULL;
	if (memory != NULL) {
		size_t old = malloc_usable_size(memory);

		memcpy(bigger, memory, old < size ? old : size);
		free(memory);
	}
	return bigger;
}

void
free(void *memory)
{
	if (memory != NULL)
		look_for_the_secret(memory);
	in_use -= malloc_usable_size(memory);
	__libc_free(memory);
}

/* Calls that make and free something; the n-th allocation fails. */
static int
compose_with(struct imsgbuf *channel, long n)
{
	static const char payload[100] = "";
	int fd = numbered(1), result;

	left = n;
	result = imsg_compose(channel, 1, 2, 3, fd, payload, sizeof(payload));
	left = -1;
	if (result == -1) {
		CHECK_INT(errno, ENOMEM);
		/* The descriptor is still the program's. */
		CHECK_INT(number_of(fd), 1);
	}
	return result;
}

static void
a_message_that_finds_no_memory_is_not_composed(void)
{
	struct imsgbuf channel;
	int peer = channel_and_peer(&channel);
	uint32_t queued = 0;
	long n;

	for (n = 0; n < 10; n++) {
		if (compose_with(&channel, n) == 1)
			queued++;
		CHECK_INT(channel_queued(&channel), queued);
	}
	CHECK(queued >= 5 && queued < 10);
	CHECK_INT(channel_flush(&channel), 0);
	channel_close(&channel);
	close(peer);
}

static void
a_message_that_finds_no_memory_can_be_taken_later(void)
{
	struct imsgbuf channel;
	struct imsg message;
	int peer = channel_and_peer(&channel), result = -1;
	unsigned char bytes[HEADER + 4];
	int fd = numbered(5);
	long n;

	put_header(bytes, 1, sizeof(bytes), 1);
	memcpy(bytes + HEADER, "abcd", 4);
	send_with(peer, bytes, sizeof(bytes), &fd, 1);
	for (n = 0; n < 10 && result == -1; n++) {
		left = n;
		result = channel_next(&channel, &message);
		left = -1;
		if (result == -1)
			CHECK_INT(errno, ENOMEM);
	}
	REQUIRE(result == 1);
	CHECK(n > 1);
	CHECK_BYTES(message.data, "abcd", 4);
	CHECK_INT(number_of(imsg_get_fd(&message)), 5);
	imsg_free(&message);
	channel_close(&channel);
	close(peer);
}

static void
a_buffer_that_finds_no_memory_stays_as_it_was(void)
{
	struct ibuf *buf = ibuf_dynamic(4, 1000);

	REQUIRE(buf != NULL && ibuf_add(buf, "abcd", 4) == 0);
	left = 0;
	CHECK_ERROR(ibuf_add(buf, "efgh", 4), -1, ENOMEM);
	CHECK_NULL(ibuf_reserve(buf, 100), ENOMEM);
	CHECK_ERROR(ibuf_add_zero(buf, 100), -1, ENOMEM);
	CHECK_ERROR(ibuf_truncate(buf, 100), -1, ENOMEM);
	left = -1;
	CHECK_INT(ibuf_size(buf), 4);
	CHECK_BYTES(ibuf_data(buf), "abcd", 4);
	CHECK_INT(ibuf_add(buf, "efgh", 4), 0);
	CHECK_BYTES(ibuf_data(buf), "abcdefgh", 8);
	ibuf_free(buf);
	for (left = 0; (buf = ibuf_open(10)) == NULL; left = left + 2)
		REQUIRE(errno == ENOMEM && left < 10);
	left = -1;
	ibuf_free(buf);
}

static void
at_most_one_allocation_a_message_on_each_side(void)
{
	static const char payload[64] = "";
	struct imsgbuf channel, other;
	struct imsg message;
	int ends[2], i;
	long before, composed, taken;

	connect_pair(ends);
	channel_init(&channel, ends[0]);
	channel_init(&other, ends[1]);
	/* What is made once is made now. */
	REQUIRE(imsg_compose(&channel, 1, 2, 3, -1, payload, sizeof(payload)) == 1);
	REQUIRE(channel_flush(&channel) == 0);
	REQUIRE(channel_next(&other, &message) == 1);
	imsg_free(&message);
	before = allocations;
	for (i = 0; i < 100; i++)
		REQUIRE(imsg_compose(&channel, 1, 2, 3, -1, payload, sizeof(payload)) == 1);
	REQUIRE(channel_flush(&channel) == 0);
	composed = allocations - before;
	CHECK(composed <= 100);
	before = allocations;
	REQUIRE(channel_read(&other) == 1);
	CHECK_INT(allocations, before);
	for (i = 0; i < 100; i++) {
		REQUIRE(channel_get(&other, &message) == 1);
		imsg_free(&message);
	}
	taken = allocations - before;
	CHECK(taken <= 100);
	channel_clear(&channel);
	channel_clear(&other);
	close(ends[0]);
	close(ends[1]);
}

#if MODERN
static void
a_long_message_that_was_taken_holds_no_memory(void)
{
	static unsigned char payload[4 << 20];
	struct imsgbuf channel;
	struct imsg message;
	size_t before;
	int ends[2], status, result;
	pid_t sender;
	long n;

	connect_pair(ends);
	REQUIRE((sender = fork()) != -1);
	REQUIRE(imsgbuf_init(&channel, ends[sender == 0]) == 0);
	REQUIRE(imsgbuf_set_maxsize(&channel, sizeof(payload)) == 0);
	close(ends[sender != 0]);
	memset(payload, 7, sizeof(payload));
	if (sender == 0) {
		REQUIRE(imsg_compose(&channel, 1, 0, 0, -1, payload, sizeof(payload)) == 1);
		REQUIRE(imsgbuf_flush(&channel) == 0);
		_exit(0);
	}
	before = in_use;
	most_in_use = in_use;
	/* It stays, whichever of what it needs cannot be had. */
	for (n = 0; n < 2; n++) {
		do {
			left = n;
			result = channel_get(&channel, &message);
			left = -1;
		} while (result == 0 && channel_read(&channel) == 1);
		CHECK_INT(result, -1);
		CHECK_INT(errno, ENOMEM);
	}
	REQUIRE(channel_get(&channel, &message) == 1);
	CHECK_INT(imsg_get_len(&message), sizeof(payload));
	CHECK_INT(imsg_get_type(&message), 1);
	CHECK_BYTES(message.data, payload, sizeof(payload));
	/* It is where it was received, which was memory for half of it before that grew for the last time. */
	CHECK(most_in_use < before + sizeof(payload) * 3 / 2 + (128 << 10));
	/* That of the message itself, without another read. */
	CHECK(in_use < before + sizeof(payload) + 8192);
	imsg_free(&message);
	CHECK(in_use <= before);
	imsgbuf_clear(&channel);
	close(ends[0]);
	REQUIRE(waitpid(sender, &status, 0) == sender);
	CHECK_INT(status, 0);
}
#endif

static void
what_a_buffer_had_is_overwritten(void)
{
	struct ibuf *buf = ibuf_dynamic(10, 4000);
	int i;

	REQUIRE(buf != NULL);
	leaks = 0;
	REQUIRE(ibuf_add(buf, SECRET, sizeof(SECRET)) == 0);
	/* Growing leaves no copy behind. */
	for (i = 0; i < 100; i++)
		REQUIRE(ibuf_add_zero(buf, 17) == 0);
	/* Nor does what was read, or cut off. */
	REQUIRE(ibuf_skip(buf, sizeof(SECRET)) == 0);
	REQUIRE(ibuf_add(buf, SECRET, sizeof(SECRET)) == 0);
	REQUIRE(ibuf_truncate(buf, 3) == 0);
	ibuf_free(buf);
	CHECK_INT(leaks, 0);
}

static void
what_a_message_had_is_overwritten(void)
{
	struct imsgbuf channel, other;
	struct imsg message;
	int ends[2];

	connect_pair(ends);
	channel_init(&channel, ends[0]);
	channel_init(&other, ends[1]);
	leaks = 0;
	/* Sent, received and freed; and one that is dropped by either side. */
	REQUIRE(imsg_compose(&channel, 1, 2, 3, -1, SECRET, sizeof(SECRET)) == 1);
	REQUIRE(imsg_compose(&channel, 2, 2, 3, -1, SECRET, sizeof(SECRET)) == 1);
	REQUIRE(channel_flush(&channel) == 0);
	REQUIRE(imsg_compose(&channel, 3, 2, 3, -1, SECRET, sizeof(SECRET)) == 1);
	REQUIRE(channel_next(&other, &message) == 1);
	imsg_free(&message);
	channel_clear(&channel);
	channel_clear(&other);
	CHECK_INT(leaks, 0);
	close(ends[0]);
	close(ends[1]);
}

/* These would find nothing in a program where they cannot. */
static void
a_secret_that_is_left_is_found(void)
{
	char *memory = (char *)malloc(100);

	REQUIRE(memory != NULL);
	memcpy(memory + 33, SECRET, sizeof(SECRET));
	leaks = 0;
	free(memory);
	CHECK_INT(leaks, 1);
}

int
main(void)
{
	RUN(a_message_that_finds_no_memory_is_not_composed);
	RUN(a_message_that_finds_no_memory_can_be_taken_later);
	RUN(a_buffer_that_finds_no_memory_stays_as_it_was);
	RUN(at_most_one_allocation_a_message_on_each_side);
#if MODERN
	RUN(a_long_message_that_was_taken_holds_no_memory);
#endif
	RUN(a_secret_that_is_left_is_found);
	RUN(what_a_buffer_had_is_overwritten);
	RUN(what_a_message_had_is_overwritten);
	return finish();
}

#else

int
main(void)
{
	fprintf(stderr, "NOT RUN: memory, which needs the malloc of glibc\n");
	return 0;
}

#endif
