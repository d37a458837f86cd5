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

// ---- element by element

// out = act(x + bias[channel] + other), bias and other as far as they are there. `mark` gets 1 where the
// result is not zero. out may be x.
template <class T>
DEVICE void finish(T *out, const T *x, const float *bias, const T *other, u8 *mark, u32 n, u32 channels, u32 area,
                   int relu) {
    for EACH (i, n) {
        float value = get(x, i);
        if (bias) value = value + bias[i / area % channels];
        if (other) value = value + get(other, i);
        if (relu) value = positive(value);
        put(out, i, value);
        if (mark) mark[i] = value != 0.0f;
    }
}
KERNEL finish_f32(float *out, const float *x, const float *bias, const float *other, u8 *mark, u32 n, u32 channels,
                  u32 area, int relu) {
    finish(out, x, bias, other, mark, n, channels, area, relu);
}
KERNEL finish_bf16(bf16 *out, const bf16 *x, const float *bias, const bf16 *other, u8 *mark, u32 n, u32 channels,
                   u32 area, int relu) {
    finish(out, x, bias, other, mark, n, channels, area, relu);
}

// The gradient of a ReLU from its result: g where y is positive, else 0.
KERNEL relu_gradient(float *out, const float *y, const float *g, u32 n) {
    for EACH (i, n) out[i] = y[i] <= 0.0f ? 0.0f : g[i];
}

// The gradient of a ReLU from its marks, in place.
template <class T> DEVICE void mask(T *g, const u8 *mark, u32 n) {
    for EACH (i, n)
        if (!mark[i]) put(g, i, 0.0f);
}
KERNEL mask_f32(float *g, const u8 *mark, u32 n) { mask(g, mark, n); }
KERNEL mask_bf16(bf16 *g, const u8 *mark, u32 n) { mask(g, mark, n); }

// out = x, or out + x.
template <class T> DEVICE void add(T *out, const T *x, u32 n, int accumulate) {
    for EACH (i, n) put(out, i, accumulate ? get(out, i) + get(x, i) : get(x, i));
}
KERNEL add_f32(float *out, const float *x, u32 n, int accumulate) { add(out, x, n, accumulate); }
KERNEL add_bf16(bf16 *out, const bf16 *x, u32 n, int accumulate) { add(out, x, n, accumulate); }

// max(scale[channel] · x + shift[channel], 0).
template <class T>
DEVICE void scale_relu(T *out, const T *x, const float *scale, const float *shift, u8 *mark, u32 n, u32 channels,
                       u32 area) {
    for EACH (i, n) {
        u32 channel = i / area % channels;
        float value = positive(get(x, i) * scale[channel] + shift[channel]);
        put(out, i, value);
        if (mark) mark[i] = value != 0.0f;
    }
}
KERNEL scale_relu_f32(float *out, const float *x, const float *scale, const float *shift, u8 *mark, u32 n, u32 channels,
                      u32 area) {
    scale_relu(out, x, scale, shift, mark, n, channels, area);
}
KERNEL scale_relu_bf16(bf16 *out, const bf16 *x, const float *scale, const float *shift, u8 *mark, u32 n, u32 channels,
                       u32 area) {
    scale_relu(out, x, scale, shift, mark, n, channels, area);
}

// Its gradient to x: g · scale[channel] where marked.
template <class T>
DEVICE void scale_relu_gradient(T *out, const T *g, const float *scale, const u8 *mark, u32 n, u32 channels, u32 area,
                                int accumulate) {
    for EACH (i, n) {
        float value = mark[i] ? get(g, i) * scale[i / area % channels] : 0.0f;
        put(out, i, accumulate ? get(out, i) + value : value);
    }
}
KERNEL scale_relu_gradient_f32(float *out, const float *g, const float *scale, const u8 *mark, u32 n, u32 channels,
                               u32 area, int accumulate) {
    scale_relu_gradient(out, g, scale, mark, n, channels, area, accumulate);
}
KERNEL scale_relu_gradient_bf16(bf16 *out, const bf16 *g, const float *scale, const u8 *mark, u32 n, u32 channels,
                                u32 area, int accumulate) {
    scale_relu_gradient(out, g, scale, mark, n, channels, area, accumulate);
}

