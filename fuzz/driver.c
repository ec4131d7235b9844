/* Runs a fuzz target over files and folders: the kept corpora under any compiler, without a fuzzer. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned long ran;

static int run_path(const char *path);

static int run_folder(const char *path)
{
    DIR           *dir = opendir(path);
    struct dirent *entry;
    char           child[4096];
    int            bad = 0;
    if (!dir) return 1;
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] == '.') continue;
        snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        bad |= run_path(child);
    }
    closedir(dir);
    return bad;
}

static int run_path(const char *path)
{
    struct stat st;
    if (stat(path, &st)) {
        perror(path);
        return 1;
    }
    if (S_ISDIR(st.st_mode)) return run_folder(path);
    FILE    *file = fopen(path, "rb");
    uint8_t *data = malloc(st.st_size ? (size_t)st.st_size : 1);
    if (!file || !data || fread(data, 1, (size_t)st.st_size, file) != (size_t)st.st_size) {
        perror(path);
        if (file) fclose(file);
        free(data);
        return 1;
    }
    fclose(file);
    LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
    free(data);
    ran++;
    return 0;
}

int main(int argc, char **argv)
{
    int bad = 0;
    for (int i = 1; i < argc; i++) bad |= run_path(argv[i]);
    printf("%lu inputs\n", ran);
    return bad || !ran;
}
