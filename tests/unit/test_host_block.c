/* lib/host/block_file.c: a block file among processes that start, race, die, and files that are not what they should be. */
#include "host_test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

static pdr_error err;

static int open_block(const char *path, uint32_t flags, pdr_host **h, pdr_router **r)
{
    pdr_config c = small_config();
    pdr_init_struct(&err, sizeof err);
    return pdr_host_open(path, &c, flags, h, r, &err);
}

static pdr_host_info info_of(const pdr_host *h)
{
    pdr_host_info i;
    pdr_init_struct(&i, sizeof i);
    assert_int_equal(pdr_host_info_get(h, &i), PDR_OK);
    return i;
}

static uint32_t state_of(const pdr_host *h)
{
    uint32_t s = 99;
    assert_int_equal(pdr_host_state(h, &s, NULL), PDR_OK);
    return s;
}

static void write_file(const char *path, const void *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), (ssize_t)n);
    close(fd);
}

static int count_files(const char *part)
{
    struct dirent *e;
    DIR           *d = opendir(test_dir);
    int            n = 0;
    while ((e = readdir(d))) n += strstr(e->d_name, part) != NULL;
    closedir(d);
    return n;
}

static void created_then_attached(void **state)
{
    pdr_host   *a, *b;
    pdr_router *ra, *rb;
    struct stat st;
    mode_t      mask = umask(077);
    pdr_config  config;
    uint32_t    id;
    (void)state;
    assert_int_equal(open_block(test_path("none"), 0, &a, &ra), PDR_E_SYSTEM);
    assert_non_null(strstr(err.message, "/none: No such file"));
    assert_null(a);
    assert_int_equal(open_block(test_path("deep/er/block"), PDR_HOST_CREATE, &a, &ra), PDR_OK);
    umask(mask);
    assert_int_equal(info_of(a).origin, PDR_HOST_CREATED);
    assert_string_equal(info_of(a).path, test_path("deep/er/block"));
    assert_int_equal(stat(test_path("deep/er/block"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0660);
    assert_int_equal((uint64_t)st.st_size, info_of(a).size);
    assert_true((uint64_t)st.st_blocks * 512 >= info_of(a).size); /* no holes */

    assert_int_equal(open_block(test_path("deep/er/block"), PDR_HOST_CREATE, &b, &rb), PDR_OK);
    assert_int_equal(info_of(b).origin, PDR_HOST_ATTACHED);
    assert_ptr_not_equal(ra, rb);
    put_endpoint(ra, "p", PDR_ROLE_PREFILL, 1);
    assert_int_equal(pdr_endpoint_find(rb, "p", &id), PDR_OK);
    pdr_init_struct(&config, sizeof config);
    assert_int_equal(pdr_router_config(rb, &config), PDR_OK);
    assert_true(config.seed != 0); /* from the system's random source */
    assert_int_equal(state_of(b), PDR_HOST_CURRENT);
    pdr_host_close(a);
    pdr_host_close(b);
    pdr_host_close(NULL);
}

static void relative_path_survives_chdir(void **state)
{
    pdr_host *h;
    char      before[512];
    (void)state;
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(test_dir), 0);
    assert_int_equal(open_block("relative", PDR_HOST_CREATE, &h, NULL), PDR_OK);
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(state_of(h), PDR_HOST_CURRENT);
    pdr_host_close(h);
    assert_int_equal(chdir(before), 0);
}

/* Writes a block with that boot identity, holding one endpoint. */
static void write_block(const char *path, uint64_t boot)
{
    pdr_config  c = small_config();
    size_t      size = pdr_router_size(&c);
    void       *mem = aligned_alloc(64, (size + 63) / 64 * 64);
    pdr_router *r;
    assert_non_null(mem);
    assert_int_equal(pdr_router_init(mem, size, &c, boot, &r, NULL), PDR_OK);
    put_endpoint(r, "learnt", PDR_ROLE_DECODE, 7);
    write_file(path, mem, size);
    free(mem);
}

/* Refused with that code and a message with path and part; then replaced where asked. */
static void expect_refusal(const char *path, int code, const char *part)
{
    pdr_host   *h = NULL;
    pdr_router *r;
    struct stat before, after;
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(open_block(path, PDR_HOST_CREATE, &h, &r), code);
    assert_null(h);
    assert_int_equal(err.code, code);
    assert_non_null(strstr(err.message, path));
    assert_non_null(strstr(err.message, part));
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_size, after.st_size); /* a refused file is not touched */
    assert_int_equal(before.st_ino, after.st_ino);

    assert_int_equal(open_block(path, PDR_HOST_RECREATE, &h, &r), PDR_OK);
    assert_int_equal(info_of(h).origin, PDR_HOST_RECREATED);
    assert_int_equal(info_of(h).reason, code);
    assert_non_null(strstr(info_of(h).message, part));
    assert_int_equal(pdr_router_check(r, NULL), PDR_OK);
    pdr_host_close(h);
}

