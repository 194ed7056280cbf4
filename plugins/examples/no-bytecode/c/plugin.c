// Drops events about files whose names end as nobody wants to see them.

#include "filter_plugin.h"

#include <stdlib.h>
#include <string.h>

// What ends with one of these is dropped.
static const char *const ENDINGS[] = {".pyc"};
enum { ENDING_COUNT = sizeof ENDINGS / sizeof *ENDINGS };

void exports_whodunit_plugin_lifecycle_describe(
    exports_whodunit_plugin_lifecycle_description_t *description) {
    filter_plugin_string_dup(&description->name, "no-bytecode");
    filter_plugin_string_dup(&description->version, "0.1.0");
}

// Returns false with a sentence for the operator in `error` where it cannot start.
bool exports_whodunit_plugin_lifecycle_start(
    exports_whodunit_plugin_lifecycle_context_t *context, filter_plugin_string_t *error) {
    (void)error;
    exports_whodunit_plugin_lifecycle_context_free(context);
    return true;
}

// Paths are bytes.
static bool is_dropped(const uint8_t *path, size_t length) {
    for (size_t i = 0; i < ENDING_COUNT; i++) {
        size_t size = strlen(ENDINGS[i]);
        if (length >= size && memcmp(path + length - size, ENDINGS[i], size) == 0) return true;
    }
    return false;
}

// One verdict an event, in their order. The caller frees them.
bool exports_whodunit_plugin_filter_on_batch(
    exports_whodunit_plugin_filter_batch_t *batch,
    exports_whodunit_plugin_filter_list_verdict_t *verdicts, filter_plugin_string_t *error) {
    size_t count = batch->events.len;
    verdicts->len = count;
    verdicts->ptr = calloc(count, sizeof *verdicts->ptr);
    bool judged = count == 0 || verdicts->ptr != NULL;
    if (!judged) filter_plugin_string_dup(error, "there is no memory for the verdicts");
    for (size_t i = 0; judged && i < count; i++) {
        const whodunit_plugin_types_span_t path = batch->events.ptr[i].path;
        bool dropped = is_dropped(batch->text.ptr + path.offset, path.length);
        verdicts->ptr[i].tag = dropped ? EXPORTS_WHODUNIT_PLUGIN_FILTER_VERDICT_DROP
                                       : EXPORTS_WHODUNIT_PLUGIN_FILTER_VERDICT_KEEP;
    }
    exports_whodunit_plugin_filter_batch_free(batch);
    return judged;
}
