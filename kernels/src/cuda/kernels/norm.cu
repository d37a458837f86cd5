// ---- sums per channel, and batch normalisation

// `across` sums over a block of threads, both powers of two: thread t's value goes into sum t mod across, and every
// thread gets its own.
DEVICE double block_sum(double *shared, double value, u32 across) {
    shared[threadIdx.x] = value;
    __syncthreads();
    for (u32 half = blockDim.x / 2; half >= across; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] = shared[threadIdx.x] + shared[threadIdx.x + half];
        __syncthreads();
    }
    double sum = shared[threadIdx.x % across];
    __syncthreads();
    return sum;
}

// Two sums over part of a channel: a block adds up one of gridDim.x equal runs of one channel's numbers or, where
// channels come last, of 32 channels', so that neighbouring threads read neighbours. partial: [2, channels, slices].
//   what = 0: Σ x, Σ x²;  1: Σ g, Σ g · (x − mean[channel]);  2: Σ g, 0
// With y, the result of a ReLU, g counts only where y is positive.
template <class T>
DEVICE void channel_sums(double *partial, int what, const T *x, const T *g, const T *y, const float *mean, u32 batch,
                         u32 channels, u32 area, int last) {
    __shared__ double shared[256];
    u32 across = last ? 32 : 1, rows = blockDim.x / across;
    u32 slice = blockIdx.x, slices = gridDim.x, channel = blockIdx.y * across + threadIdx.x % across;
    u64 all = (u64)batch * area;
    u32 first = (u32)(all * slice / slices), end = (u32)(all * (slice + 1) / slices);
    double one = 0.0, two = 0.0;
    for (u32 j = first + threadIdx.x / across; j < end && channel < channels; j += rows) {
        u32 i = last ? j * channels + channel : (j / area * channels + channel) * area + j % area;
        if (what == 0) {
            double value = get(x, i);
            one = one + value;
            two = two + value * value;
        } else {
            float value = y && get(y, i) <= 0.0f ? 0.0f : get(g, i);
            one = one + value;
            if (what == 1) two = two + (double)((get(x, i) - mean[channel]) * value);
        }
    }
    one = block_sum(shared, one, across);
    two = block_sum(shared, two, across);
    if (threadIdx.x < across && channel < channels) {
        partial[channel * slices + slice] = one;
        partial[(channels + channel) * slices + slice] = two;
    }
}
KERNEL channel_sums_f32(double *partial, int what, const float *x, const float *g, const float *y, const float *mean,
                        u32 batch, u32 channels, u32 area, int last) {
    channel_sums(partial, what, x, g, y, mean, batch, channels, area, last);
}
KERNEL channel_sums_bf16(double *partial, int what, const bf16 *x, const bf16 *g, const bf16 *y, const float *mean,
                         u32 batch, u32 channels, u32 area, int last) {
    channel_sums(partial, what, x, g, y, mean, batch, channels, area, last);
}

// The sum of a row's slices, by a block of 32 threads.
DEVICE double slice_sum(double *shared, const double *partial, u32 row, u32 slices) {
    double sum = 0.0;
    for (u32 slice = threadIdx.x; slice < slices; slice += blockDim.x) sum = sum + partial[row * slices + slice];
    return block_sum(shared, sum, 1);
}

// A block for each channel, as in the kernels after it.
KERNEL sum_slices(float *out, const double *partial, u32 channels, u32 slices) {
    __shared__ double shared[32];
    double sum = slice_sum(shared, partial, blockIdx.x, slices);
    if (threadIdx.x == 0) out[blockIdx.x] = (float)sum;
}

