/*
 * A peer for other programs: answers each message on standard input's socket with one of the next
 * type, the same id and payload, and the same descriptor. The pid of the answer is its own. Ends
 * with 0 at the end of the stream.
 */
#include <poll.h>

#include "peer.h"

static struct imsgbuf channel;

static void
answer(struct imsg *message)
{
	int fd = imsg_get_fd(message);

	REQUIRE(imsg_compose(&channel, imsg_get_type(message) + 1, imsg_get_id(message), 0, fd,
	    message->data, imsg_get_len(message)) == 1);
	imsg_free(message);
}

int
main(void)
{
	struct imsg message;
	int n;

	REQUIRE(fcntl(0, F_SETFL, O_NONBLOCK) == 0);
	channel_init(&channel, 0);
	channel_allow_descriptors(&channel);
	for (;;) {
		struct pollfd socket;

		socket.fd = 0;
		/* A client that does not read is not read from. */
		socket.events = channel_queued(&channel) != 0 ? POLLOUT : POLLIN;
		REQUIRE(poll(&socket, 1, 120000) == 1);
		if (channel_queued(&channel) != 0) {
			REQUIRE(channel_write(&channel) == 0);
			continue;
		}
		if ((n = channel_read(&channel)) == 0)
			break;
		REQUIRE(n == 1 || errno == EAGAIN);
		while ((n = channel_get(&channel, &message)) == 1)
			answer(&message);
		REQUIRE(n == 0);
	}
	channel_clear(&channel);
	return finish();
}