static void refused_for_each_reason(void **state)
{
    const char *path = test_path("bad");
    char        junk[8192];
    uint64_t    boot;
    pdr_host   *h;
    pdr_config  other = small_config();
    (void)state;
    memset(junk, 'x', sizeof junk);
    assert_int_equal(pdr_host_boot(&boot, NULL), PDR_OK);
    write_file(path, junk, 0);
    expect_refusal(path, PDR_E_BLOCK_MAGIC, "empty");
    write_file(path, junk, sizeof junk);
    expect_refusal(path, PDR_E_BLOCK_MAGIC, "not a router block");
    write_block(path, boot);
    assert_int_equal(truncate(path, 65536), 0);
    expect_refusal(path, PDR_E_BLOCK_LAYOUT, "");
    write_block(path, boot ^ 1);
    expect_refusal(path, PDR_E_BLOCK_BOOT, "boot");
    unlink(path);
    other.max_held = 17;
    pdr_init_struct(&err, sizeof err);
    assert_int_equal(pdr_host_open(path, &other, PDR_HOST_CREATE, &h, NULL, &err), PDR_OK);
    pdr_host_close(h);
    expect_refusal(path, PDR_E_BLOCK_CONFIG, "max_held");
    assert_int_equal(pdr_host_open(path, NULL, 0, &h, NULL, NULL), PDR_OK); /* any configuration */
    pdr_host_close(h);
}

static void restored_after_a_reboot(void **state)
{
    const char *path = test_path("rebooted");
    pdr_host   *h;
    pdr_router *r;
    uint64_t    boot;
    uint32_t    id;
    (void)state;
    assert_int_equal(pdr_host_boot(&boot, NULL), PDR_OK);
    write_block(path, boot ^ 1);
    assert_int_equal(open_block(path, PDR_HOST_RESTORE, &h, &r), PDR_OK);
    assert_int_equal(info_of(h).origin, PDR_HOST_RESTORED);
    assert_int_equal(pdr_endpoint_find(r, "learnt", &id), PDR_OK);
    assert_int_equal(pdr_router_check(r, NULL), PDR_OK);
    pdr_host_close(h);
    assert_int_equal(open_block(path, 0, &h, &r), PDR_OK);
    assert_int_equal(info_of(h).origin, PDR_HOST_ATTACHED);
    pdr_host_close(h);
    /* RESTORE alone is no licence to destroy something else */
    write_file(path, "precious", 8);
    assert_int_equal(open_block(path, PDR_HOST_RESTORE, &h, &r), PDR_E_BLOCK_MAGIC);
}

static void users_of_a_replaced_block_go_on(void **state)
{
    const char *path = test_path("replaced");
    pdr_host   *old, *new;
    pdr_router *ro, *rn;
    pdr_config  other = small_config();
    uint32_t    id;
    (void)state;
    assert_int_equal(open_block(path, PDR_HOST_CREATE, &old, &ro), PDR_OK);
    put_endpoint(ro, "old", PDR_ROLE_PREFILL, 1);
    other.max_held = 17;
    assert_int_equal(pdr_host_open(path, &other, PDR_HOST_RECREATE, &new, &rn, NULL), PDR_OK);
    assert_int_equal(state_of(old), PDR_HOST_REPLACED);
    assert_int_equal(state_of(new), PDR_HOST_CURRENT);
    assert_int_equal(pdr_endpoint_find(ro, "old", &id), PDR_OK);
    assert_int_equal(pdr_endpoint_find(rn, "old", &id), PDR_OK);
    assert_int_equal(pdr_endpoint_remove(rn, id, NULL), PDR_OK);
    assert_int_equal(pdr_endpoint_find(ro, "old", &id), PDR_OK); /* each has its own */
    assert_int_equal(pdr_router_check(ro, NULL), PDR_OK);
    pdr_host_close(old);
    unlink(path);
    assert_int_equal(state_of(new), PDR_HOST_REPLACED);
    pdr_host_close(new);
}

static void truncation_is_seen(void **state)
{
    pdr_host *h;
    (void)state;
    assert_int_equal(open_block(test_path("cut"), PDR_HOST_CREATE, &h, NULL), PDR_OK);
    assert_int_equal(truncate(test_path("cut"), 4096), 0);
    assert_int_equal(state_of(h), PDR_HOST_TRUNCATED);
    pdr_host_close(h);
}

