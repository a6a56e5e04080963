/* Reading a buffer: get, skip, rewind, and buffers that are lent. */
#include "interface.h"

static struct ibuf *
with(const void *bytes, size_t len)
{
	struct ibuf *buf = ibuf_dynamic(len, len + 1);

	REQUIRE(buf != NULL);
	REQUIRE(ibuf_add(buf, bytes, len) == 0);
	return buf;
}

static void
bytes_are_taken_in_order(void)
{
	struct ibuf *buf = with("abcdef", 6);
	char got[6];

	CHECK_INT(ibuf_get(buf, got, 2), 0);
	CHECK_BYTES(got, "ab", 2);
	CHECK_INT(ibuf_skip(buf, 1), 0);
	CHECK_INT(ibuf_size(buf), 3);
	CHECK_INT(ibuf_get(buf, got, 3), 0);
	CHECK_BYTES(got, "def", 3);
	CHECK_INT(ibuf_size(buf), 0);
	CHECK_INT(ibuf_get(buf, got, 0), 0);
	CHECK_INT(ibuf_skip(buf, 0), 0);
	ibuf_free(buf);
}

static void
more_than_there_is_takes_nothing(void)
{
	struct ibuf *buf = with("a", 1), lent;
	char got[9];
	uint16_t two;
	uint32_t four;
	uint64_t eight;
	uint8_t one;

	CHECK_ERROR(ibuf_get(buf, got, 2), -1, EBADMSG);
	CHECK_ERROR(ibuf_get(buf, got, SIZE_MAX), -1, EBADMSG);
	CHECK_ERROR(ibuf_skip(buf, 2), -1, EBADMSG);
	CHECK_ERROR(ibuf_skip(buf, SIZE_MAX), -1, EBADMSG);
	CHECK_ERROR(ibuf_get_ibuf(buf, 2, &lent), -1, EBADMSG);
	CHECK_ERROR(ibuf_get_h16(buf, &two), -1, EBADMSG);
	CHECK_ERROR(ibuf_get_h32(buf, &four), -1, EBADMSG);
	CHECK_ERROR(ibuf_get_h64(buf, &eight), -1, EBADMSG);
	CHECK_INT(ibuf_size(buf), 1);
	CHECK_INT(ibuf_get_n8(buf, &one), 0);
	CHECK_INT(one, 'a');
	CHECK_ERROR(ibuf_get_n8(buf, &one), -1, EBADMSG);
	ibuf_free(buf);
}

/* The values are set first, as the C libraries turn them around also when they fail. */
static void
numbers_of_the_network_that_are_cut_off_are_refused(void)
{
	struct ibuf *buf = with("a", 1);
	uint16_t two = 0;
	uint32_t four = 0;
	uint64_t eight = 0;

	CHECK_ERROR(ibuf_get_n16(buf, &two), -1, EBADMSG);
	CHECK_ERROR(ibuf_get_n32(buf, &four), -1, EBADMSG);
	CHECK_ERROR(ibuf_get_n64(buf, &eight), -1, EBADMSG);
	CHECK_INT(ibuf_size(buf), 1);
	ibuf_free(buf);
}

static void
numbers_are_read_in_both_byte_orders(void)
{
	struct ibuf *buf = with("\x12\x12\x34\x12\x34\x56\x78\x12\x34\x56\x78\x9a\xbc\xde\xf0", 15);
	uint8_t one;
	uint16_t two, host_two;
	uint32_t four, host_four;
	uint64_t eight, host_eight;

	CHECK_INT(ibuf_get_n8(buf, &one), 0);
	CHECK_INT(ibuf_get_n16(buf, &two), 0);
	CHECK_INT(ibuf_get_n32(buf, &four), 0);
	CHECK_INT(ibuf_get_n64(buf, &eight), 0);
	CHECK_INT(one, 0x12);
	CHECK_INT(two, 0x1234);
	CHECK_INT(four, 0x12345678);
	CHECK(eight == 0x123456789abcdef0ULL);
	ibuf_rewind(buf);
	CHECK_INT(ibuf_size(buf), 15);
	CHECK_INT(ibuf_skip(buf, 1), 0);
	memcpy(&host_two, ibuf_data(buf), 2);
	CHECK_INT(ibuf_get_h16(buf, &two), 0);
	CHECK_INT(two, host_two);
	memcpy(&host_four, ibuf_data(buf), 4);
	CHECK_INT(ibuf_get_h32(buf, &four), 0);
	CHECK_INT(four, host_four);
	memcpy(&host_eight, ibuf_data(buf), 8);
	CHECK_INT(ibuf_get_h64(buf, &eight), 0);
	CHECK(eight == host_eight);
	ibuf_free(buf);
}

static void
a_lent_buffer_reads_the_bytes_where_they_are(void)
{
	char bytes[] = "abcdef";
	struct ibuf buf;
	char got[3];

	ibuf_from_buffer(&buf, bytes, 6);
	CHECK_INT(ibuf_size(&buf), 6);
	CHECK_INT(ibuf_left(&buf), 0);
	CHECK(ibuf_data(&buf) == (void *)bytes);
	CHECK_INT(ibuf_get(&buf, got, 3), 0);
	CHECK_BYTES(got, "abc", 3);
	CHECK_INT(ibuf_set_n8(&buf, 0, 'D'), 0);
	CHECK_INT(bytes[3], 'D');
	CHECK_INT(ibuf_truncate(&buf, 1), 0);
	CHECK_INT(ibuf_size(&buf), 1);
	CHECK_ERROR(ibuf_truncate(&buf, 2), -1, ERANGE);
	ibuf_rewind(&buf);
	CHECK_INT(ibuf_size(&buf), 4);
	CHECK_INT(ibuf_fd_avail(&buf), 0);
	CHECK_INT(ibuf_fd_get(&buf), -1);
}

