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