static void odd_paths(void **state)
{
    char      longest[1200];
    pdr_host *h;
    (void)state;
    memset(longest, 'a', sizeof longest);
    longest[0] = '/';
    longest[sizeof longest - 1] = 0;
    assert_int_equal(open_block(longest, PDR_HOST_CREATE, &h, NULL), PDR_E_INVALID);
    assert_int_equal(open_block("", PDR_HOST_CREATE, &h, NULL), PDR_E_INVALID);
    assert_int_equal(open_block(NULL, PDR_HOST_CREATE, &h, NULL), PDR_E_INVALID);
    assert_int_equal(open_block(test_dir, PDR_HOST_RECREATE, &h, NULL), PDR_E_SYSTEM);
    assert_int_equal(mkfifo(test_path("fifo"), 0600), 0);
    assert_int_equal(open_block(test_path("fifo"), PDR_HOST_RECREATE, &h, NULL), PDR_E_SYSTEM); /* and does not hang */
    assert_non_null(strstr(err.message, "not a regular file"));
    assert_int_equal(symlink("/no/such/block", test_path("dangling")), 0);
    for (uint32_t flags = 0; flags <= PDR_HOST_RECREATE; flags = flags ? flags << 1 : 1) {
        assert_int_equal(open_block(test_path("dangling"), flags, &h, NULL), PDR_E_SYSTEM); /* not made at the other end, nor in the link's place */
        assert_non_null(strstr(err.message, "dangling is a symbolic link to /no/such/block, which does not exist"));
    }
    assert_int_equal(open_block(test_path("target"), PDR_HOST_CREATE, &h, NULL), PDR_OK);
    pdr_host_close(h);
    assert_int_equal(symlink(test_path("target"), test_path("link")), 0);
    assert_int_equal(open_block(test_path("link"), PDR_HOST_CREATE, &h, NULL), PDR_OK); /* one that leads to a block is as good as it */
    pdr_host_close(h);
    assert_int_equal(open_block(test_path("x"), 1u << 30, &h, NULL), PDR_E_INVALID);
}

enum { RACERS = 8, ROUNDS = 12 };

/* Each opens, adds an endpoint of its own and holds the mapping until all are through. */
static int racer(const char *path, int k, uint32_t flags, int go, int done)
{
    pdr_host   *h;
    pdr_router *r;
    char        name[16], byte;
    if (read(go, &byte, 1) != 1) return 9;
    if (open_block(path, flags, &h, &r)) {
        fprintf(stderr, "racer: %s\n", err.message);
        return 1;
    }
    snprintf(name, sizeof name, "racer%d", k);
    put_endpoint(r, name, PDR_ROLE_DECODE, 100 + (uint32_t)k);
    if (write(done, "x", 1) != 1) return 9;
    if (state_of(h) != PDR_HOST_CURRENT) return 2; /* would be alone on an old inode */
    pdr_host_close(h);
    return 0;
}

static void race(const char *path, uint32_t flags)
{
    int         go[2], done[2], status;
    pid_t       pid[RACERS];
    pdr_host   *h;
    pdr_router *r;
    char        name[16];
    uint32_t    id;
    assert_int_equal(pipe(go), 0);
    assert_int_equal(pipe(done), 0);
    for (int k = 0; k < RACERS; k++)
        if (!(pid[k] = fork())) _exit(racer(path, k, flags, go[0], done[1]));
    assert_int_equal(write(go[1], "gogogogo", RACERS), RACERS);
    for (int k = 0; k < RACERS; k++) {
        assert_int_equal(waitpid(pid[k], &status, 0), pid[k]);
        assert_int_equal(status, 0);
    }
    assert_int_equal(open_block(path, 0, &h, &r), PDR_OK);
    for (int k = 0; k < RACERS; k++) {
        snprintf(name, sizeof name, "racer%d", k);
        assert_int_equal(pdr_endpoint_find(r, name, &id), PDR_OK); /* all were on this very block */
    }
    assert_int_equal(pdr_router_check(r, NULL), PDR_OK);
    pdr_host_close(h);
    for (int i = 0; i < 2; i++) close(go[i]), close(done[i]);
}

static void racing_creators_share_one_block(void **state)
{
    const char *path = test_path("race");
    uint64_t    boot;
    (void)state;
    assert_int_equal(pdr_host_boot(&boot, NULL), PDR_OK);
    for (int i = 0; i < ROUNDS; i++) {
        unlink(path);
        race(path, PDR_HOST_CREATE);
        write_file(path, "garbage", 7);
        race(path, PDR_HOST_RECREATE);
        write_block(path, boot ^ 1);
        race(path, PDR_HOST_RESTORE);
    }
    assert_int_equal(count_files("race.new."), 0);
}