static void
a_lent_buffer_does_not_grow(void)
{
	char bytes[] = "abcdef";
	struct ibuf buf;
	int error = MODERN ? EINVAL : ERANGE;

	ibuf_from_buffer(&buf, bytes, 3);
	CHECK_ERROR(ibuf_add(&buf, "x", 1), -1, error);
	CHECK_ERROR(ibuf_add_zero(&buf, 1), -1, error);
	CHECK_ERROR(ibuf_add_n8(&buf, 1), -1, error);
	CHECK_NULL(ibuf_reserve(&buf, 1), error);
	/* Not even when bytes were cut off. */
	CHECK_INT(ibuf_truncate(&buf, 1), 0);
	CHECK_ERROR(ibuf_add(&buf, "x", 1), -1, error);
	CHECK_BYTES(bytes, "abcdef", 6);
}

static void
a_peek_leaves_the_buffer_alone(void)
{
	struct ibuf *buf = with("abcdef", 6), peek;
	char got[4];

	CHECK_INT(ibuf_skip(buf, 2), 0);
	ibuf_from_ibuf(&peek, buf);
	CHECK_INT(ibuf_size(&peek), 4);
	CHECK_INT(ibuf_get(&peek, got, 4), 0);
	CHECK_BYTES(got, "cdef", 4);
	CHECK_INT(ibuf_size(buf), 4);
	/* It begins where the other one was. */
	ibuf_rewind(&peek);
	CHECK_INT(ibuf_size(&peek), 4);
	ibuf_free(buf);
}

static void
a_part_is_taken_as_a_buffer(void)
{
	struct ibuf *buf = with("abcdef", 6), part;

	CHECK_INT(ibuf_get_ibuf(buf, 4, &part), 0);
	CHECK_INT(ibuf_size(buf), 2);
	CHECK_INT(ibuf_size(&part), 4);
	CHECK_BYTES(ibuf_data(&part), "abcd", 4);
	CHECK_INT(ibuf_get_ibuf(buf, 2, &part), 0);
	CHECK_BYTES(ibuf_data(&part), "ef", 2);
	CHECK_ERROR(ibuf_get_ibuf(buf, 1, &part), -1, EBADMSG);
	CHECK_INT(ibuf_get_ibuf(buf, 0, &part), 0);
	CHECK_INT(ibuf_size(&part), 0);
	ibuf_free(buf);
}

#if MODERN
static void
a_string_is_copied_into_memory_of_its_own(void)
{
	struct ibuf *buf = with("abc\0def", 7);
	char *string;

	CHECK_NULL(ibuf_get_string(buf, 8), EBADMSG);
	string = ibuf_get_string(buf, 2);
	REQUIRE(string != NULL);
	CHECK(strcmp(string, "ab") == 0);
	free(string);
	/* The field is consumed; the string ends at its first NUL. */
	string = ibuf_get_string(buf, 4);
	REQUIRE(string != NULL);
	CHECK(strcmp(string, "c") == 0);
	free(string);
	CHECK_INT(ibuf_size(buf), 1);
	string = ibuf_get_string(buf, 0);
	REQUIRE(string != NULL);
	CHECK(strcmp(string, "") == 0);
	free(string);
	ibuf_free(buf);
}

static void
a_field_of_fixed_size_gives_a_terminated_string(void)
{
	struct ibuf *buf = with("abc\0xyzfull", 11);
	char string[8];

	CHECK_ERROR(ibuf_get_strbuf(buf, string, 0), -1, EINVAL);
	memset(string, '!', sizeof(string));
	CHECK_INT(ibuf_get_strbuf(buf, string, 7), 0);
	/* What was behind the string does not get out. */
	CHECK_BYTES(string, "abc\0\0\0\0!", 8);
	CHECK_ERROR(ibuf_get_strbuf(buf, string, 5), -1, EBADMSG);
	CHECK_ERROR(ibuf_get_strbuf(buf, string, 4), -1, EOVERFLOW);
	CHECK_BYTES(string, "ful\0", 4);
	ibuf_free(buf);
}
#endif

int
main(void)
{
	RUN(bytes_are_taken_in_order);
	RUN(more_than_there_is_takes_nothing);
	RUN(numbers_of_the_network_that_are_cut_off_are_refused);
	RUN(numbers_are_read_in_both_byte_orders);
	RUN(a_lent_buffer_reads_the_bytes_where_they_are);
	RUN(a_lent_buffer_does_not_grow);
	RUN(a_peek_leaves_the_buffer_alone);
	RUN(a_part_is_taken_as_a_buffer);
#if MODERN
	RUN(a_string_is_copied_into_memory_of_its_own);
	RUN(a_field_of_fixed_size_gives_a_terminated_string);
#endif
	return finish();
}
