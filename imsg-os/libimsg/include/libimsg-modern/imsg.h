/*
 * imsg: messages and file descriptors between processes.
 *
 * The modern interface, as it came in November 2024 (OpenBSD 7.7), and as it is
 * in September 2026.  It speaks the modern dialect.  See imsgbuf_init(3),
 * ibuf_add(3).
 *
 * The classic interface is in ../imsg.h.  A program takes one of the two;
 * `pkg-config --cflags libimsg` or `libimsg-modern` says which.  Both are in
 * one library: a function that only this interface has, and one that does the
 * same in both, has the symbol of its name; of the others, that of the modern
 * one ends in _modern.
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

#define IMSG_SYM_STR_(text)	#text
#define IMSG_SYM_STR(text)	IMSG_SYM_STR_(text)
#define IMSG_SYM(name)							\
	__asm__(IMSG_SYM_STR(__USER_LABEL_PREFIX__) #name "_modern")

#ifdef __cplusplus
extern "C" {
#endif

#define IBUF_READ_SIZE		65535
#define IMSG_HEADER_SIZE	sizeof(struct imsg_hdr)
#define MAX_IMSGSIZE		16384

/* The entry is TAILQ_ENTRY(ibuf), spelt out. */
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

struct ibufqueue;
struct msgbuf;

struct imsgbuf {
	struct msgbuf	*w;
	void		(*cb)(struct imsgbuf *, void *);
	void		*userdata;
	pid_t		 pid;
	uint32_t	 maxsize;
	int		 fd;
	int		 flags;
};

struct imsg_hdr {
	uint32_t	type;
	uint32_t	len;
	uint32_t	peerid;
	uint32_t	pid;
};

struct imsg {
	struct imsg_hdr	 hdr;
	void		*data;
	struct ibuf	*buf;
};

struct iovec;

/* ibuf_add(3): buffers */
struct ibuf	*ibuf_open(size_t) IMSG_SYM(ibuf_open);
struct ibuf	*ibuf_dynamic(size_t, size_t);
int		 ibuf_add(struct ibuf *, const void *, size_t);
int		 ibuf_add_ibuf(struct ibuf *, const struct ibuf *);
int		 ibuf_add_zero(struct ibuf *, size_t);
int		 ibuf_add_n8(struct ibuf *, uint64_t);
int		 ibuf_add_n16(struct ibuf *, uint64_t);
int		 ibuf_add_n32(struct ibuf *, uint64_t);
int		 ibuf_add_n64(struct ibuf *, uint64_t);
int		 ibuf_add_h16(struct ibuf *, uint64_t);
int		 ibuf_add_h32(struct ibuf *, uint64_t);
int		 ibuf_add_h64(struct ibuf *, uint64_t);
int		 ibuf_add_strbuf(struct ibuf *, const char *, size_t);
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
int		 ibuf_set_maxsize(struct ibuf *, size_t);
void		*ibuf_data(const struct ibuf *);
size_t		 ibuf_size(const struct ibuf *);
size_t		 ibuf_left(const struct ibuf *);
int		 ibuf_truncate(struct ibuf *, size_t);
void		 ibuf_rewind(struct ibuf *);
void		 ibuf_close(struct msgbuf *, struct ibuf *)
		    IMSG_SYM(ibuf_close);
void		 ibuf_from_buffer(struct ibuf *, void *, size_t)
		    IMSG_SYM(ibuf_from_buffer);
void		 ibuf_from_ibuf(struct ibuf *, const struct ibuf *)
		    IMSG_SYM(ibuf_from_ibuf);
int		 ibuf_get(struct ibuf *, void *, size_t);
int		 ibuf_get_ibuf(struct ibuf *, size_t, struct ibuf *)
		    IMSG_SYM(ibuf_get_ibuf);
int		 ibuf_get_n8(struct ibuf *, uint8_t *);
int		 ibuf_get_n16(struct ibuf *, uint16_t *);
int		 ibuf_get_n32(struct ibuf *, uint32_t *);
int		 ibuf_get_n64(struct ibuf *, uint64_t *);
int		 ibuf_get_h16(struct ibuf *, uint16_t *);
int		 ibuf_get_h32(struct ibuf *, uint32_t *);
int		 ibuf_get_h64(struct ibuf *, uint64_t *);
char		*ibuf_get_string(struct ibuf *, size_t);
int		 ibuf_get_strbuf(struct ibuf *, char *, size_t);
int		 ibuf_skip(struct ibuf *, size_t);
void		 ibuf_free(struct ibuf *);
int		 ibuf_fd_avail(struct ibuf *);
int		 ibuf_fd_get(struct ibuf *);
void		 ibuf_fd_set(struct ibuf *, int);
struct msgbuf	*msgbuf_new(void);
struct msgbuf	*msgbuf_new_reader(size_t,
		    struct ibuf *(*)(struct ibuf *, void *, int *), void *);
void		 msgbuf_free(struct msgbuf *);
void		 msgbuf_clear(struct msgbuf *) IMSG_SYM(msgbuf_clear);
void		 msgbuf_concat(struct msgbuf *, struct ibufqueue *);
uint32_t	 msgbuf_queuelen(struct msgbuf *) IMSG_SYM(msgbuf_queuelen);
int		 ibuf_write(int, struct msgbuf *) IMSG_SYM(ibuf_write);
int		 msgbuf_write(int, struct msgbuf *) IMSG_SYM(msgbuf_write);
int		 ibuf_read(int, struct msgbuf *);
int		 msgbuf_read(int, struct msgbuf *);
uint32_t	 msgbuf_readlen(struct msgbuf *);
struct ibuf	*msgbuf_get(struct msgbuf *);

