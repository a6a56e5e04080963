/*
 * What `imsg conform` asks a program to be: it sends each message back.  With
 * -DMODERN=1 it is for the modern interface, otherwise for the classic one.
 */

#include <sys/types.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <imsg.h>

#if MODERN
#define start(imsgbuf)		imsgbuf_init(imsgbuf, 3)
#define allow(imsgbuf)		imsgbuf_allow_fdpass(imsgbuf)
#define receive			imsgbuf_read
#define send_all		imsgbuf_flush
#define descriptor(imsg)	imsg_get_fd(imsg)
#else
#define start(imsgbuf)		(imsg_init(imsgbuf, 3), 0)
#define allow(imsgbuf)		((void)0)	/* always */
#define receive			imsg_read
#define send_all		imsg_flush
#define descriptor(imsg)	((imsg)->fd)
#endif

static void
send_back(struct imsgbuf *imsgbuf, struct imsg *imsg)
{
	/* The descriptor is closed once it is sent. */
	if (imsg_compose(imsgbuf, imsg->hdr.type, imsg->hdr.peerid,
	    imsg->hdr.pid, descriptor(imsg), imsg->data,
	    imsg->hdr.len - IMSG_HEADER_SIZE) == -1)
		exit(2);
	imsg_free(imsg);
}

int
main(void)
{
	struct imsgbuf	imsgbuf;
	struct imsg	imsg;
	ssize_t		got, n;

	/* A peer that has hung up is an error of the call. */
	signal(SIGPIPE, SIG_IGN);
	if (start(&imsgbuf) == -1)
		exit(2);
	allow(&imsgbuf);
	for (;;) {
		do
			n = receive(&imsgbuf);
		while (n == -1 && errno == EAGAIN);
		while ((got = imsg_get(&imsgbuf, &imsg)) > 0)
			send_back(&imsgbuf, &imsg);
		if (send_all(&imsgbuf) == -1)
			exit(2);
		if (got == -1 || n == -1)
			exit(1);
		/* The end may have come inside a message. */
		if (n == 0)
			exit(imsgbuf_error(&imsgbuf) != NULL);
	}
}
