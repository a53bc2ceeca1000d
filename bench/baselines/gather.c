// The least that any replay has to do for a batch: copy windows of rows into memory that is used again, zero what is
// behind their ends. Compiled twice at run time: with plain stores, and with -DSTREAM for stores past the caches.

#include <stdint.h>
#include <string.h>

#if defined(STREAM) && defined(__x86_64__)
#include <immintrin.h>

static void copy(char *to, const char *from, size_t size) {
    size_t head = (size_t)(-(uintptr_t)to & 63);
    if (size < 4096 || head > size) {
        memcpy(to, from, size);
        return;
    }
    memcpy(to, from, head);
    size_t at = head;
    for (; at + 64 <= size; at += 64) {
        __m128i a = _mm_loadu_si128((const __m128i *)(from + at));
        __m128i b = _mm_loadu_si128((const __m128i *)(from + at + 16));
        __m128i c = _mm_loadu_si128((const __m128i *)(from + at + 32));
        __m128i d = _mm_loadu_si128((const __m128i *)(from + at + 48));
        _mm_stream_si128((__m128i *)(to + at), a);
        _mm_stream_si128((__m128i *)(to + at + 16), b);
        _mm_stream_si128((__m128i *)(to + at + 32), c);
        _mm_stream_si128((__m128i *)(to + at + 48), d);
    }
    memcpy(to + at, from + at, size - at);
}

static void finish(void) { _mm_sfence(); }
#else
static void copy(char *to, const char *from, size_t size) { memcpy(to, from, size); }

static void finish(void) {}
#endif

// A column of the batch: `extent` rows of `row` bytes for each window, taken `shift` rows (0, or -1 for what came
// before) from its first step, of which there are as many as steps and `more`.
struct column {
    const char *rows;
    char *out;
    int64_t row, extent, more, shift;
};

// Windows of `steps[b]` steps from step `start[b]` of the trajectory whose rows begin at `begin[b]`.
void gather(const struct column *columns, int64_t count, int64_t batch, const int64_t *begin, const int64_t *start,
            const int64_t *steps) {
    for (int64_t b = 0; b < batch; ++b) {
        for (const struct column *column = columns; column < columns + count; ++column) {
            char *to = column->out + b * column->extent * column->row;
            int64_t first = start[b] + column->shift, filled = steps[b] + column->more;
            int64_t lead = first < 0 ? 1 : 0;
            memset(to, 0, (size_t)(lead * column->row));
            copy(to + lead * column->row, column->rows + (begin[b] + first + lead) * column->row,
                 (size_t)((filled - lead) * column->row));
            memset(to + filled * column->row, 0, (size_t)((column->extent - filled) * column->row));
        }
    }
    finish();
}

// mask [batch, length], and time [batch, length + 1]: the index of each row in its trajectory.
void annotate(int64_t batch, int64_t length, const int64_t *start, const int64_t *steps, char *mask, int32_t *time) {
    for (int64_t b = 0; b < batch; ++b) {
        memset(mask + b * length, 1, (size_t)steps[b]);
        memset(mask + b * length + steps[b], 0, (size_t)(length - steps[b]));
        int32_t *row = time + b * (length + 1);
        for (int64_t i = 0; i <= length; ++i) row[i] = i <= steps[b] ? (int32_t)(start[b] + i) : 0;
    }
}
