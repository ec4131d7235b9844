#include "record_file.h"

#include "config.h"
#include "err.h"
#include "hash.h"
#include "tape.h"

#include <string.h>

#define MAGIC "PDRREC1\n"
enum { PIECE_MAGIC = 0x43524450 /* "PDRC" */, FIXED = 16 /* magic, format, length */, CHECK = 8 };

static uint64_t check_of(const uint8_t *p, size_t n, uint64_t seed) { return XXH3_64bits_withSeed(p, n, seed); }

/* ---- writing */

typedef struct pdr_sheet { uint8_t *p; size_t cap, n; } pdr_sheet;

static void add(pdr_sheet *s, uint8_t v)
{
    if (s->n < s->cap) s->p[s->n] = v;
    s->n++;
}

static void add_fixed(pdr_sheet *s, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) add(s, (uint8_t)(v >> 8 * i));
}

static void add_text(pdr_sheet *s, const char *text)
{
    size_t n = strlen(text);
    add(s, (uint8_t)n);
    for (size_t i = 0; i < n; i++) add(s, (uint8_t)text[i]);
}

void pdr_piece_head(uint8_t out[PDR_PIECE_HEAD], uint32_t flags, const uint8_t *payload, size_t n)
{
    pdr_sheet s = {out, PDR_PIECE_HEAD, 0};
    add_fixed(&s, PIECE_MAGIC, 4);
    add_fixed(&s, flags, 4);
    add_fixed(&s, n, 8);
    add_fixed(&s, check_of(payload, n, flags), 8);
}

size_t pdr_record_head(uint8_t *out, size_t cap, const pdr_config *c)
{
    const pdr_config_field *f;
    pdr_sheet               s = {out, cap, 0};
    for (const char *m = MAGIC; *m; m++) add(&s, (uint8_t)*m);
    add_fixed(&s, PDR_RECORD_VERSION, 4);
    add_fixed(&s, 0, 4); /* length */
    add_text(&s, pdr_version_string());
    for (size_t i = 0; (f = pdr_config_field_at(i)); i++) {
        add_text(&s, f->name);
        add_fixed(&s, pdr_config_get(c, f), 8);
    }
    add(&s, 0);
    if (s.n + CHECK > cap) return s.n + CHECK;
    pdr_sheet length = {out + FIXED - 4, 4, 0};
    add_fixed(&length, s.n - FIXED, 4);
    add_fixed(&s, check_of(out, s.n, 0), CHECK);
    return s.n;
}

/* ---- reading */

static int corrupt(pdr_error *err, size_t at, const char *what)
{
    return pdr_fail_at(err, PDR_E_BLOCK_CORRUPT, at, 0, "at byte %zu: %s", at, what);
}

static int read_config(pdr_eye *e, pdr_config *c, pdr_error *err)
{
    const pdr_config_field *f;
    char                    name[256];
    pdr_init_struct(c, sizeof *c);
    for (;;) {
        pdr_eye_text(e, name, sizeof name);
        if (e->bad || !name[0]) break;
        uint64_t v = pdr_eye_word(e);
        size_t   i = 0;
        while ((f = pdr_config_field_at(i)) && strcmp(f->name, name)) i++;
        if (!f) return pdr_fail(err, PDR_E_BLOCK_LAYOUT, "recorded with a configuration that has the member \"%.64s\", which this version does not know", name);
        if (f->size == sizeof v) memcpy((char *)c + f->offset, &v, sizeof v);
        else memcpy((char *)c + f->offset, &(uint32_t){(uint32_t)v}, sizeof(uint32_t));
    }
    if (e->bad) return pdr_fail(err, PDR_E_BLOCK_CORRUPT, "the recorded configuration is torn");
    return pdr_config_resolve(c, err);
}

static int read_head(pdr_record_file *f, pdr_config *c, pdr_error *err)
{
    char    version[64];
    pdr_eye e = {f->p, f->p + f->len, 0};
    if (f->len < FIXED || memcmp(f->p, MAGIC, 8)) return pdr_fail(err, PDR_E_BLOCK_MAGIC, "not a file of recorded decisions");
    e.p += 8;
    uint32_t format = pdr_eye_u32(&e), rest = pdr_eye_u32(&e);
    if (format != PDR_RECORD_VERSION)
        return pdr_fail(err, PDR_E_BLOCK_LAYOUT, "recorded decisions of format %u; this version reads format %u", format, (unsigned)PDR_RECORD_VERSION);
    if (rest > f->len - FIXED || f->len - FIXED - rest < CHECK) return corrupt(err, f->len, "the file ends inside its header");
    e.end = e.p + rest;
    pdr_eye check = {e.end, e.end + CHECK, 0};
    if (pdr_eye_word(&check) != check_of(f->p, FIXED + (size_t)rest, 0)) return corrupt(err, FIXED, "the header was changed");
    pdr_eye_text(&e, version, sizeof version);
    f->at = FIXED + (size_t)rest + CHECK;
    return read_config(&e, c, err);
}

/* NULL, or what is wrong with the piece at `at`. */
static const char *read_piece(const pdr_record_file *f, size_t at, pdr_piece *c)
{
    if (f->len - at < PDR_PIECE_HEAD) return "the file ends inside the head of a piece";
    pdr_eye  e = {f->p + at, f->p + at + PDR_PIECE_HEAD, 0};
    uint32_t magic = pdr_eye_u32(&e);
    c->flags = pdr_eye_u32(&e);
    uint64_t n = pdr_eye_word(&e), check = pdr_eye_word(&e);
    if (magic != PIECE_MAGIC) return "no piece begins here";
    if (n > f->len - at - PDR_PIECE_HEAD) return "the file ends inside a piece";
    c->p = f->p + at + PDR_PIECE_HEAD;
    c->n = (size_t)n;
    if (check_of(c->p, c->n, c->flags) != check) return "a piece was changed: its check does not fit";
    return NULL;
}

static int check_pieces(pdr_record_file *f, int partial, pdr_error *err)
{
    pdr_piece c;
    size_t    at = f->at;
    while (at < f->len) {
        const char *bad = read_piece(f, at, &c);
        if (bad) {
            f->end = at;
            return partial ? PDR_OK : corrupt(err, at, bad);
        }
        at += PDR_PIECE_HEAD + c.n;
        if (!(c.flags & PDR_PIECE_END)) continue;
        f->end = at;
        return at == f->len ? PDR_OK : corrupt(err, at, "bytes follow the end");
    }
    f->end = at;
    if (partial) return PDR_OK;
    return corrupt(err, at, "the end is missing: whoever recorded it was killed, or still records");
}

int pdr_record_file_open(pdr_record_file *f, const void *file, size_t len, int partial, pdr_config *c, pdr_error *err)
{
    *f = (pdr_record_file){file, len, 0, 0};
    int code = read_head(f, c, err);
    return code ? code : check_pieces(f, partial, err);
}

int pdr_record_file_next(pdr_record_file *f, pdr_piece *piece)
{
    if (f->at >= f->end) return PDR_E_NOT_FOUND;
    if (read_piece(f, f->at, piece)) return PDR_E_BLOCK_CORRUPT; /* somebody changed it meanwhile */
    f->at += PDR_PIECE_HEAD + piece->n;
    return piece->flags & PDR_PIECE_END ? PDR_E_NOT_FOUND : PDR_OK;
}
