/*
 * All that comes out of a channel, as text: for each message its type, then ":" and the file that
 * came with it, or "!" and why none did; and in the end "end" or the error. As in
 * "1 2:7 3!not-sent EBADMSG".
 */
#ifndef DRAIN_H
#define DRAIN_H

#include "peer.h"

#define DRAINED 65536

static inline const char *
error_name(int error)
{
	switch (error) {
	case EBADMSG:
		return "EBADMSG";
	case ERANGE:
		return "ERANGE";
	case ECONNRESET:
		return "ECONNRESET";
	default:
		return strerror(error);
	}
}

static inline const char *
why_no_descriptor(const struct imsg *message)
{
#ifdef ORIGINAL
	(void)message;
	return "";
#else
	switch (imsg_fd_reason(message)) {
	case IMSG_FD_PRESENT:
		return "";
	case IMSG_FD_NOT_ALLOWED:
		return "!not-allowed";
	case IMSG_FD_DROPPED:
		return "!dropped";
	case IMSG_FD_NOT_SENT:
		return "!not-sent";
	default:
		return "!?";
	}
#endif
}

static inline void
drain_message(struct imsg *message, char *text)
{
	int number;

	/* Before the descriptor is taken. */
	sprintf(text, "%u%s", (unsigned)imsg_get_type(message), why_no_descriptor(message));
	number = number_of(imsg_get_fd(message));
	if (number != -1)
		sprintf(text + strlen(text), ":%d", number);
	strcat(text, " ");
	imsg_free(message);
}

/* Reads as a blocking program does, one call and then all messages, until there is no more. */
static inline const char *
drain(struct imsgbuf *channel)
{
	static char text[DRAINED];
	char *end = text;
	struct imsg message;

	for (;;) {
		int got, read_result = channel_read(channel), error = errno;

		while ((got = channel_get(channel, &message)) == 1) {
			REQUIRE(end - text < DRAINED - 64);
			drain_message(&message, end);
			end += strlen(end);
		}
		if (got == -1) {
			strcpy(end, error_name(errno));
			return text;
		}
		if (read_result != 1) {
			strcpy(end, read_result == 0 ? "end" : error_name(error));
			return text;
		}
	}
}

static inline void
check_text(const char *got, const char *expected, const char *file, int line, const char *what)
{
	if (strcmp(got, expected) == 0)
		return;
	check_failed(file, line, what);
	fprintf(stderr, " is \"%s\", not \"%s\"\n", got, expected);
}

#define CHECK_TEXT(got, expected) check_text(got, expected, __FILE__, __LINE__, #got)

#endif
