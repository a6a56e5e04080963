/*
 * Peers made by hand: headers byte by byte, and descriptors where they do not belong.
 */
#ifndef PEER_H
#define PEER_H

#include <sys/socket.h>
#include <sys/stat.h>

#include "interface.h"

/* Writes a header of this interface's dialect; `len` counts the header. */
static inline void
put_header(unsigned char *at, uint32_t type, uint32_t len, int marked)
{
	uint32_t id = 0, pid = 1;

	memcpy(at, &type, 4);
#if MODERN
	len |= marked ? 0x80000000U : 0;
	memcpy(at + 4, &len, 4);
#else
	{
		uint16_t short_len = (uint16_t)len, flags = marked ? 1 : 0;

		memcpy(at + 4, &short_len, 2);
		memcpy(at + 6, &flags, 2);
	}
#endif
	memcpy(at + 8, &id, 4);
	memcpy(at + 12, &pid, 4);
}

/* Two ends of a connection. */
static inline void
connect_pair(int ends[2])
{
	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
}

/* A channel that takes descriptors, and the other end of its socket. */
static inline int
channel_and_peer(struct imsgbuf *channel)
{
	int ends[2];

	connect_pair(ends);
	channel_init(channel, ends[0]);
	channel_allow_descriptors(channel);
	return ends[1];
}

/* Ends a channel, and closes its socket. */
static inline void
channel_close(struct imsgbuf *channel)
{
	int fd = channel->fd;

	channel_clear(channel);
	REQUIRE(close(fd) == 0);
}

/* A file that is known by its size. */
static inline int
numbered(int number)
{
	char path[] = "/tmp/imsg-test-XXXXXX";
	int fd = mkstemp(path);

	REQUIRE(fd != -1);
	REQUIRE(unlink(path) == 0);
	REQUIRE(ftruncate(fd, number) == 0);
	return fd;
}

/* Which file that was; it is closed. -1 for none. */
static inline int
number_of(int fd)
{
	struct stat status;

	if (fd == -1)
		return -1;
	REQUIRE(fstat(fd, &status) == 0);
	REQUIRE(close(fd) == 0);
	return (int)status.st_size;
}

#define MOST_DESCRIPTORS 16

/* One sendmsg(2) of all these bytes and descriptors, which are closed. */
static inline void
send_with(int socket, const void *bytes, size_t len, const int *fds, size_t count)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(MOST_DESCRIPTORS * sizeof(int))];
	} control;
	struct msghdr message;
	struct iovec iov;
	size_t i;

	memset(&message, 0, sizeof(message));
	memset(&control, 0, sizeof(control));
	iov.iov_base = (void *)(uintptr_t)bytes;
	iov.iov_len = len;
	message.msg_iov = &iov;
	message.msg_iovlen = 1;
	if (count != 0) {
		struct cmsghdr *header;

		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(header), fds, count * sizeof(int));
	}
	REQUIRE(sendmsg(socket, &message, MSG_NOSIGNAL) == (ssize_t)len);
	for (i = 0; i < count; i++)
		REQUIRE(close(fds[i]) == 0);
}

static inline void
send_bytes(int socket, const void *bytes, size_t len)
{
	send_with(socket, bytes, len, NULL, 0);
}

/* A message without a payload; `number` is the file that goes with it, 0 for none. */
static inline void
send_message(int socket, uint32_t type, int marked, int number)
{
	unsigned char header[HEADER];
	int fd;

	put_header(header, type, HEADER, marked);
	if (number == 0) {
		send_bytes(socket, header, sizeof(header));
	} else {
		fd = numbered(number);
		send_with(socket, header, sizeof(header), &fd, 1);
	}
}

#endif
