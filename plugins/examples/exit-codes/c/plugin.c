// Explains exit codes in the words of those who run the program.

#include "explainer_plugin.h"

#include <string.h>

static const struct {
    uint32_t code;
    const char *meaning;
} CODES[] = {{78, "Its configuration is wrong"}};
enum { CODE_COUNT = sizeof CODES / sizeof *CODES };

void exports_whodunit_plugin_lifecycle_describe(
    exports_whodunit_plugin_lifecycle_description_t *description) {
    explainer_plugin_string_dup(&description->name, "exit-codes");
    explainer_plugin_string_dup(&description->version, "0.1.0");
}

// Returns false with a sentence for the operator in `error` where it cannot start.
bool exports_whodunit_plugin_lifecycle_start(
    exports_whodunit_plugin_lifecycle_context_t *context, explainer_plugin_string_t *error) {
    (void)error;
    exports_whodunit_plugin_lifecycle_context_free(context);
    return true;
}

// The meaning of a code. NULL where it has none.
static const char *meaning_of(uint32_t code) {
    for (size_t i = 0; i < CODE_COUNT; i++) {
        if (CODES[i].code == code) return CODES[i].meaning;
    }
    return NULL;
}

// The status is as `wait` reports it. After `unknown` the next explainer is asked.
bool exports_whodunit_plugin_explainer_explain(
    exports_whodunit_plugin_explainer_death_t *death,
    exports_whodunit_plugin_explainer_explanation_t *explanation,
    explainer_plugin_string_t *error) {
    (void)error;
    bool exited = (death->status & 0x7f) == 0;
    const char *meaning = exited ? meaning_of((death->status >> 8) & 0xff) : NULL;
    const char *headline = meaning != NULL ? meaning
                           : exited        ? "That is not one of ours"
                                           : "It did not exit by itself";
    // What is not set here is 0: an empty text, and empty lists.
    memset(explanation, 0, sizeof *explanation);
    explainer_plugin_string_dup(
        &explanation->verdict, meaning != NULL ? "known-exit-code" : "unknown");
    explainer_plugin_string_dup(&explanation->headline, headline);
    explanation->confidence = meaning != NULL ? 90 : 0;
    exports_whodunit_plugin_explainer_death_free(death);
    return true;
}
