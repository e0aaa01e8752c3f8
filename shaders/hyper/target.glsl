// The target network of one view on R rows per invocation: forward, and backward from the gradient
// of its outputs. [hypertab]
//   A_0 = chosen columns, A_l+1 = relu(A_l W_l' + b_l), the last layer without relu
//   dW_l = dZ_l' A_l, db_l = column sums of dZ_l, dZ_l-1 = (dZ_l W_l) where A_l > 0
// Layers (m, H), (H, H) ..., (H, C). The generated vector holds them one after the other: W, outputs x
// inputs, then b.
//
// The including kernel defines
//   GEN(i)        element i of the view's generated vector
//   COLUMN(i)     chosen column i, 0 <= i < m
//   X_AT(c, r)    column c of the invocation's row r, 0 <= r < R
//   PART(i, sum)  takes an octet's sum of element i of the gradient of the generated vector; called
//                 by one invocation of the octet for each i
// Inputs are gone through in eights: of every output's weights an invocation of the octet fetches one.
// The columns of the first layer make a rolled loop, so that the code does not grow with m; hidden
// layers are unrolled while they are narrow.
layout(constant_id = 2) const uint H = 10;
layout(constant_id = 3) const uint C = 2;
layout(constant_id = 4) const uint DEPTH = 2;
layout(constant_id = 5) const uint R = 1;

const uint WIDEST = H > C ? H : C;
const uint H8 = (H + 7u) & ~7u;
float hidden[DEPTH * H8 * R]; // after relu
float unit[WIDEST * R];       // outputs of the layer at hand, or their gradients
float below[H8 * R];          // gradients of the layer before
float given[8 * R];           // eight inputs of the layer at hand

uint target_inputs(uint layer, uint m) { return layer == 0u ? m : H; }

// Where a layer begins in the generated vector.
uint target_base(uint layer, uint m)
{
    return layer == 0u ? 0u : (m + 1u) * H + (layer - 1u) * (H + 1u) * H;
}

// Inputs first .. first + 7 of the layer; zero beyond the last.
void fetch_inputs(uint layer, uint first, uint inputs)
{
    if (layer == 0u) {
        uint own = COLUMN(min(first + lane8(), inputs - 1u));
        [[unroll]] for (uint u = 0; u < 8; u++) {
            uint column = PICK(own, u, COLUMN(min(first + u, inputs - 1u)));
            [[unroll]] for (uint r = 0; r < R; r++)
                given[u * R + r] = first + u < inputs ? X_AT(column, r) : 0.0;
        }
    } else {
        [[unroll]] for (uint u = 0; u < 8u * R; u++)
            given[u] = hidden[((layer - 1u) * H8 + first) * R + u];
    }
}

void forward_block(uint layer, uint outputs, uint inputs, uint base, uint first)
{
    fetch_inputs(layer, first, inputs);
    [[unroll]] for (uint o = 0; o < outputs; o++) {
        uint row = base + o * inputs;
        float w = GEN(row + min(first + lane8(), inputs - 1u));
        [[unroll]] for (uint u = 0; u < 8; u++)
            if (layer == 0u || first + u < inputs) {
                float wu = PICK(w, u, GEN(row + min(first + u, inputs - 1u)));
                [[unroll]] for (uint r = 0; r < R; r++) unit[o * R + r] += wu * given[u * R + r];
            }
    }
}

void forward_layer(uint layer, uint outputs, uint m)
{
    uint inputs = target_inputs(layer, m), base = target_base(layer, m);
    uint biases = base + inputs * outputs;
    [[unroll]] for (uint q = 0; q < (outputs + 7u) / 8u; q++) {
        float b = GEN(biases + min(8u * q + lane8(), outputs - 1u));
        [[unroll]] for (uint u = 0; u < 8; u++)
            if (8u * q + u < outputs) {
                float bu = PICK(b, u, GEN(biases + 8u * q + u));
                [[unroll]] for (uint r = 0; r < R; r++) unit[(8u * q + u) * R + r] = bu;
            }
    }
    if (layer > 0u && H <= 16u) {
        [[unroll]] for (uint first = 0; first < H8; first += 8u)
            forward_block(layer, outputs, inputs, base, first);
    } else {
        uint first = 0;
        do {
            forward_block(layer, outputs, inputs, base, first);
            first += 8u;
        } while (first < inputs);
    }
}

// Leaves the outputs in unit[o * R + r].
void target_forward(uint m)
{
    [[unroll]] for (uint l = 0; l < DEPTH; l++) {
        forward_layer(l, H, m);
        [[unroll]] for (uint o = 0; o < H8 * R; o++)
            hidden[l * H8 * R + o] = o < H * R ? max(unit[min(o, H * R - 1u)], 0.0) : 0.0;
    }
    forward_layer(DEPTH, C, m);
}

void backward_block(uint layer, uint outputs, uint inputs, uint base, uint first)
{
    float d[8 * R], v[8];
    fetch_inputs(layer, first, inputs);
    [[unroll]] for (uint u = 0; u < 8u * R; u++) d[u] = 0.0;
    [[unroll]] for (uint o = 0; o < outputs; o++) {
        uint row = base + o * inputs;
        [[unroll]] for (uint u = 0; u < 8; u++) {
            v[u] = 0.0;
            if (layer == 0u || first + u < inputs)
                [[unroll]] for (uint r = 0; r < R; r++) v[u] += unit[o * R + r] * given[u * R + r];
        }
        float s = octet_sum(v);
        if (first + lane8() < inputs) { PART(row + first + lane8(), s); }
        if (layer > 0u) {
            float w = GEN(row + min(first + lane8(), inputs - 1u));
            [[unroll]] for (uint u = 0; u < 8; u++)
                if (first + u < inputs) {
                    float wu = PICK(w, u, GEN(row + min(first + u, inputs - 1u)));
                    [[unroll]] for (uint r = 0; r < R; r++) d[u * R + r] += wu * unit[o * R + r];
                }
        }
    }
    if (layer > 0u)
        [[unroll]] for (uint u = 0; u < 8u * R; u++)
            below[first * R + u] = given[u] > 0.0 ? d[u] : 0.0;
}

void backward_layer(uint layer, uint outputs, uint m)
{
    uint inputs = target_inputs(layer, m), base = target_base(layer, m);
    float v[8];
    [[unroll]] for (uint q = 0; q < (outputs + 7u) / 8u; q++) {
        [[unroll]] for (uint u = 0; u < 8; u++) {
            v[u] = 0.0;
            if (8u * q + u < outputs)
                [[unroll]] for (uint r = 0; r < R; r++) v[u] += unit[(8u * q + u) * R + r];
        }
        float s = octet_sum(v);
        if (8u * q + lane8() < outputs) { PART(base + inputs * outputs + 8u * q + lane8(), s); }
    }
    if (layer > 0u && H <= 16u) {
        [[unroll]] for (uint first = 0; first < H8; first += 8u)
            backward_block(layer, outputs, inputs, base, first);
    } else {
        uint first = 0;
        do {
            backward_block(layer, outputs, inputs, base, first);
            first += 8u;
        } while (first < inputs);
    }
    if (layer > 0u)
        [[unroll]] for (uint o = 0; o < H * R; o++) unit[o] = below[o];
}

// From the gradient of the outputs in unit[o * R + r].
void target_backward(uint m)
{
    backward_layer(DEPTH, C, m);
    [[unroll]] for (uint l = 0; l < DEPTH; l++) backward_layer(DEPTH - 1u - l, H, m);
}
