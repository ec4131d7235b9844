/* The table of policies, and the reading of their settings. A new policy adds a declaration and a row. */
#include "chooser.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const sim_chooser sim_pdroute;
extern const sim_chooser sim_round_robin;
extern const sim_chooser sim_peer_random, sim_peer_power_of_two, sim_peer_least_requests, sim_peer_least_tokens, sim_peer_sglang, sim_peer_blend,
    sim_peer_sticky, sim_peer_lmetric, sim_peer_aibrix, sim_peer_seconds, sim_peer_dynamo, sim_dynamo_queue;
extern const sim_chooser sim_reference_immediate, sim_reference_held;

static const sim_chooser *const table[] = {
    &sim_pdroute,
    &sim_round_robin,
    &sim_peer_random, &sim_peer_power_of_two, &sim_peer_least_requests, &sim_peer_least_tokens, &sim_peer_sglang, &sim_peer_blend,
    &sim_peer_sticky, &sim_peer_lmetric, &sim_peer_aibrix, &sim_peer_seconds, &sim_peer_dynamo, &sim_dynamo_queue,
    &sim_reference_immediate, &sim_reference_held,
};

const sim_chooser *sim_chooser_at(size_t i) { return i < sizeof table / sizeof *table ? table[i] : NULL; }

const sim_chooser *sim_chooser_named(const char *name)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(table[i]->name, name)) return table[i];
    return NULL;
}

/* The value of `key` in "key=value,…": its begin, and its length in *n; NULL: not there. */
static const char *find_setting(const char *settings, const char *key, size_t *n)
{
    size_t len = strlen(key);
    for (const char *s = settings; s && *s;) {
        size_t item = strcspn(s, ",");
        if (item > len && s[len] == '=' && !strncmp(s, key, len)) {
            *n = item - len - 1;
            return s + len + 1;
        }
        s += item + (s[item] == ',');
    }
    return NULL;
}

int sim_setting_text(const char *settings, const char *key, char *out, size_t cap)
{
    size_t      n = 0;
    const char *v = find_setting(settings, key, &n);
    if (!v) return 0;
    snprintf(out, cap, "%.*s", (int)n, v);
    return 1;
}

double sim_setting(const char *settings, const char *key, double otherwise)
{
    char text[64];
    return sim_setting_text(settings, key, text, sizeof text) ? strtod(text, NULL) : otherwise;
}

int sim_settings_known(const char *settings, const char *const *keys, char *why, size_t cap)
{
    for (const char *s = settings; s && *s;) {
        size_t item = strcspn(s, ","), name = strcspn(s, "=,");
        int    found = 0;
        for (const char *const *k = keys; *k; k++) found |= strlen(*k) == name && !strncmp(s, *k, name);
        if (!found || name == item) {
            snprintf(why, cap, "unknown or empty setting '%.*s'", (int)item, s);
            return -1;
        }
        s += item + (s[item] == ',');
    }
    return 0;
}
