// Elementary functions whose built-in versions lose the tail, activations with their derivatives,
// and the counter-based random generator. Include after types.glsl.
//
// Bounds hold over all finite arguments.

// log(2) in two parts; the first has 16 bits, so that its products with exponents are exact.
const float QN_LN2_HI = 0.693145752;
const float QN_LN2_LO = 1.42860677e-6;
const float QN_SQRT_HALF = 0.707106781;
const float QN_SQRT_2_OVER_PI = 0.797884561;
const float QN_INV_SQRT_2PI = 0.398942280;

// exp(x) within 2 ulp: x = n log(2) + r, a polynomial in r, 2^n by its bits. The built-in one may be
// off by 3 + 2|x| ulp, the same way for all arguments near x; training adds such errors up, and
// routers then choose otherwise than other implementations do. Results below 2^-126 are 0.
float exp_exact(float x)
{
    float n = floor(clamp(x, -88.0, 89.0) * 1.44269504 + 0.5);
    float r = x - n * QN_LN2_HI - n * QN_LN2_LO; // NaN stays NaN
    float p = 1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0));
    p = 1.0 / 6.0 + r * (1.0 / 24.0 + r * p);
    p = 1.0 + r * (1.0 + r * (0.5 + r * p));
    int half_n = int(n) >> 1; // in two steps: 2^n itself may be out of range
    float y = p * intBitsToFloat((half_n + 127) << 23) * intBitsToFloat((int(n) - half_n + 127) << 23);
    return x < -87.3 ? 0.0 : x > 88.72 ? uintBitsToFloat(0x7f800000u) : y;
}

vec4 exp_exact(vec4 x)
{
    return vec4(exp_exact(x.x), exp_exact(x.y), exp_exact(x.z), exp_exact(x.w));
}

// log(1 + x) for 0 <= x <= 1: the series of 2 atanh(x / (2 + x)), relative error 2e-7.
float log1p_unit(float x)
{
    float s = x / (2.0 + x), q = s * s;
    float p = 1.0 / 11.0 + q * (1.0 / 13.0);
    p = 1.0 / 7.0 + q * (1.0 / 9.0 + q * p);
    p = 1.0 / 3.0 + q * (1.0 / 5.0 + q * p);
    return 2.0 * s + 2.0 * s * q * p;
}

// Natural logarithm with a small relative error near 1 too, where the built-in one has none to
// promise. Zero, negative, infinite and subnormal arguments go to the built-in one.
float log_exact(float x)
{
    if (!(x >= 1.17549435e-38 && x <= 3.40282347e38)) return log(x);
    int bits = floatBitsToInt(x) - 0x3f3504f3; // 0x3f3504f3: sqrt(1/2)
    int exponent = bits >> 23;
    float m = intBitsToFloat((bits & 0x007fffff) + 0x3f3504f3); // in [sqrt(1/2), sqrt(2))
    float s = (m - 1.0) / (m + 1.0), q = s * s, e = float(exponent);
    float p = 1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0));
    p = 1.0 / 3.0 + q * (1.0 / 5.0 + q * p);
    return e * QN_LN2_HI + (2.0 * s + (2.0 * s * q * p + e * QN_LN2_LO));
}

// 1 / (1 + exp(-z)), relatively exact at both ends.
float sigmoid(float z)
{
    float e = exp_exact(-abs(z));
    return (z >= 0.0 ? 1.0 : e) / (1.0 + e);
}

// log(1 + exp(z)).
float softplus(float z)
{
    return max(z, 0.0) + log1p_unit(exp_exact(-abs(z)));
}

// log(sigmoid(z)).
float log_sigmoid(float z)
{
    return min(z, 0.0) - log1p_unit(exp_exact(-abs(z)));
}

// d softplus(z) / dz = sigmoid(z); d log_sigmoid(z) / dz = sigmoid(-z).
float softplus_grad(float z) { return sigmoid(z); }
float log_sigmoid_grad(float z) { return sigmoid(-z); }

// Hyperbolic tangent, relatively exact near 0: there a fitted odd polynomial, elsewhere exp.
float tanh_exact(float x)
{
    float m = abs(x), q = x * x;
    float p = -0.0538509096 + q * (0.020997179 + q * -0.00609671416);
    p = -0.333333289 + q * (0.133327697 + q * p);
    float t = 1.0 - 2.0 / (exp_exact(2.0 * min(m, 20.0)) + 1.0);
    return m < 0.625 ? x + x * (q * p) : (x < 0.0 ? -t : t);
}

// 1 - erf(m) for m >= 1: exp(-m^2) t R(t), t = 1 / (1 + m / 2), R fitted.
float qn_erfc_tail(float m)
{
    float t = 1.0 / (1.0 + 0.5 * m);
    float p = 0.0925026246 + t * (-0.234426536 + t * 0.0962543706);
    p = 0.246398698 + t * (0.181330457 + t * (0.0543555642 + t * p));
    p = 0.282095164 + t * (0.282106394 + t * p);
    return exp_exact(-m * m) * t * p;
}

// erf(x) for |x| <= 1, fitted.
float qn_erf_near(float x)
{
    float q = x * x;
    float p = -0.0267150542 + q * (0.00492176203 + q * -0.000564805987);
    return x * (1.12837913 + q * (-0.376123438 + q * (0.112803167 + q * p)));
}