// From the sums of a batch: mean, 1/√(variance + ε), and that times the weight. Running statistics move by
// `momentum` towards the batch's mean and unbiased variance, if they are given.
KERNEL batch_moments(float *mean, double *scale, float *factor, float *running_mean, float *running_variance,
                     const float *weight, const double *partial, u32 channels, u32 slices, double count,
                     double epsilon, double momentum) {
    __shared__ double shared[32];
    u32 channel = blockIdx.x;
    double m = slice_sum(shared, partial, channel, slices) / count;
    double variance = slice_sum(shared, partial, channels + channel, slices) / count - m * m;
    if (threadIdx.x > 0) return;
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

// (x − mean) · factor + bias, plus `other` if it is there, then the activation.
template <class T>
DEVICE void normalise(T *out, const T *x, const float *mean, const float *factor, const float *bias, const T *other,
                      u32 n, u32 channels, u32 area, int relu) {
    for EACH (i, n) {
        u32 channel = i / area % channels;
        float value = (get(x, i) - mean[channel]) * factor[channel] + bias[channel];
        if (other) value = value + get(other, i);
        put(out, i, relu ? positive(value) : value);
    }
}
KERNEL normalise_f32(float *out, const float *x, const float *mean, const float *factor, const float *bias,
                     const float *other, u32 n, u32 channels, u32 area, int relu) {
    normalise(out, x, mean, factor, bias, other, n, channels, area, relu);
}
KERNEL normalise_bf16(bf16 *out, const bf16 *x, const float *mean, const float *factor, const float *bias,
                      const bf16 *other, u32 n, u32 channels, u32 area, int relu) {
    normalise(out, x, mean, factor, bias, other, n, channels, area, relu);
}

// From Σ g and Σ g · (x − mean): the gradients to weight and bias, and what the gradient to x needs of them if the
// statistics are the batch's own; else zeros.
KERNEL norm_gradient_sums(float *to_weight, float *to_bias, float *slope, float *offset, const double *partial,
                          const double *scale, const float *weight, u32 channels, u32 slices, double count,
                          int of_batch) {
    __shared__ double shared[32];
    u32 channel = blockIdx.x;
    double plain = slice_sum(shared, partial, channel, slices);
    double weighted = slice_sum(shared, partial, channels + channel, slices) * scale[channel];
    if (threadIdx.x > 0) return;
    double factor = scale[channel] * weight[channel];
    to_bias[channel] = (float)plain;
    to_weight[channel] = (float)weighted;
    slope[channel] = of_batch ? (float)(factor * scale[channel] * weighted / count) : 0.0f;
    offset[channel] = of_batch ? (float)(factor * plain / count) : 0.0f;
}

// g · factor − offset − (x − mean) · slope; without `slope`, g · factor. With y as in channel_sums. What counts of g
// also goes to `rest`, if that is somewhere, the other summand's gradient. Either is added to what is there if
// asked. out or rest may be g.
template <class T>
DEVICE void normalise_gradient(T *out, const T *g, const T *y, const T *x, const float *mean, const float *factor,
                               const float *slope, const float *offset, T *rest, u32 n, u32 channels, u32 area,
                               int accumulate, int accumulate_rest) {
    for EACH (i, n) {
        u32 channel = i / area % channels;
        float value = y && get(y, i) <= 0.0f ? 0.0f : get(g, i);
        float to = value * factor[channel];
        if (slope) to = to - offset[channel] - (get(x, i) - mean[channel]) * slope[channel];
        if (accumulate) to = get(out, i) + to;
        if (rest) put(rest, i, accumulate_rest ? get(rest, i) + value : value);
        put(out, i, to);
    }
}
KERNEL normalise_gradient_f32(float *out, const float *g, const float *y, const float *x, const float *mean,
                              const float *factor, const float *slope, const float *offset, float *rest, u32 n,
                              u32 channels, u32 area, int accumulate, int accumulate_rest) {
    normalise_gradient(out, g, y, x, mean, factor, slope, offset, rest, n, channels, area, accumulate, accumulate_rest);
}
KERNEL normalise_gradient_bf16(bf16 *out, const bf16 *g, const bf16 *y, const bf16 *x, const float *mean,
                               const float *factor, const float *slope, const float *offset, bf16 *rest, u32 n,
                               u32 channels, u32 area, int accumulate, int accumulate_rest) {
    normalise_gradient(out, g, y, x, mean, factor, slope, offset, rest, n, channels, area, accumulate, accumulate_rest);
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
