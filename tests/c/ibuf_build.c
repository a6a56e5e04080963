/* Building a buffer: open, dynamic, add, reserve, set, seek, truncate. */
#include "interface.h"

static void
an_opened_buffer_has_a_fixed_size(void)
{
	struct ibuf *buf = ibuf_open(4);

	REQUIRE(buf != NULL);
	CHECK_INT(ibuf_size(buf), 0);
	CHECK_INT(ibuf_left(buf), 4);
	CHECK_INT(ibuf_add(buf, "abc", 3), 0);
	CHECK_INT(ibuf_size(buf), 3);
	CHECK_INT(ibuf_left(buf), 1);
	CHECK_ERROR(ibuf_add(buf, "de", 2), -1, ERANGE);
	CHECK_INT(ibuf_size(buf), 3);
	CHECK_INT(ibuf_add(buf, "d", 1), 0);
	CHECK_INT(ibuf_left(buf), 0);
	CHECK_ERROR(ibuf_add(buf, "e", 1), -1, ERANGE);
	CHECK_BYTES(ibuf_data(buf), "abcd", 4);
	ibuf_free(buf);
}

static void
a_buffer_of_no_bytes(void)
{
#if MODERN
	struct ibuf *buf = ibuf_open(0);

	REQUIRE(buf != NULL);
	CHECK_INT(ibuf_size(buf), 0);
	CHECK_INT(ibuf_left(buf), 0);
	CHECK_INT(ibuf_add(buf, NULL, 0), 0);
	CHECK_ERROR(ibuf_add(buf, "a", 1), -1, ERANGE);
	ibuf_free(buf);
#else
	CHECK_NULL(ibuf_open(0), EINVAL);
#endif
}

static void
a_dynamic_buffer_grows_up_to_its_maximum(void)
{
	struct ibuf *buf = ibuf_dynamic(0, 6);
	unsigned char many[6] = { 1, 2, 3, 4, 5, 6 };

	REQUIRE(buf != NULL);
	CHECK_INT(ibuf_size(buf), 0);
	CHECK_INT(ibuf_left(buf), 6);
	CHECK_INT(ibuf_add(buf, many, 5), 0);
	CHECK_INT(ibuf_left(buf), 1);
	CHECK_ERROR(ibuf_add(buf, many, 2), -1, ERANGE);
	CHECK_INT(ibuf_add(buf, many + 5, 1), 0);
	CHECK_BYTES(ibuf_data(buf), many, 6);
	ibuf_free(buf);
}

static void
a_dynamic_buffer_grows_byte_by_byte(void)
{
	struct ibuf *buf = ibuf_dynamic(1, 100000);
	size_t i;

	REQUIRE(buf != NULL);
	for (i = 0; i < 100000; i++)
		REQUIRE(ibuf_add_n8(buf, i & 0xff) == 0);
	CHECK_ERROR(ibuf_add_n8(buf, 0), -1, ERANGE);
	for (i = 0; i < 100000; i++)
		REQUIRE(((unsigned char *)ibuf_data(buf))[i] == (i & 0xff));
	ibuf_free(buf);
}

static void
a_dynamic_buffer_without_a_maximum_or_beyond_it_is_refused(void)
{
	CHECK_NULL(ibuf_dynamic(0, 0), EINVAL);
	CHECK_NULL(ibuf_dynamic(7, 6), EINVAL);
}

static void
lengths_that_overflow_are_refused(void)
{
	struct ibuf *buf = ibuf_dynamic(1, SIZE_MAX);

	REQUIRE(buf != NULL);
	CHECK_INT(ibuf_add(buf, "a", 1), 0);
	CHECK_NULL(ibuf_reserve(buf, SIZE_MAX), ERANGE);
	CHECK_NULL(ibuf_seek(buf, 1, SIZE_MAX), ERANGE);
	CHECK_NULL(ibuf_seek(buf, SIZE_MAX, 1), ERANGE);
	CHECK_INT(ibuf_size(buf), 1);
	ibuf_free(buf);
}

static void
numbers_are_added_in_both_byte_orders(void)
{
	struct ibuf *buf = ibuf_dynamic(0, 64);
	static const unsigned char network[] = { 0x12, 0x12, 0x34, 0x12, 0x34, 0x56, 0x78,
		0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0 };
	unsigned char host[14];
	uint16_t two = 0x1234;
	uint32_t four = 0x12345678;
	uint64_t eight = 0x123456789abcdef0ULL;

	REQUIRE(buf != NULL);
	CHECK_INT(ibuf_add_n8(buf, 0x12), 0);
	CHECK_INT(ibuf_add_n16(buf, two), 0);
	CHECK_INT(ibuf_add_n32(buf, four), 0);
	CHECK_INT(ibuf_add_n64(buf, eight), 0);
	CHECK_INT(ibuf_size(buf), sizeof(network));
	CHECK_BYTES(ibuf_data(buf), network, sizeof(network));
	CHECK_INT(ibuf_skip(buf, sizeof(network)), 0);
	CHECK_INT(ibuf_add_h16(buf, two), 0);
	CHECK_INT(ibuf_add_h32(buf, four), 0);
	CHECK_INT(ibuf_add_h64(buf, eight), 0);
	memcpy(host, &two, 2);
	memcpy(host + 2, &four, 4);
	memcpy(host + 6, &eight, 8);
	CHECK_INT(ibuf_size(buf), sizeof(host));
	CHECK_BYTES(ibuf_data(buf), host, sizeof(host));
	ibuf_free(buf);
}

