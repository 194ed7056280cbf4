// Counts the files that were opened below each top folder.

#include "reporter_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPEN = 16 };

typedef struct {
    char *name;
    unsigned long files;
} folder_t;

static folder_t *folders;
static size_t folder_count;

static int by_name(const void *left, const void *right) {
    return strcmp(((const folder_t *)left)->name, ((const folder_t *)right)->name);
}

// The folder of that name; a new one if it is new. NULL where memory is short.
static folder_t *find_or_add(const char *name, size_t length) {
    for (size_t i = 0; i < folder_count; i++) {
        if (strlen(folders[i].name) == length && memcmp(folders[i].name, name, length) == 0) {
            return &folders[i];
        }
    }
    folder_t *grown = realloc(folders, (folder_count + 1) * sizeof *folders);
    char *copy = malloc(length + 1);
    if (grown == NULL || copy == NULL) {
        free(copy);
        if (grown != NULL) folders = grown;
        return NULL;
    }
    memcpy(copy, name, length);
    copy[length] = '\0';
    folders = grown;
    folders[folder_count] = (folder_t){.name = copy, .files = 0};
    return &folders[folder_count++];
}

void exports_whodunit_plugin_lifecycle_describe(
    exports_whodunit_plugin_lifecycle_description_t *description) {
    reporter_plugin_string_dup(&description->name, "top-folders");
    reporter_plugin_string_dup(&description->version, "0.1.0");
}

// Returns false with a sentence for the operator in `error` where it cannot start.
bool exports_whodunit_plugin_lifecycle_start(
    exports_whodunit_plugin_lifecycle_context_t *context, reporter_plugin_string_t *error) {
    (void)error;
    exports_whodunit_plugin_lifecycle_context_free(context);
    return true;
}

bool exports_whodunit_plugin_reporter_on_batch(
    exports_whodunit_plugin_reporter_batch_t *batch, reporter_plugin_string_t *error) {
    bool taken = true;
    for (size_t i = 0; taken && i < batch->events.len; i++) {
        const whodunit_plugin_types_event_t *event = &batch->events.ptr[i];
        if (event->kind != OPEN || event->outcome != 0 || event->path.length == 0) continue;
        const char *path = (const char *)batch->text.ptr + event->path.offset;
        size_t length = 1;
        while (length < event->path.length && path[length] != '/') length++;
        folder_t *folder = find_or_add(path, length);
        if (folder == NULL) {
            reporter_plugin_string_dup(error, "there is no memory for another folder");
            taken = false;
        } else {
            folder->files++;
        }
    }
    exports_whodunit_plugin_reporter_batch_free(batch);
    return taken;
}

// The text with what JSON does not take escaped. At most six bytes become of one.
static size_t write_escaped(char *to, const char *text) {
    char *end = to;
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte == '"' || byte == '\\') {
            *end++ = '\\';
            *end++ = (char)byte;
        } else if (byte < 0x20 || byte > 0x7e) {
            end += sprintf(end, "\\u%04x", byte);
        } else {
            *end++ = (char)byte;
        }
    }
    return (size_t)(end - to);
}

bool exports_whodunit_plugin_reporter_on_tick(
    exports_whodunit_plugin_reporter_tick_t *tick, reporter_plugin_string_t *error) {
    exports_whodunit_plugin_reporter_tick_free(tick);
    qsort(folders, folder_count, sizeof *folders, by_name);
    size_t room = 3;
    for (size_t i = 0; i < folder_count; i++) room += 6 * strlen(folders[i].name) + 32;
    char *json = malloc(room);
    if (json == NULL) {
        reporter_plugin_string_dup(error, "there is no memory for the report");
        return false;
    }
    char *end = json;
    *end++ = '{';
    for (size_t i = 0; i < folder_count; i++) {
        if (i > 0) *end++ = ',';
        *end++ = '"';
        end += write_escaped(end, folders[i].name);
        end += sprintf(end, "\":%lu", folders[i].files);
    }
    *end++ = '}';

    reporter_plugin_string_t output;
    reporter_plugin_string_set(&output, "report");
    reporter_plugin_list_u8_t body = {.ptr = (uint8_t *)json, .len = (size_t)(end - json)};
    whodunit_plugin_documents_refusal_t refusal;
    bool taken = whodunit_plugin_documents_emit(&output, &body, &refusal);
    if (!taken) {
        whodunit_plugin_documents_refusal_free(&refusal);
        reporter_plugin_string_dup(error, "the daemon did not take the report");
    }
    free(json);
    return taken;
}
