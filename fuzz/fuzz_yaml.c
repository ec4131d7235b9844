/* pdroutectl's YAML reader: whatever it accepts is JSON, and every mark lies in it in order; what it refuses has a place. */
#include "../examples/ctl/text.c"
#include "../examples/ctl/yaml_json.c"

#include <cjson/cJSON.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct text       out = {0};
    struct yaml_marks marks = {0};
    struct yaml_error err;
    uint32_t          documents;
    const char       *end;
    text_puts(&out, "[");
    if (yaml_to_json((const char *)data, size, &out, &documents, &marks, &err)) {
        if (!*err.message || !err.document) abort();
    } else {
        cJSON *json;
        text_puts(&out, "]");
        if (out.n > 8 * size + YAML_MAX_BYTES) abort(); /* the bound on aliases, and the last value's escapes */
        json = cJSON_ParseWithLengthOpts(out.p, out.n + 1, &end, 1);
        if (!json || (uint32_t)cJSON_GetArraySize(json) != documents) abort();
        cJSON_Delete(json);
        for (size_t i = 0; i < marks.n; i++)
            if (marks.p[i].json >= out.n || !marks.p[i].line || (i && marks.p[i].json < marks.p[i - 1].json)) abort();
    }
    text_free(&out);
    free(marks.p);
    return 0;
}
