// Runs the kernels on the processor, thread by thread, for the tests: memory, launches and convolutions by
// commands on standard input. A block's threads are fibers that change places at __syncthreads.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__ static
#define __forceinline__ inline
#define __shared__ static

struct Dim {
    unsigned x, y, z;
};
static Dim threadIdx, blockIdx, blockDim, gridDim;

static const int LARGEST_BLOCK = 256;
static ucontext_t scheduler, fibers[LARGEST_BLOCK];
static unsigned running;
static void __syncthreads() { swapcontext(&fibers[running], &scheduler); }

template <class To, class From> static To reinterpret(From from) {
    static_assert(sizeof(To) == sizeof(From), "sizes differ");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static float __uint_as_float(unsigned bits) { return reinterpret<float>(bits); }
static unsigned __float_as_uint(float value) { return reinterpret<unsigned>(value); }
static long long __double_as_longlong(double value) { return reinterpret<long long>(value); }
static double __longlong_as_double(long long bits) { return reinterpret<double>(bits); }

#include "kernels.cu"

// ---- launches

typedef uint64_t Slot;
typedef void (*Call)(Slot *);
template <class... A, size_t... I> static void unpack(void (*kernel)(A...), Slot *slots, std::index_sequence<I...>) {
    // Little-endian: a smaller value lies at the start of its slot.
    kernel(*reinterpret_cast<A *>(&slots[I])...);
}
template <class... A> static void call(void (*kernel)(A...), Slot *slots) {
    unpack(kernel, slots, std::index_sequence_for<A...>());
}
struct Kernel {
    const char *name;
    Call run;
};
#define K(name) {#name, [](Slot *slots) { call(name, slots); }},
static const Kernel kernels[] = {
#include "kernels.list"
};

static Call current;
static Slot slots[32];
static bool done[LARGEST_BLOCK];
static void fiber() {
    current(slots);
    done[running] = true;
    swapcontext(&fibers[running], &scheduler);
}

static void launch(Call kernel, unsigned x, unsigned y, unsigned threads) {
    static std::vector<char> stacks(LARGEST_BLOCK * 65536);
    current = kernel;
    gridDim = {x, y, 1};
    blockDim = {threads, 1, 1};
    for (unsigned by = 0; by < y; by++)
        for (unsigned bx = 0; bx < x; bx++) {
            blockIdx = {bx, by, 0};
            for (unsigned t = 0; t < threads; t++) {
                getcontext(&fibers[t]);
                fibers[t].uc_stack.ss_sp = &stacks[t * 65536];
                fibers[t].uc_stack.ss_size = 65536;
                fibers[t].uc_link = nullptr;
                makecontext(&fibers[t], fiber, 0);
                done[t] = false;
            }
            for (unsigned left = threads; left > 0;)
                for (unsigned t = 0; t < threads; t++) {
                    if (done[t]) continue;
                    running = t;
                    threadIdx = {t, 0, 0};
                    swapcontext(&scheduler, &fibers[t]);
                    left -= done[t];
                }
        }
}

// ---- what cuDNN does

struct Sizes {
    uint32_t batch, inputs, height, width, outputs, down, across, stride, padding, rows, columns, half, last;
};
static float read(uint64_t base, uint64_t i, bool half) {
    return half ? get((const bf16 *)base, i) : ((const float *)base)[i];
}
static void write(uint64_t base, uint64_t i, bool half, float value) {
    if (half)
        put((bf16 *)base, i, value);
    else
        ((float *)base)[i] = value;
}
static void convolve(const Sizes &s, unsigned pass, uint64_t x, uint64_t w, uint64_t y, bool accumulate) {
    auto image = [&](uint64_t b, uint64_t c, uint64_t i, uint64_t j) {
        return index_of(b, c, i, j, s.inputs, s.height, s.width, s.last);
    };
    auto result = [&](uint64_t b, uint64_t k, uint64_t i, uint64_t j) {
        return index_of(b, k, i, j, s.outputs, s.rows, s.columns, s.last);
    };
    auto weight = [&](uint64_t k, uint64_t c, uint64_t r, uint64_t t) {
        return index_of(k, c, r, t, s.inputs, s.down, s.across, s.last);
    };
    uint64_t sizes[3] = {(uint64_t)s.batch * s.outputs * s.rows * s.columns,
                         (uint64_t)s.batch * s.inputs * s.height * s.width,
                         (uint64_t)s.outputs * s.inputs * s.down * s.across};
    std::vector<double> sums(sizes[pass], 0.0);
    for (uint32_t b = 0; b < s.batch; b++)
        for (uint32_t k = 0; k < s.outputs; k++)
            for (uint32_t i = 0; i < s.rows; i++)
                for (uint32_t j = 0; j < s.columns; j++)
                    for (uint32_t c = 0; c < s.inputs; c++)
                        for (uint32_t r = 0; r < s.down; r++)
                            for (uint32_t t = 0; t < s.across; t++) {
                                int64_t row = (int64_t)i * s.stride + r - s.padding;
                                int64_t column = (int64_t)j * s.stride + t - s.padding;
                                if (row < 0 || row >= s.height || column < 0 || column >= s.width) continue;
                                uint64_t at[3] = {result(b, k, i, j), image(b, c, row, column), weight(k, c, r, t)};
                                double a = pass == 1 ? read(w, at[2], s.half) : read(x, at[1], s.half);
                                double z = pass == 0 ? read(w, at[2], s.half) : read(y, at[0], s.half);
                                sums[at[pass]] += a * z;
                            }
    uint64_t out[3] = {y, x, w};
    for (uint64_t i = 0; i < sizes[pass]; i++)
        write(out[pass], i, s.half, (accumulate ? read(out[pass], i, s.half) : 0.0f) + (float)sums[i]);
}

// ---- commands

static const size_t GUARD = 64;
static std::vector<std::pair<char *, uint64_t>> blocks;
// Whatever is written beside a block is found here.
static void check() {
    for (auto &block : blocks)
        for (size_t i = 0; i < GUARD; i++)
            if (block.first[i] != 0x5a || block.first[GUARD + block.second + i] != 0x5a) {
                fprintf(stderr, "a kernel wrote beside its memory\n");
                exit(1);
            }
}
static void take(void *to, size_t n) {
    if (fread(to, 1, n, stdin) != n) exit(0);
}
template <class T> static T take() {
    T value;
    take(&value, sizeof value);
    return value;
}
static void give(const void *from, size_t n) {
    fwrite(from, 1, n, stdout);
    fflush(stdout);
}

int main() {
    for (;;) {
        switch (take<char>()) {
        case 'A': {
            uint64_t size = take<uint64_t>();
            char *block = (char *)aligned_alloc(64, (size + 2 * GUARD + 63) / 64 * 64);
            memset(block, 0x5a, size + 2 * GUARD);
            // What has not been written is not a number.
            memset(block + GUARD, 0xff, size);
            blocks.push_back({block, size});
            uint64_t address = (uint64_t)(block + GUARD);
            give(&address, 8);
            break;
        }
        case 'W': {
            uint64_t address = take<uint64_t>(), size = take<uint64_t>();
            take((void *)address, size);
            break;
        }
        case 'R': {
            uint64_t address = take<uint64_t>(), size = take<uint64_t>();
            give((void *)address, size);
            break;
        }
        case 'L': {
            std::string name(take<uint32_t>(), ' ');
            take(&name[0], name.size());
            uint32_t x = take<uint32_t>(), y = take<uint32_t>(), threads = take<uint32_t>(), count = take<uint32_t>();
            take(slots, count * sizeof(Slot));
            Call found = nullptr;
            for (const Kernel &kernel : kernels)
                if (name == kernel.name) found = kernel.run;
            if (!found) {
                fprintf(stderr, "there is no kernel %s\n", name.c_str());
                return 1;
            }
            launch(found, x, y, threads);
            check();
            give("k", 1);
            break;
        }
        case 'C': {
            Sizes sizes = take<Sizes>();
            uint32_t pass = take<uint32_t>();
            uint64_t x = take<uint64_t>(), w = take<uint64_t>(), y = take<uint64_t>();
            uint32_t accumulate = take<uint32_t>();
            convolve(sizes, pass, x, w, y, accumulate);
            check();
            give("k", 1);
            break;
        }
        default: fprintf(stderr, "unknown command\n"); return 1;
        }
    }
}
