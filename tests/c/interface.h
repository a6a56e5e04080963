/*
 * One set of names for what both interfaces do: a program that includes this is compiled with
 * MODERN 0 and 1.
 */
#ifndef INTERFACE_H
#define INTERFACE_H

#include <sys/types.h>
#ifdef ORIGINAL
/* Their headers want it before them; musl has none. */
#include <sys/queue.h>
#endif
#include <sys/uio.h>

#include <stddef.h>
#include <stdint.h>

#include <imsg.h>

#include "check.h"

#ifndef MODERN
#error "compile with -DMODERN=0 or -DMODERN=1"
#endif

#define HEADER ((size_t)16)

static inline void
channel_init(struct imsgbuf *channel, int fd)
{
#if MODERN
	REQUIRE(imsgbuf_init(channel, fd) == 0);
#else
	imsg_init(channel, fd);
#endif
}

/* In the classic interface they always are. */
static inline void
channel_allow_descriptors(struct imsgbuf *channel)
{
#if MODERN
	imsgbuf_allow_fdpass(channel);
#else
	(void)channel;
#endif
}

/* 1 for bytes, 0 for the end, -1 for an error. */
static inline int
channel_read(struct imsgbuf *channel)
{
#if MODERN
	return imsgbuf_read(channel);
#else
	ssize_t n = imsg_read(channel);

	return n > 0 ? 1 : (int)n;
#endif
}

/* 1 for a message, 0 for none, -1 for an error. */
static inline int
channel_get(struct imsgbuf *channel, struct imsg *message)
{
#if MODERN
	return imsgbuf_get(channel, message);
#else
	ssize_t n = imsg_get(channel, message);

	return n > 0 ? 1 : (int)n;
#endif
}

/* As imsgbuf_write: 0 also when it has to be tried again. */
static inline int
channel_write(struct imsgbuf *channel)
{
#if MODERN
	return imsgbuf_write(channel);
#else
	int n = msgbuf_write(&channel->w);

	if (n == -1 && errno == EAGAIN)
		return 0;
	return n == -1 ? -1 : 0;
#endif
}

static inline int
channel_flush(struct imsgbuf *channel)
{
#if MODERN
	return imsgbuf_flush(channel);
#else
	return imsg_flush(channel);
#endif
}

static inline uint32_t
channel_queued(struct imsgbuf *channel)
{
#if MODERN
	return imsgbuf_queuelen(channel);
#else
	return msgbuf_queuelen(&channel->w);
#endif
}

static inline void
channel_clear(struct imsgbuf *channel)
{
#if MODERN
	imsgbuf_clear(channel);
#else
	imsg_clear(channel);
#endif
}

/* Reads until there is a message, as a blocking program does: 1, 0 at the end, -1 for an error. */
static inline int
channel_next(struct imsgbuf *channel, struct imsg *message)
{
	for (;;) {
		int n = channel_get(channel, message);

		if (n != 0)
			return n;
		if ((n = channel_read(channel)) != 1)
			return n;
	}
}

#endif