KERNEL to_bf16(bf16 *out, const float *x, u32 n) {
    for EACH (i, n) put(out, i, x[i]);
}
KERNEL to_f32(float *out, const bf16 *x, u32 n) {
    for EACH (i, n) out[i] = get(x, i);
}

// ---- between [B, C, A] in f32, as tensors lie, and a frozen network's own order

template <class T> DEVICE void enter(T *out, const float *x, u32 n, u32 channels, u32 area, int last) {
    for EACH (i, n) {
        u32 from = i;
        if (last) {
            u32 channel = i % channels, pixel = i / channels % area, image = i / channels / area;
            from = (image * channels + channel) * area + pixel;
        }
        put(out, i, x[from]);
    }
}
KERNEL enter_f32(float *out, const float *x, u32 n, u32 channels, u32 area, int last) {
    enter(out, x, n, channels, area, last);
}
KERNEL enter_bf16(bf16 *out, const float *x, u32 n, u32 channels, u32 area, int last) {
    enter(out, x, n, channels, area, last);
}

template <class T> DEVICE void leave(float *out, const T *x, u32 n, u32 channels, u32 area, int last) {
    for EACH (i, n) {
        u32 from = i;
        if (last) {
            u32 pixel = i % area, channel = i / area % channels, image = i / area / channels;
            from = (image * area + pixel) * channels + channel;
        }
        out[i] = get(x, from);
    }
}
KERNEL leave_f32(float *out, const float *x, u32 n, u32 channels, u32 area, int last) {
    leave(out, x, n, channels, area, last);
}
KERNEL leave_bf16(float *out, const bf16 *x, u32 n, u32 channels, u32 area, int last) {
    leave(out, x, n, channels, area, last);
}

// ---- pooling over windows that do not overlap

// Where a number of a tensor of [B, C, rows, columns], or with channels last, lies.
struct Place {
    u32 image, channel, row, column;
};
DEVICE Place place_of(u32 i, u32 channels, u32 rows, u32 columns, int last) {
    Place place;
    if (last) {
        place.channel = i % channels;
        i /= channels;
    }
    place.column = i % columns;
    i /= columns;
    place.row = i % rows;
    i /= rows;
    if (!last) {
        place.channel = i % channels;
        i /= channels;
    }
    place.image = i;
    return place;
}
DEVICE u32 index_of(u32 image, u32 channel, u32 row, u32 column, u32 channels, u32 rows, u32 columns, int last) {
    return last ? ((image * rows + row) * columns + column) * channels + channel
                : ((image * channels + channel) * rows + row) * columns + column;
}

// The maximum of every window, and which place of the window, row by row, held the first one. A NaN counts
// as the maximum.
template <class T>
DEVICE void max_pool(T *out, u8 *places, const T *x, u32 n, u32 channels, u32 height, u32 width, u32 size, int last) {
    u32 rows = height / size, columns = width / size;
    for EACH (i, n) {
        Place at = place_of(i, channels, rows, columns, last);
        float best = 0.0f;
        u32 found = 0;
        for (u32 k = 0; k < size * size; k++) {
            u32 row = at.row * size + k / size, column = at.column * size + k % size;
            float value = get(x, index_of(at.image, at.channel, row, column, channels, height, width, last));
            if (k == 0 || value > best || (value != value && best == best)) {
                best = value;
                found = k;
            }
        }
        put(out, i, best);
        if (places) places[i] = (u8)found;
    }
}
KERNEL max_pool_f32(float *out, u8 *places, const float *x, u32 n, u32 channels, u32 height, u32 width, u32 size,
                    int last) {
    max_pool(out, places, x, n, channels, height, width, size, last);
}
KERNEL max_pool_bf16(bf16 *out, u8 *places, const bf16 *x, u32 n, u32 channels, u32 height, u32 width, u32 size,
                     int last) {
    max_pool(out, places, x, n, channels, height, width, size, last);
}