static void
numbers_that_do_not_fit_are_refused(void)
{
	struct ibuf *buf = ibuf_dynamic(0, 64);

	REQUIRE(buf != NULL);
	CHECK_INT(ibuf_add_n8(buf, 0xff), 0);
	CHECK_INT(ibuf_add_n16(buf, 0xffff), 0);
	CHECK_INT(ibuf_add_n32(buf, 0xffffffff), 0);
	CHECK_INT(ibuf_add_n64(buf, UINT64_MAX), 0);
	CHECK_INT(ibuf_add_h16(buf, 0xffff), 0);
	CHECK_INT(ibuf_add_h32(buf, 0xffffffff), 0);
	CHECK_INT(ibuf_add_h64(buf, UINT64_MAX), 0);
	CHECK_INT(ibuf_size(buf), 29);
	CHECK_ERROR(ibuf_add_n8(buf, 0x100), -1, EINVAL);
	CHECK_ERROR(ibuf_add_n16(buf, 0x10000), -1, EINVAL);
	CHECK_ERROR(ibuf_add_n32(buf, 0x100000000ULL), -1, EINVAL);
	CHECK_ERROR(ibuf_add_h16(buf, 0x10000), -1, EINVAL);
	CHECK_ERROR(ibuf_add_h32(buf, 0x100000000ULL), -1, EINVAL);
	CHECK_ERROR(ibuf_set_n8(buf, 0, 0x100), -1, EINVAL);
	CHECK_ERROR(ibuf_set_n16(buf, 0, 0x10000), -1, EINVAL);
	CHECK_ERROR(ibuf_set_n32(buf, 0, 0x100000000ULL), -1, EINVAL);
	CHECK_ERROR(ibuf_set_h16(buf, 0, 0x10000), -1, EINVAL);
	CHECK_ERROR(ibuf_set_h32(buf, 0, 0x100000000ULL), -1, EINVAL);
	CHECK_INT(ibuf_size(buf), 29);
	ibuf_free(buf);
}

static void
a_number_that_finds_no_room_leaves_the_buffer_as_it_was(void)
{
	struct ibuf *buf = ibuf_open(1);

	REQUIRE(buf != NULL);
	CHECK_ERROR(ibuf_add_n16(buf, 1), -1, ERANGE);
	CHECK_ERROR(ibuf_add_n32(buf, 1), -1, ERANGE);
	CHECK_ERROR(ibuf_add_n64(buf, 1), -1, ERANGE);
	CHECK_ERROR(ibuf_add_h16(buf, 1), -1, ERANGE);
	CHECK_ERROR(ibuf_add_h32(buf, 1), -1, ERANGE);
	CHECK_ERROR(ibuf_add_h64(buf, 1), -1, ERANGE);
	CHECK_ERROR(ibuf_add_zero(buf, 2), -1, ERANGE);
	CHECK_INT(ibuf_size(buf), 0);
	CHECK_INT(ibuf_left(buf), 1);
	CHECK_INT(ibuf_add_n8(buf, 7), 0);
	CHECK_ERROR(ibuf_add_n8(buf, 7), -1, ERANGE);
	ibuf_free(buf);
}

static void
zeros_and_other_buffers_are_added(void)
{
	struct ibuf *buf = ibuf_dynamic(0, 16), *other = ibuf_open(5);

	REQUIRE(buf != NULL && other != NULL);
	CHECK_INT(ibuf_add(other, "12345", 5), 0);
	CHECK_INT(ibuf_skip(other, 2), 0);
	CHECK_INT(ibuf_add_zero(buf, 3), 0);
	CHECK_INT(ibuf_add_ibuf(buf, other), 0);
#if !MODERN
	CHECK_INT(ibuf_add_buf(buf, other), 0);
	CHECK_BYTES(ibuf_data(buf), "\0\0\0" "345345", 9);
#else
	CHECK_BYTES(ibuf_data(buf), "\0\0\0" "345", 6);
#endif
	CHECK_INT(ibuf_size(other), 3);
	ibuf_free(other);
	ibuf_free(buf);
}

