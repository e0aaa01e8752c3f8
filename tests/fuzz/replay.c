// Runs a fuzz target over the files of a folder: inputs that once found something, and samples.
#include "platform.h"

#include "mem.h"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv)
{
    char **names;
    size_t count;
    if (argc != 2 || qn_list_dir(argv[1], &names, &count) != QN_OK || !count) {
        fprintf(stderr, "usage: %s FOLDER (with at least one file)\n", argv[0]);
        return 1;
    }
    for (size_t i = 0; i < count; i++) {
        char *path = qn_path_join(argv[1], names[i]), *data;
        size_t size;
        if (!path || qn_read_file(path, 1 << 24, &data, &size) != QN_OK) {
            fprintf(stderr, "%s\n", qn_error_message());
            return 1;
        }
        printf("%s\n", names[i]);
        LLVMFuzzerTestOneInput((const uint8_t *)data, size);
        qn_free(data);
        qn_free(path);
    }
    qn_free_names(names, count);
    return 0;
}