// The error function; absolute error below 1.5e-7.
float erf(float x)
{
    float m = min(abs(x), 9.0), t = 1.0 - qn_erfc_tail(max(m, 1.0));
    return m < 1.0 ? qn_erf_near(x) : (x < 0.0 ? -t : t);
}

// The normal distribution function, (1 + erf(x / sqrt(2))) / 2; keeps its lower tail.
float normal_cdf(float x)
{
    float z = clamp(x * QN_SQRT_HALF, -9.0, 9.0), m = abs(z);
    float t = 0.5 * qn_erfc_tail(max(m, 1.0));
    return m < 1.0 ? 0.5 + 0.5 * qn_erf_near(z) : (z < 0.0 ? t : 1.0 - t);
}

// With u = sqrt(2/pi) (x + 0.044715 x^3): (1 + tanh(u)) / 2 = sigmoid(2u), without cancellation.
// Beyond |x| = 20 the sigmoid is 0 or 1; the clamp keeps the cube finite.
float gelu_tanh(float x)
{
    float c = clamp(x, -20.0, 20.0);
    return x * sigmoid(2.0 * QN_SQRT_2_OVER_PI * c * (1.0 + 0.044715 * c * c));
}

float gelu_tanh_grad(float x)
{
    float c = clamp(x, -20.0, 20.0);
    float u2 = 2.0 * QN_SQRT_2_OVER_PI * c * (1.0 + 0.044715 * c * c);
    float du2 = 2.0 * QN_SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044715 * c * c);
    float s = sigmoid(u2);
    return s + c * s * sigmoid(-u2) * du2;
}

float gelu_erf(float x) { return x * normal_cdf(x); }

float gelu_erf_grad(float x)
{
    float c = clamp(x, -20.0, 20.0);
    return normal_cdf(x) + c * QN_INV_SQRT_2PI * exp_exact(-0.5 * c * c);
}

float silu(float x) { return x * sigmoid(x); }

float silu_grad(float x)
{
    float s = sigmoid(x);
    return s + clamp(x, -100.0, 100.0) * s * sigmoid(-x);
}

// Values of qn_activation.
const uint QN_IDENTITY = 0;
const uint QN_GELU_TANH = 1;
const uint QN_GELU_ERF = 2;
const uint QN_SILU = 3;
const uint QN_RELU = 4;
const uint QN_TANH = 5;
const uint QN_SIGMOID = 6;
const uint QN_EXP = 7;
const uint QN_LOG = 8;

// act(x); `kind` should be a specialisation constant, so that one branch is left.
float activate(uint kind, float x)
{
    switch (kind) {
    case QN_GELU_TANH: return gelu_tanh(x);
    case QN_GELU_ERF: return gelu_erf(x);
    case QN_SILU: return silu(x);
    case QN_RELU: return max(x, 0.0);
    case QN_TANH: return tanh_exact(x);
    case QN_SIGMOID: return sigmoid(x);
    case QN_EXP: return exp_exact(x);
    case QN_LOG: return log_exact(x);
    default: return x;
    }
}

// d act(x) / dx.
float activate_grad(uint kind, float x)
{
    switch (kind) {
    case QN_GELU_TANH: return gelu_tanh_grad(x);
    case QN_GELU_ERF: return gelu_erf_grad(x);
    case QN_SILU: return silu_grad(x);
    case QN_RELU: return x > 0.0 ? 1.0 : 0.0;
    case QN_TANH: {
        float t = exp_exact(-2.0 * abs(x)), d = 1.0 + t; // 1 - tanh^2 without cancellation
        return 4.0 * t / (d * d);
    }
    case QN_SIGMOID: return sigmoid(x) * sigmoid(-x);
    case QN_EXP: return exp_exact(x);
    case QN_LOG: return 1.0 / x;
    default: return 1.0;
    }
}

vec4 activate(uint kind, vec4 x)
{
    return vec4(activate(kind, x.x), activate(kind, x.y), activate(kind, x.z), activate(kind, x.w));
}

vec4 activate_grad(uint kind, vec4 x)
{
    return vec4(activate_grad(kind, x.x), activate_grad(kind, x.y), activate_grad(kind, x.z),
                activate_grad(kind, x.w));
}

// Philox 4x32 with 10 rounds: 128 random bits from a 128-bit counter and a 64-bit key. [philox]
uvec4 philox(uvec4 counter, uvec2 key)
{
    [[unroll]] for (int round = 0; round < 10; round++) {
        uint hi0, lo0, hi1, lo1;
        umulExtended(0xD2511F53u, counter.x, hi0, lo0);
        umulExtended(0xCD9E8D57u, counter.z, hi1, lo1);
        counter = uvec4(hi1 ^ counter.y ^ key.x, lo1, hi0 ^ counter.w ^ key.y, lo0);
        key += uvec2(0x9E3779B9u, 0xBB67AE85u);
    }
    return counter;
}

// The generator of every operation that draws: block `index` of the numbers that (seed, stream)
// stands for. Use all four words before taking another block.
uvec4 random4(uint seed, uint stream, uint index)
{
    return philox(uvec4(index, 0u, 0u, 0u), uvec2(seed, stream));
}

// Uniform in (0, 1): the middle of one of 2^23 cells, so neither end is reached.
float uniform_open(uint bits) { return (float(bits >> 9) + 0.5) * (1.0 / 8388608.0); }
vec4 uniform_open(uvec4 bits) { return (vec4(bits >> 9) + 0.5) * (1.0 / 8388608.0); }
