/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded, it has epoll watch no more pipes, as where a user has used up fs.epoll.max_user_watches: while the first
 * eight bytes of the file that EPOLL_FULL_FILE names are not 0. The next eight bytes count the refusals. Only pipes
 * that are to be watched by their edges are refused: those of the VM itself are not.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct full {
    int64_t is_full;
    int64_t refusals;
};

static struct full *full;

__attribute__((constructor)) static void open_full(void)
{
    const char *name = getenv("EPOLL_FULL_FILE");
    int file = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *map = mmap(NULL, sizeof *full, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (map != MAP_FAILED)
        full = map;
    close(file);
}

static int is_pipe(int descriptor)
{
    struct stat information;
    return fstat(descriptor, &information) == 0 && S_ISFIFO(information.st_mode);
}

int epoll_ctl(int epoll, int operation, int descriptor, struct epoll_event *event)
{
    static int (*real_epoll_ctl)(int, int, int, struct epoll_event *);
    if (!real_epoll_ctl)
        real_epoll_ctl = (int (*)(int, int, int, struct epoll_event *))dlsym(RTLD_NEXT, "epoll_ctl");
    if (full && __atomic_load_n(&full->is_full, __ATOMIC_SEQ_CST) && operation == EPOLL_CTL_ADD &&
        (event->events & EPOLLET) && is_pipe(descriptor)) {
        __atomic_add_fetch(&full->refusals, 1, __ATOMIC_SEQ_CST);
        errno = ENOSPC;
        return -1;
    }
    return real_epoll_ctl(epoll, operation, descriptor, event);
}
