/* For LD_PRELOAD under a sanitizer: modules stay when they are closed, so that what they keep for the next request counts as reachable at the end of the process, and
 * reports name their functions. nginx unloads its modules before it exits. */
int dlclose(void *module);
int dlclose(void *module)
{
    (void)module;
    return 0;
}
