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
    found = block_sum(shared, found, 1);
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