struct ibufqueue *ibufq_new(void);
void		 ibufq_free(struct ibufqueue *);
struct ibuf	*ibufq_pop(struct ibufqueue *);
void		 ibufq_push(struct ibufqueue *, struct ibuf *);
uint32_t	 ibufq_queuelen(struct ibufqueue *);
void		 ibufq_concat(struct ibufqueue *, struct ibufqueue *);
void		 ibufq_flush(struct ibufqueue *);

/* imsgbuf_init(3): messages */
int		 imsgbuf_init(struct imsgbuf *, int);
void		 imsgbuf_allow_fdpass(struct imsgbuf *);
void		 imsgbuf_set_close_callback(struct imsgbuf *,
		    void (*)(struct imsgbuf *, void *));
int		 imsgbuf_set_maxsize(struct imsgbuf *, uint32_t);
void		*imsgbuf_set_userdata(struct imsgbuf *, void *);
void		*imsgbuf_get_userdata(struct imsgbuf *);
int		 imsgbuf_read(struct imsgbuf *);
int		 imsgbuf_write(struct imsgbuf *);
int		 imsgbuf_flush(struct imsgbuf *);
void		 imsgbuf_clear(struct imsgbuf *);
uint32_t	 imsgbuf_queuelen(struct imsgbuf *);
int		 imsgbuf_get(struct imsgbuf *, struct imsg *);
ssize_t		 imsg_get(struct imsgbuf *, struct imsg *) IMSG_SYM(imsg_get);
int		 imsg_ibufq_pop(struct ibufqueue *, struct imsg *);
void		 imsg_ibufq_push(struct ibufqueue *, struct imsg *);
int		 imsg_get_ibuf(struct imsg *, struct ibuf *)
		    IMSG_SYM(imsg_get_ibuf);
int		 imsg_get_data(struct imsg *, void *, size_t)
		    IMSG_SYM(imsg_get_data);
int		 imsg_get_buf(struct imsg *, void *, size_t);
int		 imsg_get_strbuf(struct imsg *, char *, size_t);
int		 imsg_get_fd(struct imsg *) IMSG_SYM(imsg_get_fd);
uint32_t	 imsg_get_id(struct imsg *);
size_t		 imsg_get_len(struct imsg *) IMSG_SYM(imsg_get_len);
pid_t		 imsg_get_pid(struct imsg *);
uint32_t	 imsg_get_type(struct imsg *);
int		 imsg_forward(struct imsgbuf *, struct imsg *)
		    IMSG_SYM(imsg_forward);
int		 imsg_compose(struct imsgbuf *, uint32_t, uint32_t, pid_t, int,
		    const void *, size_t) IMSG_SYM(imsg_compose);
int		 imsg_composev(struct imsgbuf *, uint32_t, uint32_t, pid_t, int,
		    const struct iovec *, int) IMSG_SYM(imsg_composev);
int		 imsg_compose_ibuf(struct imsgbuf *, uint32_t, uint32_t, pid_t,
		    struct ibuf *) IMSG_SYM(imsg_compose_ibuf);
struct ibuf	*imsg_create(struct imsgbuf *, uint32_t, uint32_t, pid_t, size_t)
		    IMSG_SYM(imsg_create);
int		 imsg_add(struct ibuf *, const void *, size_t)
		    IMSG_SYM(imsg_add);
int		 imsg_add_strbuf(struct ibuf *, const char *, size_t);
void		 imsg_close(struct imsgbuf *, struct ibuf *)
		    IMSG_SYM(imsg_close);
void		 imsg_free(struct imsg *) IMSG_SYM(imsg_free);
int		 imsg_set_maxsize(struct ibuf *, size_t);

/* Beyond the C library */

/*
 * Which dialect the peer speaks; before anything is read or composed.  The
 * environment variable IMSG_DIALECT=classic does it for all that are
 * initialized without this call.  0, or -1 with EINVAL.
 */
#define IMSG_DIALECT_MODERN	0
#define IMSG_DIALECT_CLASSIC	1
int		 imsgbuf_set_dialect(struct imsgbuf *, int);

/* Which fault ended the stream, as a sentence; NULL when none did. */
const char	*imsgbuf_error(struct imsgbuf *) IMSG_SYM(imsgbuf_error);

/*
 * How descriptors find their messages; for a program that knows its peers, and
 * before the first read.  The default is that of the dialect.  0, or -1 with
 * EINVAL.
 */
#define IMSG_PAIRING_EXACT	0	/* senders since 2021: stricter */
#define IMSG_PAIRING_ORDERED	1	/* classic senders of any age */
int		 imsgbuf_set_pairing(struct imsgbuf *, int)
		    IMSG_SYM(imsgbuf_set_pairing);

/* Why a message that was sent with a descriptor has none (imsg_get_fd: -1). */
#define IMSG_FD_PRESENT		0	/* it has it, or was sent without */
#define IMSG_FD_NOT_ALLOWED	1	/* passing was not allowed yet */
#define IMSG_FD_DROPPED		2	/* the kernel dropped it: no free number */
#define IMSG_FD_NOT_SENT	3	/* the peer attached none */
int		 imsg_fd_reason(const struct imsg *) IMSG_SYM(imsg_fd_reason);

#ifdef __cplusplus
}
#endif

#undef IMSG_SYM
#undef IMSG_SYM_STR
#undef IMSG_SYM_STR_

#endif
