/* Where the members of the structures are that programs see: as the original headers have them. */
#include "interface.h"

/* The same, of nothing but what the language has. */
struct plain_ibuf {
	struct ibuf *next;
	struct ibuf **previous;
	unsigned char *buf;
	size_t size;
	size_t max;
	size_t wpos;
	size_t rpos;
	int fd;
};

#if MODERN
struct plain_imsgbuf {
	struct msgbuf *w;
	void (*cb)(struct imsgbuf *, void *);
	void *userdata;
	int32_t pid;
	uint32_t maxsize;
	int fd;
	int flags;
};

struct plain_hdr {
	uint32_t type;
	uint32_t len;
	uint32_t peerid;
	uint32_t pid;
};

struct plain_imsg {
	struct plain_hdr hdr;
	void *data;
	struct ibuf *buf;
};
#else
struct plain_msgbuf {
	struct ibuf *first;
	struct ibuf **last;
	uint32_t queued;
	int fd;
};

struct plain_imsgbuf {
	void *first;
	void *last;
	unsigned char buf[65535];
	unsigned char *rptr;
	size_t wpos;
	struct plain_msgbuf w;
	int fd;
	int32_t pid;
};

struct plain_hdr {
	uint32_t type;
	uint16_t len;
	uint16_t flags;
	uint32_t peerid;
	uint32_t pid;
};

struct plain_imsg {
	struct plain_hdr hdr;
	int fd;
	void *data;
	struct ibuf *buf;
};
#endif

#define SAME_SIZE(type, plain) CHECK_INT(sizeof(type), sizeof(plain))
#define SAME_PLACE(type, plain, member) do {					\
	CHECK_INT(offsetof(type, member), offsetof(plain, member));		\
	CHECK_INT(sizeof(((type *)0)->member), sizeof(((plain *)0)->member));	\
} while (0)

static void
buffers_lie_as_in_the_original(void)
{
	SAME_SIZE(struct ibuf, struct plain_ibuf);
	CHECK_INT(offsetof(struct ibuf, entry), 0);
	SAME_PLACE(struct ibuf, struct plain_ibuf, buf);
	SAME_PLACE(struct ibuf, struct plain_ibuf, size);
	SAME_PLACE(struct ibuf, struct plain_ibuf, max);
	SAME_PLACE(struct ibuf, struct plain_ibuf, wpos);
	SAME_PLACE(struct ibuf, struct plain_ibuf, rpos);
	SAME_PLACE(struct ibuf, struct plain_ibuf, fd);
}

static void
headers_lie_as_on_the_wire(void)
{
	CHECK_INT(IMSG_HEADER_SIZE, 16);
	SAME_SIZE(struct imsg_hdr, struct plain_hdr);
	SAME_PLACE(struct imsg_hdr, struct plain_hdr, type);
	SAME_PLACE(struct imsg_hdr, struct plain_hdr, len);
#if !MODERN
	SAME_PLACE(struct imsg_hdr, struct plain_hdr, flags);
#endif
	SAME_PLACE(struct imsg_hdr, struct plain_hdr, peerid);
	SAME_PLACE(struct imsg_hdr, struct plain_hdr, pid);
}

static void
messages_lie_as_in_the_original(void)
{
	SAME_SIZE(struct imsg, struct plain_imsg);
	CHECK_INT(offsetof(struct imsg, hdr), 0);
#if !MODERN
	SAME_PLACE(struct imsg, struct plain_imsg, fd);
#endif
	SAME_PLACE(struct imsg, struct plain_imsg, data);
	SAME_PLACE(struct imsg, struct plain_imsg, buf);
}

static void
channels_lie_as_in_the_original(void)
{
	SAME_SIZE(struct imsgbuf, struct plain_imsgbuf);
#if MODERN
	SAME_PLACE(struct imsgbuf, struct plain_imsgbuf, cb);
	SAME_PLACE(struct imsgbuf, struct plain_imsgbuf, userdata);
	SAME_PLACE(struct imsgbuf, struct plain_imsgbuf, maxsize);
	SAME_PLACE(struct imsgbuf, struct plain_imsgbuf, flags);
#else
	SAME_SIZE(struct msgbuf, struct plain_msgbuf);
	CHECK_INT(offsetof(struct msgbuf, bufs), 0);
	SAME_PLACE(struct msgbuf, struct plain_msgbuf, queued);
	SAME_PLACE(struct msgbuf, struct plain_msgbuf, fd);
	CHECK_INT(offsetof(struct imsgbuf, fds), 0);
	CHECK_INT(offsetof(struct imsgbuf, r.buf), offsetof(struct plain_imsgbuf, buf));
	CHECK_INT(offsetof(struct imsgbuf, r.rptr), offsetof(struct plain_imsgbuf, rptr));
	CHECK_INT(offsetof(struct imsgbuf, r.wpos), offsetof(struct plain_imsgbuf, wpos));
#endif
	SAME_PLACE(struct imsgbuf, struct plain_imsgbuf, w);
	SAME_PLACE(struct imsgbuf, struct plain_imsgbuf, fd);
	SAME_PLACE(struct imsgbuf, struct plain_imsgbuf, pid);
}

static void
limits_are_those_of_the_original(void)
{
	CHECK_INT(MAX_IMSGSIZE, 16384);
	CHECK_INT(IBUF_READ_SIZE, 65535);
#if !MODERN
	CHECK_INT(IMSGF_HASFD, 1);
#endif
}

int
main(void)
{
	RUN(buffers_lie_as_in_the_original);
	RUN(headers_lie_as_on_the_wire);
	RUN(messages_lie_as_in_the_original);
	RUN(channels_lie_as_in_the_original);
	RUN(limits_are_those_of_the_original);
	return finish();
}