// Its gradient: every number of the images (n of them) takes its window's, if it was the first maximum.
template <class T>
DEVICE void max_pool_gradient(T *out, const u8 *places, const T *g, u32 n, u32 channels, u32 height, u32 width,
                              u32 size, int last, int accumulate) {
    u32 rows = height / size, columns = width / size;
    for EACH (i, n) {
        Place at = place_of(i, channels, height, width, last);
        u32 row = at.row / size, column = at.column / size;
        float value = 0.0f;
        if (row < rows && column < columns) {
            u32 window = index_of(at.image, at.channel, row, column, channels, rows, columns, last);
            if (places[window] == at.row % size * size + at.column % size) value = get(g, window);
        }
        put(out, i, accumulate ? get(out, i) + value : value);
    }
}
KERNEL max_pool_gradient_f32(float *out, const u8 *places, const float *g, u32 n, u32 channels, u32 height, u32 width,
                             u32 size, int last, int accumulate) {
    max_pool_gradient(out, places, g, n, channels, height, width, size, last, accumulate);
}
KERNEL max_pool_gradient_bf16(bf16 *out, const u8 *places, const bf16 *g, u32 n, u32 channels, u32 height, u32 width,
                              u32 size, int last, int accumulate) {
    max_pool_gradient(out, places, g, n, channels, height, width, size, last, accumulate);
}

// The mean of every window of `down` rows and `across` columns.
template <class T>
DEVICE void mean_pool(T *out, const T *x, u32 n, u32 channels, u32 height, u32 width, u32 down, u32 across, int last) {
    u32 rows = height / down, columns = width / across;
    float scale = 1.0f / (float)(down * across);
    for EACH (i, n) {
        Place at = place_of(i, channels, rows, columns, last);
        float sum = 0.0f;
        for (u32 row = at.row * down; row < (at.row + 1) * down; row++)
            for (u32 column = at.column * across; column < (at.column + 1) * across; column++)
                sum = sum + get(x, index_of(at.image, at.channel, row, column, channels, height, width, last));
        put(out, i, sum * scale);
    }
}
KERNEL mean_pool_f32(float *out, const float *x, u32 n, u32 channels, u32 height, u32 width, u32 down, u32 across,
                     int last) {
    mean_pool(out, x, n, channels, height, width, down, across, last);
}
KERNEL mean_pool_bf16(bf16 *out, const bf16 *x, u32 n, u32 channels, u32 height, u32 width, u32 down, u32 across,
                      int last) {
    mean_pool(out, x, n, channels, height, width, down, across, last);
}

template <class T>
DEVICE void mean_pool_gradient(T *out, const T *g, u32 n, u32 channels, u32 height, u32 width, u32 down, u32 across,
                               int last, int accumulate) {
    u32 rows = height / down, columns = width / across;
    float scale = 1.0f / (float)(down * across);
    for EACH (i, n) {
        Place at = place_of(i, channels, height, width, last);
        u32 row = at.row / down, column = at.column / across;
        float value = 0.0f;
        if (row < rows && column < columns)
            value = get(g, index_of(at.image, at.channel, row, column, channels, rows, columns, last)) * scale;
        put(out, i, accumulate ? get(out, i) + value : value);
    }
}
KERNEL mean_pool_gradient_f32(float *out, const float *g, u32 n, u32 channels, u32 height, u32 width, u32 down,
                              u32 across, int last, int accumulate) {
    mean_pool_gradient(out, g, n, channels, height, width, down, across, last, accumulate);
}
KERNEL mean_pool_gradient_bf16(bf16 *out, const bf16 *g, u32 n, u32 channels, u32 height, u32 width, u32 down,
                               u32 across, int last, int accumulate) {
    mean_pool_gradient(out, g, n, channels, height, width, down, across, last, accumulate);
}

// ---- sums per channel, and batch normalisation

// The sum over a block of threads, a power of two of them; every thread gets it.
DEVICE double block_sum(double *shared, double value) {
    shared[threadIdx.x] = value;
    __syncthreads();
    for (u32 half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] = shared[threadIdx.x] + shared[threadIdx.x + half];
        __syncthreads();
    }
    double sum = shared[0];
    __syncthreads();
    return sum;
}

