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
