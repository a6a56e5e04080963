/* The header needs no other, can be included twice, and leaves the names of others alone. */
#include <imsg.h>
#include <imsg.h>

/* Names that are a program's own. */
static int entry, bufs, queued, hdr, type, len, data, fd, IMSG_SYM, ibuf, msgbuf, imsg;

int
main(void)
{
	struct ibuf buf;
	char byte = 'b';

	ibuf_from_buffer(&buf, &byte, 1);
	return ibuf_size(&buf) != 1 || entry || bufs || queued || hdr || type || len || data ||
	    fd || IMSG_SYM || ibuf || msgbuf || imsg;
}
