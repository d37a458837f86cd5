// Every kernel of this crate that runs on a GPU.
//
// NVRTC compiles this text when a card is first used. It is plain C++ with few of CUDA's words, so that
// a test can compile it for the processor and compare every kernel with the operations of the CPU.
// Multiplications and additions are not contracted (--fmad=false), so both round alike.
//
// Tensors are contiguous: [B, C, A] with A pixels (`area`), or [B, A, C] where channels come last, which is
// `area` = 1 for everything that treats pixels alike. Sums are taken in double, along trees whose shape
// depends on sizes alone and never by atomics, so that they are the same bits every time.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

// Numbers of 16 bits: the upper half of a float.
struct bf16 {
    unsigned short bits;
};

#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__ void
// A grid of any size covers n numbers.
#define EACH(i, n) (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += gridDim.x * blockDim.x)

DEVICE float get(const float *values, u32 i) { return values[i]; }
DEVICE float get(const bf16 *values, u32 i) { return __uint_as_float((u32)values[i].bits << 16); }
DEVICE void put(float *values, u32 i, float value) { values[i] = value; }
// To the nearest, ties to even; a NaN stays one.
DEVICE void put(bf16 *values, u32 i, float value) {
    u32 bits = __float_as_uint(value);
    if (value != value)
        bits |= 0x400000u;
    else
        bits += 0x7fffu + ((bits >> 16) & 1u);
    values[i].bits = (unsigned short)(bits >> 16);
}

// max(x, 0); a NaN stays one.
DEVICE float positive(float value) { return value <= 0.0f ? 0.0f : value; }
