/*
 * Reads one HTTP/1.1 answer as it comes, in whatever pieces: status, header lines, a body by its length, in chunks, or to the end of the connection.
 * Strict where servers and clients could read differently (what a line may be, lengths, chunk sizes), and bounded: a head of HTTP1_HEAD_MAX bytes.
 * Interim answers (1xx) and trailers are passed over. Pure: no socket, and no memory but the header lines that are kept and the line that has begun.
 */
#ifndef PDR_EXTPROC_HTTP1_H
#define PDR_EXTPROC_HTTP1_H

#include "../gate/wire.h"

#define HTTP1_HEAD_MAX (256 * 1024)

typedef struct http1 {
    int state;
    unsigned status;      /* of the final answer; 0: not known yet */
    unsigned minor;       /* HTTP/1.minor */
    unsigned bodiless : 1; /* to HEAD: set by the caller */
    unsigned head : 1;    /* is complete */
    unsigned done : 1;    /* all of the answer was read */
    unsigned close : 1;   /* the connection cannot be used again */
    unsigned chunked : 1, sized : 1;
    uint64_t left;        /* of the body, or of the chunk */
    size_t head_size;     /* bytes of heads and trailers so far */
    bytes line;           /* one that is not complete */
    bytes *lines;         /* the caller's: name, colon, value, line end for each header */
} http1;

/* For the next answer; `line` keeps its memory. */
void http1_begin(http1 *r, bytes *lines, int bodiless);
/*
 * Takes from *in what is the answer's; *body is the piece of the body in that, if any. 1: call it again (there may be more in *in), 0: everything was taken,
 * or the answer is done and the rest of *in is not its; -1: this is not HTTP.
 */
int http1_read(http1 *r, view *in, view *body);
/* The connection was closed: 1 if that ended the answer well. */
int http1_closed(http1 *r);

#endif