// Two sums over part of a channel: block (slice, channel) adds up one of gridDim.x equal runs of the channel's
// numbers. partial: [2, channels, slices].
//   what = 0: Σ x, Σ x²;  1: Σ g, Σ g · (x − mean[channel]);  2: Σ g, 0
// With y, the result of a ReLU, g counts only where y is positive.
KERNEL channel_sums(double *partial, int what, const float *x, const float *g, const float *y, const float *mean,
                    u32 batch, u32 channels, u32 area) {
    __shared__ double shared[256];
    u32 slice = blockIdx.x, slices = gridDim.x, channel = blockIdx.y;
    u64 all = (u64)batch * area;
    u32 first = (u32)(all * slice / slices), end = (u32)(all * (slice + 1) / slices);
    double one = 0.0, two = 0.0;
    for (u32 j = first + threadIdx.x; j < end; j += blockDim.x) {
        u32 i = (j / area * channels + channel) * area + j % area;
        if (what == 0) {
            double value = x[i];
            one = one + value;
            two = two + value * value;
        } else {
            float value = y && y[i] <= 0.0f ? 0.0f : g[i];
            one = one + value;
            if (what == 1) two = two + (double)((x[i] - mean[channel]) * value);
        }
    }
    one = block_sum(shared, one);
    two = block_sum(shared, two);
    if (threadIdx.x == 0) {
        partial[channel * slices + slice] = one;
        partial[(channels + channel) * slices + slice] = two;
    }
}

DEVICE double slice_sum(const double *partial, u32 row, u32 slices) {
    double sum = 0.0;
    for (u32 slice = 0; slice < slices; slice++) sum = sum + partial[row * slices + slice];
    return sum;
}

KERNEL sum_slices(float *out, const double *partial, u32 channels, u32 slices) {
    for EACH (channel, channels) out[channel] = (float)slice_sum(partial, channel, slices);
}

// From the sums of a batch: mean, 1/√(variance + ε), and that times the weight. Running statistics move by
// `momentum` towards the batch's mean and unbiased variance, if they are given.
KERNEL batch_moments(float *mean, double *scale, float *factor, float *running_mean, float *running_variance,
                     const float *weight, const double *partial, u32 channels, u32 slices, double count,
                     double epsilon, double momentum) {
    for EACH (channel, channels) {
        double m = slice_sum(partial, channel, slices) / count;
        double variance = slice_sum(partial, channels + channel, slices) / count - m * m;
        if (variance < 0.0) variance = 0.0;
        double s = 1.0 / sqrt(variance + epsilon);
        mean[channel] = (float)m;
        scale[channel] = s;
        factor[channel] = (float)(s * weight[channel]);
        if (running_mean) {
            double unbiased = variance * (count / (count - 1.0));
            running_mean[channel] = (float)((1.0 - momentum) * running_mean[channel] + momentum * m);
            running_variance[channel] = (float)((1.0 - momentum) * running_variance[channel] + momentum * unbiased);
        }
    }
}

// The same from running statistics.
KERNEL running_moments(float *mean, double *scale, float *factor, const float *running_mean,
                       const float *running_variance, const float *weight, u32 channels, double epsilon) {
    for EACH (channel, channels) {
        double s = 1.0 / sqrt((double)running_variance[channel] + epsilon);
        mean[channel] = running_mean[channel];
        scale[channel] = s;
        factor[channel] = (float)(s * weight[channel]);
    }
}

// (x − mean) · factor + bias, then the activation.
KERNEL normalise(float *out, const float *x, const float *mean, const float *factor, const float *bias, u32 n,
                 u32 channels, u32 area, int relu) {
    for EACH (i, n) {
        u32 channel = i / area % channels;
        float value = (x[i] - mean[channel]) * factor[channel] + bias[channel];
        out[i] = relu ? positive(value) : value;
    }
}

// From Σ g and Σ g · (x − mean): the gradients to weight and bias, and what the gradient to x needs of them if the
// statistics are the batch's own; else zeros.
KERNEL norm_gradient_sums(float *to_weight, float *to_bias, float *slope, float *offset, const double *partial,
                          const double *scale, const float *weight, u32 channels, u32 slices, double count,
                          int of_batch) {
    for EACH (channel, channels) {
        double plain = slice_sum(partial, channel, slices);
        double weighted = slice_sum(partial, channels + channel, slices) * scale[channel];
        double factor = scale[channel] * weight[channel];
        to_bias[channel] = (float)plain;
        to_weight[channel] = (float)weighted;
        slope[channel] = of_batch ? (float)(factor * scale[channel] * weighted / count) : 0.0f;
        offset[channel] = of_batch ? (float)(factor * plain / count) : 0.0f;
    }
}

