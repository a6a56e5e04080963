/*
 * imsg: messages and file descriptors between processes.
 *
 * The classic interface, as it was until November 2024 (imsg-compat 8.0.0,
 * OpenBSD 7.6).  It speaks the classic dialect.  See imsg_init(3), ibuf_add(3).
 *
 * The modern interface is in libimsg-modern/imsg.h.  A program takes one of
 * the two; `pkg-config --cflags libimsg` or `libimsg-modern` says which.
 */

#ifndef _IMSG_H_
#define _IMSG_H_

#include <sys/types.h>

#include <stddef.h>
#include <stdint.h>

/* Programs use its macros; the structures below do without, as musl has none. */
#if defined(__has_include)
#if __has_include(<sys/queue.h>)
#include <sys/queue.h>
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define IBUF_READ_SIZE		65535
#define IMSG_HEADER_SIZE	sizeof(struct imsg_hdr)
#define MAX_IMSGSIZE		16384

/* TAILQ_ENTRY(ibuf), TAILQ_HEAD(, ibuf) and TAILQ_HEAD(, imsg_fd), spelt out. */
struct ibuf {
	struct {
		struct ibuf	 *tqe_next;
		struct ibuf	**tqe_prev;
	}		 entry;
	unsigned char	*buf;
	size_t		 size;
	size_t		 max;
	size_t		 wpos;
	size_t		 rpos;
	int		 fd;
};

struct msgbuf {
	struct {
		struct ibuf	 *tqh_first;
		struct ibuf	**tqh_last;
	}		 bufs;
	uint32_t	 queued;
	int		 fd;
};

/* What is in it is the library's. */
struct ibuf_read {
	unsigned char	 buf[IBUF_READ_SIZE];
	unsigned char	*rptr;
	size_t		 wpos;
};

struct imsg_fd;

struct imsgbuf {
	struct {
		struct imsg_fd	 *tqh_first;
		struct imsg_fd	**tqh_last;
	}			fds;	/* the library's */
	struct ibuf_read	r;	/* the library's */
	struct msgbuf		w;
	int			fd;
	pid_t			pid;
};

#define IMSGF_HASFD	1

struct imsg_hdr {
	uint32_t	type;
	uint16_t	len;
	uint16_t	flags;
	uint32_t	peerid;
	uint32_t	pid;
};

struct imsg {
	struct imsg_hdr	 hdr;
	int		 fd;
	void		*data;
	struct ibuf	*buf;
};

struct iovec;

/* ibuf_add(3): buffers */
struct ibuf	*ibuf_open(size_t);
struct ibuf	*ibuf_dynamic(size_t, size_t);
int		 ibuf_add(struct ibuf *, const void *, size_t);
int		 ibuf_add_buf(struct ibuf *, const struct ibuf *);
int		 ibuf_add_ibuf(struct ibuf *, const struct ibuf *);
int		 ibuf_add_zero(struct ibuf *, size_t);
int		 ibuf_add_n8(struct ibuf *, uint64_t);
int		 ibuf_add_n16(struct ibuf *, uint64_t);
int		 ibuf_add_n32(struct ibuf *, uint64_t);
int		 ibuf_add_n64(struct ibuf *, uint64_t);
int		 ibuf_add_h16(struct ibuf *, uint64_t);
int		 ibuf_add_h32(struct ibuf *, uint64_t);
int		 ibuf_add_h64(struct ibuf *, uint64_t);
void		*ibuf_reserve(struct ibuf *, size_t);
void		*ibuf_seek(struct ibuf *, size_t, size_t);
int		 ibuf_set(struct ibuf *, size_t, const void *, size_t);
int		 ibuf_set_n8(struct ibuf *, size_t, uint64_t);
int		 ibuf_set_n16(struct ibuf *, size_t, uint64_t);
int		 ibuf_set_n32(struct ibuf *, size_t, uint64_t);
int		 ibuf_set_n64(struct ibuf *, size_t, uint64_t);
int		 ibuf_set_h16(struct ibuf *, size_t, uint64_t);
int		 ibuf_set_h32(struct ibuf *, size_t, uint64_t);
int		 ibuf_set_h64(struct ibuf *, size_t, uint64_t);
void		*ibuf_data(const struct ibuf *);
size_t		 ibuf_size(const struct ibuf *);
size_t		 ibuf_left(const struct ibuf *);
int		 ibuf_truncate(struct ibuf *, size_t);
void		 ibuf_rewind(struct ibuf *);
void		 ibuf_close(struct msgbuf *, struct ibuf *);
void		 ibuf_from_buffer(struct ibuf *, void *, size_t);
void		 ibuf_from_ibuf(struct ibuf *, const struct ibuf *);
int		 ibuf_get(struct ibuf *, void *, size_t);
int		 ibuf_get_ibuf(struct ibuf *, size_t, struct ibuf *);
int		 ibuf_get_n8(struct ibuf *, uint8_t *);
int		 ibuf_get_n16(struct ibuf *, uint16_t *);
int		 ibuf_get_n32(struct ibuf *, uint32_t *);
int		 ibuf_get_n64(struct ibuf *, uint64_t *);
int		 ibuf_get_h16(struct ibuf *, uint16_t *);
int		 ibuf_get_h32(struct ibuf *, uint32_t *);
int		 ibuf_get_h64(struct ibuf *, uint64_t *);
int		 ibuf_skip(struct ibuf *, size_t);
void		 ibuf_free(struct ibuf *);
int		 ibuf_fd_avail(struct ibuf *);
int		 ibuf_fd_get(struct ibuf *);
void		 ibuf_fd_set(struct ibuf *, int);
int		 ibuf_write(struct msgbuf *);
void		 msgbuf_init(struct msgbuf *);
void		 msgbuf_clear(struct msgbuf *);
uint32_t	 msgbuf_queuelen(struct msgbuf *);
int		 msgbuf_write(struct msgbuf *);

