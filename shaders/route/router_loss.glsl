// What the kernels of the routing losses share. constant_id 1 is that of rows.glsl.
layout(constant_id = 2) const uint KIND = 0; // qn_router_loss
const uint MI = 0, SWITCH = 1, CONCENTRATION = 2;

const float EPSILON = 1e-8;   // inside the marginal's logarithm
const float Z_WEIGHT = 0.1;   // of the mean square of logsumexp
const float NOTHING = 1e-12;  // least denominator

// Of a row z of `logits`: its greatest value, log sum exp(z - top), and the mean of z - top under
// the softmax, so that the entropy is spread - mean and logsumexp is top + spread.
struct RowStats {
    float top, spread, mean;
};
#define ROW_STATS(name, row, stats)                                                                \
    {                                                                                              \
        stats.top = max4(ROW4(name, row, 0u));                                                     \
        for (uint c = 1u; c < row_chunks(); c++)                                                   \
            stats.top = max(stats.top, max4(ROW4(name, row, c)));                                  \
        vec4 sum_ = vec4(0.0), moment_ = vec4(0.0);                                                \
        for (uint c = 0u; c < row_chunks(); c++) {                                                 \
            vec4 z_ = ROW4(name, row, c) - stats.top, e_ = exp_exact(z_) * row_mask(c);                  \
            sum_ += e_;                                                                            \
            moment_ += e_ * z_;                                                                    \
        }                                                                                          \
        stats.spread = log_exact(sum4(sum_));                                                      \
        stats.mean = sum4(moment_) / sum4(sum_);                                                   \
    }