// g · factor − offset − (x − mean) · slope; without `slope`, g · factor. With y as in channel_sums.
KERNEL normalise_gradient(float *out, const float *g, const float *y, const float *x, const float *mean,
                          const float *factor, const float *slope, const float *offset, u32 n, u32 channels, u32 area) {
    for EACH (i, n) {
        u32 channel = i / area % channels;
        float value = (y && y[i] <= 0.0f ? 0.0f : g[i]) * factor[channel];
        if (slope) value = value - offset[channel] - (x[i] - mean[channel]) * slope[channel];
        out[i] = value;
    }
}

// ---- freezing: batch normalisation by running statistics into a convolution

// weight [K, C, R·S] times the norm's scale, as [K, C, R·S] or [K, R·S, C]. Without a norm only the order.
template <class T>
DEVICE void fold(T *out, const float *weight, const float *norm_weight, const float *variance, double epsilon, u32 n,
                 u32 channels, u32 kernel, int last) {
    for EACH (i, n) {
        u32 from = i, output = i / channels / kernel;
        if (last) from = (output * channels + i % channels) * kernel + i / channels % kernel;
        float value = weight[from];
        if (variance) value = value * (float)(norm_weight[output] / sqrt((double)variance[output] + epsilon));
        put(out, i, value);
    }
}
KERNEL fold_f32(float *out, const float *weight, const float *norm_weight, const float *variance, double epsilon, u32 n,
                u32 channels, u32 kernel, int last) {
    fold(out, weight, norm_weight, variance, epsilon, n, channels, kernel, last);
}
KERNEL fold_bf16(bf16 *out, const float *weight, const float *norm_weight, const float *variance, double epsilon, u32 n,
                 u32 channels, u32 kernel, int last) {
    fold(out, weight, norm_weight, variance, epsilon, n, channels, kernel, last);
}

// scale and shift of a norm; scale may be left out, and a bias before the norm goes into the shift.
KERNEL fold_norm(float *scale, float *shift, const float *bias, const float *norm_weight, const float *norm_bias,
                 const float *mean, const float *variance, double epsilon, u32 channels) {
    for EACH (channel, channels) {
        double s = 1.0, t = 0.0;
        if (variance) {
            s = norm_weight[channel] / sqrt((double)variance[channel] + epsilon);
            t = norm_bias[channel] - mean[channel] * s;
        }
        float before = bias ? bias[channel] : 0.0f;
        if (scale) scale[channel] = (float)s;
        shift[channel] = before * (float)s + (float)t;
    }
}

// ---- rows of logits

DEVICE double log_sum_exp(const float *row, u32 classes) {
    double maximum = row[0];
    for (u32 k = 1; k < classes; k++)
        if (row[k] > maximum) maximum = row[k];
    double sum = 0.0;
    for (u32 k = 0; k < classes; k++) sum = sum + exp(row[k] - maximum);
    return maximum + log(sum);
}

KERNEL log_softmax(float *out, const float *logits, u32 batch, u32 classes) {
    for EACH (b, batch) {
        const float *row = logits + b * classes;
        double total = log_sum_exp(row, classes);
        for (u32 k = 0; k < classes; k++) out[b * classes + k] = (float)(row[k] - total);
    }
}

// g − softmax · Σ g.
KERNEL log_softmax_gradient(float *out, const float *logs, const float *g, u32 batch, u32 classes) {
    for EACH (b, batch) {
        double sum = 0.0;
        for (u32 k = 0; k < classes; k++) sum = sum + g[b * classes + k];
        for (u32 k = 0; k < classes; k++) {
            u32 i = b * classes + k;
            out[i] = (float)(g[i] - exp((double)logs[i]) * sum);
        }
    }
}

// −log softmax(z)_y. A label that is no class makes a NaN.
KERNEL cross_entropy(float *out, const float *logits, const u32 *labels, u32 batch, u32 classes) {
    for EACH (b, batch) {
        const float *row = logits + b * classes;
        float nothing = 0.0f;
        out[b] = labels[b] < classes ? (float)(log_sum_exp(row, classes) - row[labels[b]]) : nothing / nothing;
    }
}