/* imsg_init(3): messages */
void		 imsg_init(struct imsgbuf *, int);
ssize_t		 imsg_read(struct imsgbuf *);
ssize_t		 imsg_get(struct imsgbuf *, struct imsg *);
int		 imsg_get_ibuf(struct imsg *, struct ibuf *);
int		 imsg_get_data(struct imsg *, void *, size_t);
int		 imsg_get_fd(struct imsg *);
uint32_t	 imsg_get_id(struct imsg *);
size_t		 imsg_get_len(struct imsg *);
pid_t		 imsg_get_pid(struct imsg *);
uint32_t	 imsg_get_type(struct imsg *);
int		 imsg_forward(struct imsgbuf *, struct imsg *);
int		 imsg_compose(struct imsgbuf *, uint32_t, uint32_t, pid_t, int,
		    const void *, size_t);
int		 imsg_composev(struct imsgbuf *, uint32_t, uint32_t, pid_t, int,
		    const struct iovec *, int);
int		 imsg_compose_ibuf(struct imsgbuf *, uint32_t, uint32_t, pid_t,
		    struct ibuf *);
struct ibuf	*imsg_create(struct imsgbuf *, uint32_t, uint32_t, pid_t, size_t);
int		 imsg_add(struct ibuf *, const void *, size_t);
void		 imsg_close(struct imsgbuf *, struct ibuf *);
void		 imsg_free(struct imsg *);
int		 imsg_flush(struct imsgbuf *);
void		 imsg_clear(struct imsgbuf *);

/* Beyond the C library */

/* Which fault ended the stream, as a sentence; NULL when none did. */
const char	*imsgbuf_error(struct imsgbuf *);

/*
 * How descriptors find their messages; for a program that knows its peers, and
 * before the first read.  0, or -1 with EINVAL.
 */
#define IMSG_PAIRING_EXACT	0	/* senders since 2021: stricter */
#define IMSG_PAIRING_ORDERED	1	/* senders of any age: the default here */
int		 imsgbuf_set_pairing(struct imsgbuf *, int);

/* Why a message that was sent with a descriptor has none (imsg.fd is -1). */
#define IMSG_FD_PRESENT		0	/* it has it, or was sent without */
#define IMSG_FD_NOT_ALLOWED	1	/* passing was not allowed yet */
#define IMSG_FD_DROPPED		2	/* the kernel dropped it: no free number */
#define IMSG_FD_NOT_SENT	3	/* the peer attached none */
int		 imsg_fd_reason(const struct imsg *);

#ifdef __cplusplus
}
#endif

#endif
