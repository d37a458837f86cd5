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