// g · (softmax(z) − onehot(y)).
KERNEL cross_entropy_gradient(float *out, const float *logits, const u32 *labels, const float *g, u32 batch,
                              u32 classes) {
    for EACH (b, batch) {
        const float *row = logits + b * classes;
        double total = log_sum_exp(row, classes);
        for (u32 k = 0; k < classes; k++)
            out[b * classes + k] = (float)(g[b] * (exp(row[k] - total) - (k == labels[b] ? 1.0 : 0.0)));
    }
}

// The gradient to the logits of a loss that an attack ascends, summed over examples. M = max over k ≠ y, the first.
//   kind = 0: cross entropy   1: KL(softmax(clean) ‖ softmax(z))   2: M − z_y   3: −max(z_y − M + kappa, 0)
//   4: log Σ_{k≠y} exp z_k − z_y   5: max(M − z_y + kappa, 0)
KERNEL loss_gradient(float *out, const float *logits, const u32 *labels, const float *clean, int kind, float kappa,
                     u32 batch, u32 classes) {
    for EACH (b, batch) {
        const float *row = logits + b * classes;
        float *to = out + b * classes;
        u32 label = labels[b];
        if (kind <= 1) {
            double total = log_sum_exp(row, classes);
            double other = kind == 1 ? log_sum_exp(clean + b * classes, classes) : 0.0;
            for (u32 k = 0; k < classes; k++) {
                double target = kind == 1 ? exp(clean[b * classes + k] - other) : (k == label ? 1.0 : 0.0);
                to[k] = (float)(exp(row[k] - total) - target);
            }
            continue;
        }
        u32 best = label == 0 ? 1 : 0;
        for (u32 k = 0; k < classes; k++)
            if (k != label && row[k] > row[best]) best = k;
        double sum = 0.0;
        if (kind == 4)
            for (u32 k = 0; k < classes; k++)
                if (k != label) sum = sum + exp((double)row[k] - row[best]);
        int moves = 1;
        if (kind == 3) moves = row[label] - row[best] + kappa > 0.0f;
        if (kind == 5) moves = row[best] - row[label] + kappa > 0.0f;
        for (u32 k = 0; k < classes; k++) {
            float value = k == best ? 1.0f : 0.0f;
            if (kind == 4) value = (float)(exp((double)row[k] - row[best]) / sum);
            if (k == label) value = -1.0f;
            to[k] = moves ? value : 0.0f;
        }
    }
}

// ---- an attack's step, and an optimizer's

// min(max(v + step · sign(g), lower), upper), with sign(0) = 0. out may be v.
KERNEL sign_step(float *out, const float *v, const float *g, const float *lower, const float *upper, float step,
                 u32 n) {
    for EACH (i, n) {
        float sign = (float)(g[i] > 0.0f) - (float)(g[i] < 0.0f);
        float value = v[i] + sign * step;
        value = value < lower[i] ? lower[i] : value;
        out[i] = value > upper[i] ? upper[i] : value;
    }
}

// flags[b] becomes 1 if image b's gradient is zero throughout; a block per image.
KERNEL flag_zero(float *flags, const float *g, u32 len) {
    __shared__ double shared[256];
    double found = 0.0;
    for (u32 j = threadIdx.x; j < len; j += blockDim.x)
        if (g[blockIdx.x * len + j] != 0.0f) found = 1.0;
    found = block_sum(shared, found);
    if (threadIdx.x == 0 && found == 0.0) flags[blockIdx.x] = 1.0f;
}

// g ← g + decay · θ; b ← momentum · b + g, at first b = g; θ ← θ − rate · (b, or with Nesterov g + momentum · b).
KERNEL sgd_step(float *theta, float *buffer, const float *gradient, u32 n, float rate, float momentum, float decay,
                int nesterov, int first) {
    for EACH (i, n) {
        float g = gradient[i];
        if (decay != 0.0f) g = g + theta[i] * decay;
        float direction = g;
        if (momentum != 0.0f) {
            float b = first ? g : buffer[i] * momentum + g;
            buffer[i] = b;
            direction = nesterov ? g + b * momentum : b;
        }
        theta[i] = theta[i] - direction * rate;
    }
}

// ---- draws, the same bits as on the CPU

