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