static void killed_creators_leave_nothing(void **state)
{
    const char *path = test_path("killed");
    pdr_host   *h;
    int         living;
    (void)state;
    for (int i = 0; i < 40; i++) {
        pid_t pid = fork();
        if (!pid) {
            write_file(path, "garbage", 7);
            open_block(path, PDR_HOST_RECREATE, &h, NULL);
            _exit(0);
        }
        usleep((useconds_t)(i * 60));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    write_file(test_path("killed.new.0123456789abcdef"), "x", 1);          /* of a dead one */
    write_file(test_path("killed.new.fedcba9876543210"), "x", 1);          /* of a living one */
    write_file(test_path("killed.new.mine"), "x", 1);                      /* somebody else's */
    living = open(test_path("killed.new.fedcba9876543210"), O_RDWR);
    assert_int_equal(flock(living, LOCK_EX), 0);
    unlink(path);
    assert_int_equal(open_block(path, PDR_HOST_CREATE, &h, NULL), PDR_OK);
    assert_int_equal(count_files("killed.new."), 2);
    assert_int_equal(access(test_path("killed.new.fedcba9876543210"), F_OK), 0);
    assert_int_equal(access(test_path("killed.new.mine"), F_OK), 0);
    close(living);
    pdr_host_close(h);
}

static void stopped_replacer_is_not_waited_for(void **state)
{
    const char *path = test_path("stopped");
    pdr_host   *h;
    uint64_t    begin = pdr_host_now_ns();
    int         fd;
    (void)state;
    write_file(path, "garbage", 7);
    fd = open(path, O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(open_block(path, PDR_HOST_RECREATE, &h, NULL), PDR_E_BUSY);
    assert_in_range(pdr_host_now_ns() - begin, 4000000000u, 9000000000u);
    close(fd);
}

static void full_file_system_is_an_error(void **state)
{
    int   status;
    pid_t pid = fork();
    (void)state;
    if (!pid) { /* a size limit: what every system can do */
        struct rlimit l = {100000, 100000};
        pdr_host     *h;
        signal(SIGXFSZ, SIG_IGN);
        if (setrlimit(RLIMIT_FSIZE, &l)) _exit(9);
        if (open_block(test_path("large"), PDR_HOST_CREATE, &h, NULL) != PDR_E_SYSTEM) _exit(1);
        if (!strstr(err.message, "/large") || !access(test_path("large"), F_OK)) _exit(2);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    assert_int_equal(count_files("large.new."), 0);
}

static void full_tmpfs_names_the_free_bytes(void **state)
{
    int   status;
    pid_t pid;
    (void)state;
    assert_int_equal(mkdir(test_path("small"), 0700), 0);
    if (!(pid = fork())) {
        pdr_host *h;
        if (unshare(CLONE_NEWNS) && unshare(CLONE_NEWUSER | CLONE_NEWNS)) _exit(77);
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
        if (mount("tmpfs", test_path("small"), "tmpfs", 0, "size=128k")) _exit(77);
        if (open_block(test_path("small/block"), PDR_HOST_CREATE, &h, NULL) != PDR_E_SYSTEM) _exit(1);
        _exit(strstr(err.message, "no room for the block") ? 0 : 2);
    }
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        print_message("no mount namespace here\n");
        skip();
    }
    assert_int_equal(status, 0);
}

static void clock_boot_and_seed(void **state)
{
    uint64_t a = pdr_host_now_ns(), x = 0, y = 0;
    (void)state;
    assert_true(pdr_host_now_ns() >= a);
    assert_int_equal(pdr_host_boot(&x, NULL), PDR_OK);
    assert_int_equal(pdr_host_boot(&y, NULL), PDR_OK);
    assert_true(x && x == y);
    assert_int_equal(pdr_host_seed(&x, NULL), PDR_OK);
    assert_int_equal(pdr_host_seed(&y, NULL), PDR_OK);
    assert_true(x && y && x != y);
    assert_int_equal(pdr_host_boot(NULL, NULL), PDR_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(created_then_attached),
        cmocka_unit_test(relative_path_survives_chdir),
        cmocka_unit_test(refused_for_each_reason),
        cmocka_unit_test(restored_after_a_reboot),
        cmocka_unit_test(users_of_a_replaced_block_go_on),
        cmocka_unit_test(truncation_is_seen),
        cmocka_unit_test(odd_paths),
        cmocka_unit_test(racing_creators_share_one_block),
        cmocka_unit_test(killed_creators_leave_nothing),
        cmocka_unit_test(stopped_replacer_is_not_waited_for),
        cmocka_unit_test(full_file_system_is_an_error),
        cmocka_unit_test(full_tmpfs_names_the_free_bytes),
        cmocka_unit_test(clock_boot_and_seed),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
