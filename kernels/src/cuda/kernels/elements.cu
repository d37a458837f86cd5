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

// The gradient of a ReLU from its result: g where y is positive, else 0. out may be g.
template <class T> DEVICE void relu_gradient(T *out, const T *y, const T *g, u32 n) {
    for EACH (i, n) put(out, i, get(y, i) <= 0.0f ? 0.0f : get(g, i));
}
KERNEL relu_gradient_f32(float *out, const float *y, const float *g, u32 n) { relu_gradient(out, y, g, n); }
KERNEL relu_gradient_bf16(bf16 *out, const bf16 *y, const bf16 *g, u32 n) { relu_gradient(out, y, g, n); }

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

// Each number times its factor. out may be x.
template <class T> DEVICE void times(T *out, const T *x, const float *factors, u32 n) {
    for EACH (i, n) put(out, i, get(x, i) * factors[i]);
}
KERNEL times_f32(float *out, const float *x, const float *factors, u32 n) { times(out, x, factors, n); }
KERNEL times_bf16(bf16 *out, const bf16 *x, const float *factors, u32 n) { times(out, x, factors, n); }

KERNEL to_bf16(bf16 *out, const float *x, u32 n) {
    for EACH (i, n) put(out, i, x[i]);
}
KERNEL to_f32(float *out, const bf16 *x, u32 n) {
    for EACH (i, n) out[i] = get(x, i);
}

// ---- between [B, C, A] in f32, as tensors lie, and a network's own order

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