static void
reserved_bytes_are_zero_and_part_of_the_buffer(void)
{
	struct ibuf *buf = ibuf_dynamic(0, 8);
	unsigned char *at;

	REQUIRE(buf != NULL);
	CHECK_INT(ibuf_add(buf, "a", 1), 0);
	at = (unsigned char *)ibuf_reserve(buf, 4);
	REQUIRE(at != NULL);
	CHECK_BYTES(at, "\0\0\0\0", 4);
	memcpy(at, "bcde", 4);
	CHECK_INT(ibuf_size(buf), 5);
	CHECK_INT(ibuf_left(buf), 3);
	CHECK_BYTES(ibuf_data(buf), "abcde", 5);
	CHECK_NULL(ibuf_reserve(buf, 4), ERANGE);
	CHECK_INT(ibuf_size(buf), 5);
	CHECK(ibuf_reserve(buf, 3) != NULL);
	ibuf_free(buf);
}

static void
what_was_added_can_be_set(void)
{
	struct ibuf *buf = ibuf_open(15);
	uint16_t two = 0x0102;
	uint32_t four = 0x01020304;
	uint64_t eight = 0x0102030405060708ULL;

	REQUIRE(buf != NULL);
	CHECK_INT(ibuf_add_zero(buf, 15), 0);
	CHECK_INT(ibuf_set_n8(buf, 0, 0xfe), 0);
	CHECK_INT(ibuf_set_n16(buf, 1, two), 0);
	CHECK_INT(ibuf_set_n32(buf, 3, four), 0);
	CHECK_INT(ibuf_set_n64(buf, 7, eight), 0);
	CHECK_BYTES(ibuf_data(buf), "\xfe\1\2\1\2\3\4\1\2\3\4\5\6\7\10", 15);
	CHECK_INT(ibuf_set_h16(buf, 0, two), 0);
	CHECK_INT(ibuf_set_h32(buf, 2, four), 0);
	CHECK_INT(ibuf_set_h64(buf, 6, eight), 0);
	CHECK_BYTES(ibuf_data(buf), &two, 2);
	CHECK_BYTES((char *)ibuf_data(buf) + 2, &four, 4);
	CHECK_BYTES((char *)ibuf_data(buf) + 6, &eight, 8);
	CHECK_INT(ibuf_set(buf, 12, "xyz", 3), 0);
	CHECK_BYTES(ibuf_seek(buf, 12, 3), "xyz", 3);
	CHECK_INT(ibuf_size(buf), 15);
	ibuf_free(buf);
}

static void
only_what_is_between_the_positions_can_be_set(void)
{
	struct ibuf *buf = ibuf_dynamic(4, 64);

	REQUIRE(buf != NULL);
	CHECK_INT(ibuf_add(buf, "abcdefgh", 8), 0);
	CHECK_INT(ibuf_skip(buf, 2), 0);
	CHECK_INT(ibuf_set_n8(buf, 5, '!'), 0);
	CHECK_ERROR(ibuf_set_n8(buf, 6, 1), -1, ERANGE);
	CHECK_ERROR(ibuf_set_n16(buf, 5, 1), -1, ERANGE);
	CHECK_ERROR(ibuf_set_n32(buf, 3, 1), -1, ERANGE);
	CHECK_ERROR(ibuf_set_n64(buf, 0, 1), -1, ERANGE);
	CHECK_ERROR(ibuf_set_h16(buf, 5, 1), -1, ERANGE);
	CHECK_ERROR(ibuf_set_h32(buf, 3, 1), -1, ERANGE);
	CHECK_ERROR(ibuf_set_h64(buf, 0, 1), -1, ERANGE);
	CHECK_ERROR(ibuf_set(buf, 4, "abc", 3), -1, ERANGE);
	CHECK_NULL(ibuf_seek(buf, 0, 7), ERANGE);
	CHECK_NULL(ibuf_seek(buf, 7, 0), ERANGE);
	CHECK(ibuf_seek(buf, 6, 0) != NULL);
	CHECK(ibuf_seek(buf, 0, 6) == ibuf_data(buf));
	CHECK_INT(ibuf_set(buf, 0, "CDEFGH", 6), 0);
	ibuf_rewind(buf);
	CHECK_BYTES(ibuf_data(buf), "abCDEFGH", 8);
	ibuf_free(buf);
}

