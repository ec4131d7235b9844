#include "text.h"

#include "pdroute/pdroute.h"

void pdr_text_fill(struct pdr_text *t, char c, size_t n)
{
    if (t->len < t->cap) memset(t->buf + t->len, c, t->cap - t->len < n ? t->cap - t->len : n);
    t->len += n;
}

void pdr_text_u64(struct pdr_text *t, uint64_t value)
{
    static const char pairs[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748"
                                "49505152535455565758596061626364656667686970717273747576777879808182838485868788899091929394959697"
                                "9899";
    char digits[20];
    size_t at = sizeof digits;
    for (; value >= 100; value /= 100) { /* two at a time: rooms have 19 digits and stand in every request twice */
        at -= 2;
        memcpy(digits + at, pairs + value % 100 * 2, 2);
    }
    if (value >= 10) {
        at -= 2;
        memcpy(digits + at, pairs + value * 2, 2);
    } else {
        digits[--at] = (char)('0' + value);
    }
    pdr_text_put(t, digits + at, sizeof digits - at);
}

/* Length of the well-formed UTF-8 sequence (Unicode 15, table 3-7) at s, 0 if there is none within n bytes. */
static size_t utf8_length(const unsigned char *s, size_t n)
{
    unsigned char low = 0x80, high = 0xBF;
    size_t length;
    if (s[0] < 0x80) return 1;
    if (s[0] < 0xC2 || s[0] > 0xF4) return 0;
    length = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    if (n < length) return 0;
    if (s[0] == 0xE0) low = 0xA0;  /* overlong */
    if (s[0] == 0xED) high = 0x9F; /* surrogates */
    if (s[0] == 0xF0) low = 0x90;
    if (s[0] == 0xF4) high = 0x8F;
    if (s[1] < low || s[1] > high) return 0;
    for (size_t i = 2; i < length; i++)
        if (s[i] < 0x80 || s[i] > 0xBF) return 0;
    return length;
}

static void put_escape(struct pdr_text *t, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    static const char shorts[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    for (size_t i = 0; i + 1 < sizeof shorts; i += 2) {
        if (c != (unsigned char)shorts[i]) continue;
        char escape[2] = {'\\', shorts[i + 1]};
        pdr_text_put(t, escape, sizeof escape);
        return;
    }
    char escape[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    pdr_text_put(t, escape, sizeof escape);
}

void pdr_text_json(struct pdr_text *t, const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t i = 0, from = 0; /* [from, i) needs no escape */
    PDR_TEXT_LITERAL(t, "\"");
    while (i < n) {
        while (i < n && u[i] >= 0x20 && u[i] < 0x7F && u[i] != '"' && u[i] != '\\') i++;
        if (i == n) break;
        int special = u[i] < 0x20 || u[i] == '"' || u[i] == '\\' || u[i] == 0x7F;
        size_t length = special ? 0 : utf8_length(u + i, n - i);
        if (length) {
            i += length;
            continue;
        }
        pdr_text_put(t, s + from, i - from);
        if (special)
            put_escape(t, u[i]);
        else
            PDR_TEXT_LITERAL(t, "\\ufffd");
        from = ++i;
    }
    pdr_text_put(t, s + from, i - from);
    PDR_TEXT_LITERAL(t, "\"");
}

void pdr_text_label(struct pdr_text *t, const char *s, size_t n)
{
    size_t length;
    PDR_TEXT_LITERAL(t, "\"");
    for (size_t i = 0; i < n; i += length ? length : 1) {
        length = utf8_length((const unsigned char *)s + i, n - i);
        if (!length)
            PDR_TEXT_LITERAL(t, "\xEF\xBF\xBD");
        else if (s[i] == '"' || s[i] == '\\' || s[i] == '\n')
            put_escape(t, (unsigned char)s[i]);
        else
            pdr_text_put(t, s + i, length);
    }
    PDR_TEXT_LITERAL(t, "\"");
}

void pdr_text_plain(char *s)
{
    unsigned char *in = (unsigned char *)s, *out = in;
    for (size_t n = strlen(s), length; n; n -= length, in += length) {
        length = utf8_length(in, n);
        if (!length || *in < 0x20 || *in == 0x7F || (in[0] == 0xC2 && in[1] < 0xA0) ||
            (in[0] == 0xE2 && in[1] == 0x80 && (in[2] == 0xA8 || in[2] == 0xA9))) {
            *out++ = '?';
            length += !length;
        } else {
            memmove(out, in, length);
            out += length;
        }
    }
    *out = 0;
}

int pdr_text_is_host(const char *s)
{
    const char *colon = strchr(s, ':');
    if (!*s || (colon && !strchr(colon + 1, ':'))) return 0; /* a host with a port; IPv6 has two colons at least */
    for (; *s; s++) {
        char c = *s;
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr(".-_:%", c)))
            return 0;
    }
    return 1;
}

int pdr_text_end(const struct pdr_text *t, size_t *need)
{
    if (need) *need = t->len;
    return t->len <= t->cap || (!t->buf && !t->cap) ? PDR_OK : PDR_E_NOSPACE;
}