struct Four {
    u32 words[4];
};
DEVICE Four philox(u64 low, u64 high, u64 key) {
    u32 c0 = (u32)low, c1 = (u32)(low >> 32), c2 = (u32)high, c3 = (u32)(high >> 32);
    u32 k0 = (u32)key, k1 = (u32)(key >> 32);
    for (int round = 0; round < 10; round++) {
        u64 a = (u64)c0 * 0xD2511F53u, b = (u64)c2 * 0xCD9E8D57u;
        u32 next0 = (u32)(b >> 32) ^ c1 ^ k0, next2 = (u32)(a >> 32) ^ c3 ^ k1;
        c0 = next0;
        c1 = (u32)b;
        c2 = next2;
        c3 = (u32)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    Four four = {{c0, c1, c2, c3}};
    return four;
}

// [rows, len] uniform draws in [0, 1), the row of example ids[row].
KERNEL philox_uniform(float *out, const u64 *ids, u32 rows, u32 len, u64 key) {
    u32 blocks = (len + 3) / 4;
    for EACH (i, rows * blocks) {
        u32 row = i / blocks, block = i % blocks;
        Four four = philox(block, ids[row], key);
        for (u32 k = 0; k < 4 && block * 4 + k < len; k++)
            out[row * len + block * 4 + k] = (float)(four.words[k] >> 8) * (1.0f / 16777216.0f);
    }
}

DEVICE u64 bits_of(double x) { return (u64)__double_as_longlong(x); }
DEVICE double from_bits(u64 bits) { return __longlong_as_double((long long)bits); }

// log, sin and cos by the classic algorithms of FreeBSD's msun, with their constants and in their order of
// operations, because the CPU's draws are computed by them.

// The logarithm of a normal positive number.
DEVICE double portable_log(double x) {
    u64 bits = bits_of(x);
    u32 high = (u32)(bits >> 32);
    if (high == 0x3ff00000u && (u32)bits == 0) return 0.0;
    // x = 2^k · (1 + f) with √½ ≤ 1 + f < √2.
    high += 0x3ff00000u - 0x3fe6a09eu;
    double k = (double)((int)(high >> 20) - 0x3ff);
    high = (high & 0xfffffu) + 0x3fe6a09eu;
    double f = from_bits((u64)high << 32 | (u32)bits) - 1.0;
    double half = 0.5 * f * f, s = f / (2.0 + f), z = s * s, w = z * z;
    double odd = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
    double even = z * (6.666666666666735130e-01 +
                       w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
    double r = even + odd;
    return s * (half + r) + k * 1.90821492927058770002e-10 - half + f + k * 6.93147180369123816490e-01;
}

// x + y − n·π/2 as a sum of two doubles, 0 ≤ x < 2π; n returned.
DEVICE int quarter_turns(double x, double *y0, double *y1) {
    const double part1 = 1.57079632673412561417e+00, rest1 = 6.07710050650619224932e-11;
    const double part2 = 6.07710050630396597660e-11, rest2 = 2.02226624879595063154e-21;
    const double part3 = 2.02226624871116645580e-21, rest3 = 8.47842766036889956997e-32;
    u32 high = (u32)(bits_of(x) >> 32);
    int near_axis = (high <= 0x400f6a7au && (high & 0xfffffu) == 0x921fbu) || high == 0x4012d97cu || high == 0x401921fbu;
    if (!near_axis) {
        int n = high <= 0x4002d97cu ? 1 : high <= 0x400f6a7au ? 2 : high <= 0x4015fdbcu ? 3 : 4;
        double z = x - n * part1;
        *y0 = z - n * rest1;
        *y1 = (z - *y0) - n * rest1;
        return n;
    }
    // Close to a multiple of π/2 digits cancel, and up to three parts of π/2 are needed.
    const double to_integer = 1.5 / 2.2204460492503131e-16;
    double turns = x * 6.36619772367581382433e-01 + to_integer;
    turns = turns - to_integer;
    double r = x - turns * part1, w = turns * rest1, y = r - w;
    int exponent = (int)(high >> 20);
    if (exponent - (int)(bits_of(y) >> 52 & 0x7ff) > 16) {
        double t = r;
        w = turns * part2;
        r = t - w;
        w = turns * rest2 - ((t - r) - w);
        y = r - w;
        if (exponent - (int)(bits_of(y) >> 52 & 0x7ff) > 49) {
            t = r;
            w = turns * part3;
            r = t - w;
            w = turns * rest3 - ((t - r) - w);
            y = r - w;
        }
    }
    *y0 = y;
    *y1 = (r - y) - w;
    return (int)turns;
}

DEVICE double small_sin(double x, double y, int with_y) {
    double z = x * x, w = z * z, v = z * x;
    double r = 8.33333333332248946124e-03 + z * (-1.98412698298579493134e-04 + z * 2.75573137070700676789e-06) +
               z * w * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10);
    const double first = -1.66666666666666324348e-01;
    if (!with_y) return x + v * (first + z * r);
    return x - ((z * (0.5 * y - v * r) - y) - v * first);
}

DEVICE double small_cos(double x, double y) {
    double z = x * x, w = z * z;
    double r = z * (4.16666666666666019037e-02 + z * (-1.38888888888741095749e-03 + z * 2.48015872894767294178e-05)) +
               w * w * (-2.75573143513906633035e-07 + z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11));
    double half = 0.5 * z, near = 1.0 - half;
    return near + (((1.0 - near) - half) + (z * r - x * y));
}

