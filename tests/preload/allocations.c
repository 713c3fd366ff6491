/* An allocator in place of the C library's, by LD_PRELOAD: it counts blocks, fails chosen
 * allocations of chosen modules, and overwrites memory when it is allocated and when it is freed.
 * For glibc. */
#define _GNU_SOURCE
#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);

enum { MAX_RANGES = 256, ALLOCATED = 0x5A, FREED = 0xA5 };

static struct {
    uintptr_t first, last;
} ranges[MAX_RANGES]; /* of the code whose allocations are counted and may fail */
static int n_ranges;

static atomic_int armed, overwrites;
static atomic_long live, seen, failed, first_failing, failing;

static int add_ranges(struct dl_phdr_info *module, size_t size, void *name)
{
    (void)size;
    for (int i = 0; strstr(module->dlpi_name, name) && i < module->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &module->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X) || n_ranges == MAX_RANGES)
            continue;
        ranges[n_ranges].first = module->dlpi_addr + segment->p_vaddr;
        ranges[n_ranges].last = ranges[n_ranges].first + segment->p_memsz;
        n_ranges++;
    }
    return 0;
}

/* Counts the allocations of all loaded modules whose path contains the name. */
int allocations_watch(const char *name)
{
    dl_iterate_phdr(add_ranges, (void *)name);
    return n_ranges;
}

void allocations_unwatch(void) { n_ranges = 0; }

/* From now on, allocations first ... first + count - 1 of the watched modules fail. */
void allocations_fail(long first, long count)
{
    atomic_store(&seen, 0);
    atomic_store(&failed, 0);
    atomic_store(&first_failing, first);
    atomic_store(&failing, count);
    atomic_store(&armed, 1);
}

/* Returns the number of allocations that failed. */
long allocations_stop(void)
{
    atomic_store(&armed, 0);
    return atomic_load(&failed);
}

long allocations_seen(void) { return atomic_load(&seen); }
long allocations_live(void) { return atomic_load(&live); }
void allocations_overwrite(int enabled) { atomic_store(&overwrites, enabled); }

static int fails(const void *caller)
{
    if (!atomic_load_explicit(&armed, memory_order_relaxed))
        return 0;
    for (int i = 0; i < n_ranges; i++)
        if (ranges[i].first <= (uintptr_t)caller && (uintptr_t)caller < ranges[i].last) {
            const long number = atomic_fetch_add(&seen, 1), first = atomic_load(&first_failing);
            if (number < first || number - first >= atomic_load(&failing))
                return 0;
            atomic_fetch_add(&failed, 1);
            errno = ENOMEM;
            return 1;
        }
    return 0;
}

static void *counted(void *memory, int is_zeroed)
{
    if (!memory)
        return NULL;
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    if (!is_zeroed && atomic_load_explicit(&overwrites, memory_order_relaxed))
        memset(memory, ALLOCATED, malloc_usable_size(memory));
    return memory;
}

void *malloc(size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : counted(__libc_malloc(size), 0);
}

void *calloc(size_t count, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : counted(__libc_calloc(count, size), 1);
}

void *realloc(void *memory, size_t size)
{
    if (fails(__builtin_return_address(0)))
        return NULL;
    void *result = __libc_realloc(memory, size);
    if (!memory && result)
        atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    else if (memory && size == 0 && !result)
        atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    return result;
}

void *memalign(size_t alignment, size_t size)
{
    if (fails(__builtin_return_address(0)))
        return NULL;
    return counted(__libc_memalign(alignment, size), 0);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    if (fails(__builtin_return_address(0)))
        return NULL;
    return counted(__libc_memalign(alignment, size), 0);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    if (fails(__builtin_return_address(0)))
        return ENOMEM;
    void *result = counted(__libc_memalign(alignment, size), 0);
    if (result)
        *memory = result;
    return result ? 0 : ENOMEM;
}

void free(void *memory)
{
    if (!memory)
        return;
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    if (atomic_load_explicit(&overwrites, memory_order_relaxed))
        memset(memory, FREED, malloc_usable_size(memory));
    __libc_free(memory);
}

/* ---- Functions of a PyDataMem_Handler, with the memory of arrays --- */

void *data_malloc(void *context, size_t size) { return (void)context, malloc(size); }

void *data_calloc(void *context, size_t count, size_t size)
{
    return (void)context, calloc(count, size);
}

void *data_realloc(void *context, void *memory, size_t size)
{
    return (void)context, realloc(memory, size);
}

void data_free(void *context, void *memory, size_t size)
{
    (void)context, (void)size;
    free(memory);
}