static void
truncation_cuts_or_fills_with_zeros(void)
{
	struct ibuf *buf = ibuf_dynamic(0, 10);

	REQUIRE(buf != NULL);
	CHECK_INT(ibuf_add(buf, "abcdef", 6), 0);
	CHECK_INT(ibuf_skip(buf, 1), 0);
	CHECK_INT(ibuf_truncate(buf, 2), 0);
	CHECK_INT(ibuf_size(buf), 2);
	CHECK_INT(ibuf_left(buf), 7);
	CHECK_INT(ibuf_truncate(buf, 2), 0);
	CHECK_INT(ibuf_truncate(buf, 5), 0);
	CHECK_BYTES(ibuf_data(buf), "bc\0\0\0", 5);
	CHECK_INT(ibuf_truncate(buf, 9), 0);
	CHECK_INT(ibuf_left(buf), 0);
	CHECK_ERROR(ibuf_truncate(buf, 10), -1, ERANGE);
	CHECK_INT(ibuf_size(buf), 9);
	CHECK_INT(ibuf_truncate(buf, 0), 0);
	CHECK_INT(ibuf_size(buf), 0);
	ibuf_free(buf);
}

#if MODERN
static void
a_string_is_padded_to_its_field(void)
{
	struct ibuf *buf = ibuf_dynamic(0, 20);

	REQUIRE(buf != NULL);
	CHECK_INT(ibuf_add_strbuf(buf, "hello", 8), 0);
	CHECK_INT(ibuf_size(buf), 8);
	CHECK_BYTES(ibuf_data(buf), "hello\0\0\0", 8);
	CHECK_INT(ibuf_add_strbuf(buf, "", 1), 0);
	CHECK_INT(ibuf_add_strbuf(buf, "1234567", 8), 0);
	CHECK_INT(ibuf_size(buf), 17);
	CHECK_BYTES((char *)ibuf_data(buf) + 8, "\0" "1234567\0", 9);
	CHECK_ERROR(ibuf_add_strbuf(buf, "abc", 4), -1, ERANGE);
	CHECK_INT(ibuf_size(buf), 17);
	ibuf_free(buf);
}

static void
a_string_that_does_not_fit_its_field_is_refused(void)
{
	struct ibuf *buf = ibuf_dynamic(0, 32);

	REQUIRE(buf != NULL);
	CHECK_ERROR(ibuf_add_strbuf(buf, "abcd", 4), -1, EOVERFLOW);
	CHECK_ERROR(ibuf_add_strbuf(buf, "abcde", 4), -1, EOVERFLOW);
	CHECK_ERROR(ibuf_add_strbuf(buf, "a", 1), -1, EOVERFLOW);
	ibuf_free(buf);
}

static void
a_maximum_can_be_lowered_to_what_is_written(void)
{
	struct ibuf *buf = ibuf_dynamic(16, 32);
	struct ibuf lent;
	char bytes[4];

	REQUIRE(buf != NULL);
	CHECK_INT(ibuf_add(buf, "abcd", 4), 0);
	CHECK_ERROR(ibuf_set_maxsize(buf, 33), -1, ERANGE);
	CHECK_ERROR(ibuf_set_maxsize(buf, 3), -1, ERANGE);
	CHECK_INT(ibuf_set_maxsize(buf, 32), 0);
	CHECK_INT(ibuf_set_maxsize(buf, 20), 0);
	CHECK_INT(ibuf_left(buf), 16);
	CHECK_INT(ibuf_set_maxsize(buf, 5), 0);
	CHECK_INT(ibuf_left(buf), 1);
	CHECK_ERROR(ibuf_add(buf, "ef", 2), -1, ERANGE);
	CHECK_ERROR(ibuf_set_maxsize(buf, 6), -1, ERANGE);
	CHECK_INT(ibuf_add(buf, "e", 1), 0);
	CHECK_BYTES(ibuf_data(buf), "abcde", 5);
	ibuf_free(buf);
	ibuf_from_buffer(&lent, bytes, sizeof(bytes));
	CHECK_ERROR(ibuf_set_maxsize(&lent, 4), -1, EINVAL);
}
#endif

int
main(void)
{
	RUN(an_opened_buffer_has_a_fixed_size);
	RUN(a_buffer_of_no_bytes);
	RUN(a_dynamic_buffer_grows_up_to_its_maximum);
	RUN(a_dynamic_buffer_grows_byte_by_byte);
	RUN(a_dynamic_buffer_without_a_maximum_or_beyond_it_is_refused);
	RUN(lengths_that_overflow_are_refused);
	RUN(numbers_are_added_in_both_byte_orders);
	RUN(numbers_that_do_not_fit_are_refused);
	RUN(a_number_that_finds_no_room_leaves_the_buffer_as_it_was);
	RUN(zeros_and_other_buffers_are_added);
	RUN(reserved_bytes_are_zero_and_part_of_the_buffer);
	RUN(what_was_added_can_be_set);
	RUN(only_what_is_between_the_positions_can_be_set);
	RUN(truncation_cuts_or_fills_with_zeros);
#if MODERN
	RUN(a_string_is_padded_to_its_field);
	RUN(a_string_that_does_not_fit_its_field_is_refused);
	RUN(a_maximum_can_be_lowered_to_what_is_written);
#endif
	return finish();
}