// Sine and cosine of 0 ≤ x < 2π.
DEVICE void portable_sin_cos(double x, double *sine, double *cosine) {
    u32 high = (u32)(bits_of(x) >> 32);
    if (high <= 0x3fe921fbu) {
        *sine = high < 0x3e500000u ? x : small_sin(x, 0.0, 0);
        *cosine = high < 0x3e46a09eu ? 1.0 : small_cos(x, 0.0);
        return;
    }
    double y0, y1;
    int n = quarter_turns(x, &y0, &y1) & 3;
    double s = small_sin(y0, y1, 1), c = small_cos(y0, y1);
    *sine = n == 0 ? s : n == 1 ? c : n == 2 ? -s : -c;
    *cosine = n == 0 ? c : n == 1 ? -s : n == 2 ? -c : s;
}

// [rows, len] standard normal draws by Box and Muller.
KERNEL philox_normal(float *out, const u64 *ids, u32 rows, u32 len, u64 key) {
    u32 blocks = (len + 3) / 4;
    for EACH (i, rows * blocks) {
        u32 row = i / blocks, block = i % blocks;
        Four four = philox(block, ids[row], key);
        for (u32 pair = 0; pair < 2; pair++) {
            double u = ((double)four.words[2 * pair] + 1.0) / 4294967296.0;
            double v = (double)four.words[2 * pair + 1] / 4294967296.0;
            double radius = sqrt(-2.0 * portable_log(u)), sine, cosine;
            portable_sin_cos(6.28318530717958647692 * v, &sine, &cosine);
            u32 at = block * 4 + 2 * pair;
            if (at < len) out[row * len + at] = (float)(radius * cosine);
            if (at + 1 < len) out[row * len + at + 1] = (float)(radius * sine);
        }
    }
}

// ---- images that lie on the card as bytes

// Row b of out [n / (C·H·W), C, H, W] is byte image rows[b] over `scale`, padded by `pad` (black, or mirrored), cut at
// draws[b] = (top, left, flip).
KERNEL crop_flip(float *out, const u8 *images, const u32 *rows, const u32 *draws, u32 n, u32 channels, u32 height,
                 u32 width, u32 pad, int reflect, float scale) {
    for EACH (i, n) {
        u32 column = i % width, row = i / width % height, channel = i / width / height % channels;
        u32 b = i / width / height / channels;
        const u32 *draw = draws + 3 * b;
        if (draw[2]) column = width - 1 - column;
        int y = (int)(row + draw[0]) - (int)pad, x = (int)(column + draw[1]) - (int)pad;
        int h = (int)height, w = (int)width;
        if (reflect) {
            y = y < 0 ? -y : y >= h ? 2 * (h - 1) - y : y;
            x = x < 0 ? -x : x >= w ? 2 * (w - 1) - x : x;
        }
        u64 start = ((u64)rows[b] * channels + channel) * height;
        int inside = y >= 0 && y < h && x >= 0 && x < w;
        out[i] = inside ? (float)images[(start + y) * width + x] / scale : 0.0f;
    }
}
