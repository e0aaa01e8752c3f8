// coopmat_khr IN.spv OUT.inc: rewrites a module (khr.h) and writes its words as numbers for an
// array in C.
#include "khr.h"

#include <stdio.h>
#include <stdlib.h>

static uint32_t *read_words(const char *path, size_t *count)
{
    FILE *f = fopen(path, "rb");
    uint32_t *words = NULL;
    if (f && fseek(f, 0, SEEK_END) == 0) {
        long size = ftell(f);
        rewind(f);
        if (size > 0 && size % 4 == 0) words = malloc((size_t)size);
        *count = (size_t)size / 4;
        if (words && fread(words, 4, *count, f) != *count) {
            free(words);
            words = NULL;
        }
    }
    if (f) fclose(f);
    return words;
}

static bool write_words(const char *path, const uint32_t *words, size_t count)
{
    FILE *f = fopen(path, "w");
    if (!f) return false;
    bool good = true;
    for (size_t i = 0; i < count && good; i++) good = fprintf(f, "0x%08x,\n", words[i]) > 0;
    return fclose(f) == 0 && good;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: coopmat_khr IN.spv OUT.inc\n");
        return 2;
    }
    size_t count = 0, out_count = 0;
    char error[256] = "it cannot be read, or is no whole number of words";
    uint32_t *in = read_words(argv[1], &count);
    uint32_t *out = in ? qn_coopmat_to_khr(in, count, &out_count, error, sizeof error) : NULL;
    free(in);
    if (!out) {
        fprintf(stderr, "%s: %s\n", argv[1], error);
        return 1;
    }
    bool good = write_words(argv[2], out, out_count);
    free(out);
    if (!good) perror(argv[2]);
    return good ? 0 : 1;
}
