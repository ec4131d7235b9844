/*
 * The file around recorded decisions: a header that names format, version and configuration, then pieces of frames, then an end. Every part carries a check over
 * its bytes. Numbers are written low byte first, so a file is the same on every architecture. What frames mean is router_record.h's business.
 *
 *   header  "PDRREC1\n", format (4), length of the rest (4), version as text, configuration as (name, 8 bytes)*, empty name, check (8)
 *   piece   "PDRC" (4), flags (4), length of the payload (8), check over the payload with the flags as seed (8), payload
 *   end     a piece with PDR_PIECE_END and no payload
 *
 * A file comes from anywhere: all of it is checked before its first piece is handed out. Opening costs one pass of XXH3; nothing allocates.
 */
#ifndef PDR_RECORD_FILE_H
#define PDR_RECORD_FILE_H

#include "pdroute/pdroute.h"

enum { PDR_RECORD_VERSION = 3, PDR_PIECE_HEAD = 24 };
enum { PDR_PIECE_LOST = 1 /* frames before this one were overwritten unread */, PDR_PIECE_END = 2 };

typedef struct pdr_record_file {
    const uint8_t *p; /* borrowed */
    size_t         len;
    size_t         at, end; /* the next piece; behind the last good one */
} pdr_record_file;

typedef struct pdr_piece {
    uint32_t       flags;
    const uint8_t *p;
    size_t         n;
} pdr_piece;

/* Writes the head of a piece. */
void pdr_piece_head(uint8_t out[PDR_PIECE_HEAD], uint32_t flags, const uint8_t *payload, size_t n);
/* Writes the header; the length it has, or needs if that is more than cap. */
size_t pdr_record_head(uint8_t *out, size_t cap, const pdr_config *c);

/* Checks the file, and reads the configuration. `partial`: what follows the last good piece is ignored, instead of refused. */
int pdr_record_file_open(pdr_record_file *f, const void *file, size_t len, int partial, pdr_config *c, pdr_error *err);
/* PDR_E_NOT_FOUND at the end. */
int pdr_record_file_next(pdr_record_file *f, pdr_piece *piece);

#endif
