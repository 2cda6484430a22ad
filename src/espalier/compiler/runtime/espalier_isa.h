/* One vector type for every instruction set: the only file that knows which one is compiled for.
 *
 * The compiler's predefined macros choose it, hence its flags do: AVX-512 (16 floats), AVX2 with FMA (8), else 16-byte vectors (4), which
 * are SSE2 on x86-64 and NEON on aarch64. Everything is static inline, and nothing calls libm.
 *
 * NaN: where a function takes one number, a NaN goes in and comes out. es_max and es_min keep a NaN of their first operand only, so write
 * es_max(x, zero). Infinities give what the limit gives, but for x times what goes to 0: es_gelu, es_gelu_tanh, es_silu and es_hardswish
 * of minus infinity are NaN, as PyTorch's are; so is its es_leaky_relu with slope 0.
 */
#ifndef ESPALIER_ISA_H
#define ESPALIER_ISA_H

#include <stdint.h>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define ES_AVX512 1
#define ES_LANES 16
#define ES_ISA "avx512"
#include <immintrin.h>
#elif defined(__AVX2__) && defined(__FMA__)
#define ES_AVX2 1
#define ES_LANES 8
#define ES_ISA "avx2"
#include <immintrin.h>
#else
#define ES_GENERIC 1
#define ES_LANES 4
#define ES_ISA "generic"
#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
#endif

#define ES_VECTOR_BYTES (4 * ES_LANES)

typedef float es_v __attribute__((vector_size(ES_VECTOR_BYTES), may_alias));
typedef int32_t es_i __attribute__((vector_size(ES_VECTOR_BYTES), may_alias));
typedef uint32_t es_u __attribute__((vector_size(ES_VECTOR_BYTES), may_alias));
typedef float es_v_anywhere __attribute__((vector_size(ES_VECTOR_BYTES), aligned(4), may_alias)); /* at any float's address */

#define ES_INLINE static inline __attribute__((always_inline, unused))

/* ---- Memory. es_load and es_store want an address that is a multiple of ES_VECTOR_BYTES. */

ES_INLINE es_v es_load(const float *p) { return *(const es_v *)p; }
ES_INLINE es_v es_loadu(const float *p) { return *(const es_v_anywhere *)p; }
ES_INLINE void es_store(float *p, es_v x) { *(es_v *)p = x; }
ES_INLINE void es_storeu(float *p, es_v x) { *(es_v_anywhere *)p = x; }

ES_INLINE es_v es_splat(float x) {
#if defined(ES_AVX512)
    return _mm512_set1_ps(x);
#elif defined(ES_AVX2)
    return _mm256_set1_ps(x);
#else
    return (es_v){x, x, x, x};
#endif
}

ES_INLINE es_v es_zero(void) { return (es_v){0.0f}; }

#if defined(ES_AVX2)
ES_INLINE __m256i es_first(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
#endif

/* The first n floats, 0 <= n <= ES_LANES, zeros behind them; nothing is read past them. */
ES_INLINE es_v es_load_first(const float *p, int n) {
#if defined(ES_AVX512)
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1u), p);
#elif defined(ES_AVX2)
    return _mm256_maskload_ps(p, es_first(n));
#else
    es_v x = es_zero();
    for (int lane = 0; lane < n; ++lane) x[lane] = p[lane];
    return x;
#endif
}

/* Writes the first n lanes, 0 <= n <= ES_LANES, and nothing past them. */
ES_INLINE void es_store_first(float *p, es_v x, int n) {
#if defined(ES_AVX512)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1u), x);
#elif defined(ES_AVX2)
    _mm256_maskstore_ps(p, es_first(n), x);
#else
    for (int lane = 0; lane < n; ++lane) p[lane] = x[lane];
#endif
}

#if ES_LANES == 16
#define ES_EACH_LANE(f) f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7), f(8), f(9), f(10), f(11), f(12), f(13), f(14), f(15)
#elif ES_LANES == 8
#define ES_EACH_LANE(f) f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7)
#else
#define ES_EACH_LANE(f) f(0), f(1), f(2), f(3)
#endif
#define ES_LANE(lane) (lane)
#define ES_HALF(lane) (lane) / 2
#define ES_QUARTER(lane) (lane) / 4
#ifdef __clang__
#define ES_PICK(x, f) __builtin_shufflevector(x, x, ES_EACH_LANE(f))
#else
#define ES_PICK(x, f) __builtin_shuffle(x, (es_i){ES_EACH_LANE(f)})
#endif

/* The first half, or quarter, of a vector of floats, each twice, or four times; nothing is read past them. */
ES_INLINE es_v es_load_repeat2(const float *p) { return ES_PICK(es_load_first(p, ES_LANES / 2), ES_HALF); }
ES_INLINE es_v es_load_repeat4(const float *p) { return ES_PICK(es_load_first(p, ES_LANES / 4), ES_QUARTER); }

/* ---- Arithmetic. + - * / work on es_v as they do on float; so do < > ==, which give an es_i of all ones or all zeros a lane. */

ES_INLINE es_v es_fma(es_v a, es_v b, es_v c) { return a * b + c; } /* one instruction under -ffp-contract=fast, where there is one */

ES_INLINE es_v es_select(es_i where, es_v yes, es_v no) { return (es_v)((where & (es_i)yes) | (~where & (es_i)no)); }

/* The first n lanes of x, and a number in those behind. */
ES_INLINE es_v es_filled(es_v x, int n, float number) { return es_select((es_i){ES_EACH_LANE(ES_LANE)} < n, x, es_splat(number)); }

ES_INLINE es_v es_max(es_v a, es_v b) {
#if defined(ES_AVX512)
    return _mm512_max_ps(b, a); /* x86 gives its second operand where one is a NaN */
#elif defined(ES_AVX2)
    return _mm256_max_ps(b, a);
#elif defined(__SSE2__)
    return _mm_max_ps(b, a);
#else
    return es_select(b > a, b, a);
#endif
}

ES_INLINE es_v es_min(es_v a, es_v b) {
#if defined(ES_AVX512)
    return _mm512_min_ps(b, a);
#elif defined(ES_AVX2)
    return _mm256_min_ps(b, a);
#elif defined(__SSE2__)
    return _mm_min_ps(b, a);
#else
    return es_select(b < a, b, a);
#endif
}

/* The larger; a NaN of either comes out. */
ES_INLINE es_v es_larger(es_v a, es_v b) { return es_select(b != b, b, es_max(a, b)); }

ES_INLINE es_v es_clamp(es_v x, float low, float high) { return es_min(es_max(x, es_splat(low)), es_splat(high)); }
ES_INLINE es_v es_abs(es_v x) { return (es_v)((es_i)x & 0x7fffffff); }
ES_INLINE es_v es_copysign(es_v size, es_v sign) { return (es_v)(((es_i)size & 0x7fffffff) | ((es_i)sign & (int32_t)0x80000000)); }

ES_INLINE es_v es_sqrt(es_v x) {
#if defined(ES_AVX512)
    return _mm512_sqrt_ps(x);
#elif defined(ES_AVX2)
    return _mm256_sqrt_ps(x);
#elif defined(__SSE2__)
    return _mm_sqrt_ps(x);
#elif defined(__aarch64__)
    return (es_v)vsqrtq_f32((float32x4_t)x);
#else
    for (int lane = 0; lane < ES_LANES; ++lane) x[lane] = __builtin_sqrtf(x[lane]);
    return x;
#endif
}

/* ---- Over the lanes, in pairs, hence in the same order on every call. */

ES_INLINE float es_sum(es_v x) {
#if defined(ES_AVX512)
    return _mm512_reduce_add_ps(x);
#elif defined(ES_AVX2)
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
#else
    return (x[0] + x[2]) + (x[1] + x[3]);
#endif
}

/* The largest lane; which is given where one is a NaN is left open. */
ES_INLINE float es_max_lane(es_v x) {
#if defined(ES_AVX512)
    return _mm512_reduce_max_ps(x);
#elif defined(ES_AVX2)
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
#else
    float low = x[0] > x[1] ? x[0] : x[1], high = x[2] > x[3] ? x[2] : x[3];
    return low > high ? low : high;
#endif
}

/* ---- Functions. Their coefficients are minimax fits, which the tests check against double precision. */

/* 1 / x within two ulps, for x that is positive, no denormal, and may be infinite: one Newton step, or a division. */
ES_INLINE es_v es_reciprocal(es_v x) {
#if defined(ES_AVX512)
    es_v near = _mm512_rcp14_ps(x);
    es_v off = es_max(es_splat(-1.0f), 1.0f - x * near); /* of infinity, whose near is 0, it is a NaN: then -1, which leaves 0 */
    return es_fma(near, off, near);
#else
    return 1.0f / x;
#endif
}

/* c[0] + c[1] x + c[2] x^2 + ... */
ES_INLINE es_v es_polynomial(es_v x, const float *c, int degree) {
    es_v p = es_splat(c[degree]);
    for (int power = degree - 1; power >= 0; --power) p = es_fma(p, x, es_splat(c[power]));
    return p;
}
#define ES_POLYNOMIAL(x, ...) es_polynomial(x, (const float[]){__VA_ARGS__}, (int)(sizeof((float[]){__VA_ARGS__}) / sizeof(float)) - 1)

#define ES_TO_NEAREST 12582912.0f /* 1.5 * 2^23: adding it leaves the nearest whole number in the low bits */
#define ES_BIAS 127.0f            /* with this on top, shifting them by 23 makes 2^k of k, infinity for k = 128 */
ES_INLINE es_v es_power_of_two(es_v shifted) { return (es_v)((es_u)shifted << 23); }

/* x - k log(2), log(2) in two parts; k times the first is exact. */
ES_INLINE es_v es_reduced(es_v x, es_v k) { return es_fma(k, es_splat(2.12194440e-4f), es_fma(k, es_splat(-0.693359375f), x)); }

/* exp(r) - 1 for |r| <= log(2)/2, fitted to 3.2e-9. */
ES_INLINE es_v es_expm1_near_zero(es_v r) {
    es_v p = ES_POLYNOMIAL(r, 0.5f, 1.66665171e-1f, 4.16662004e-2f, 8.36909627e-3f, 1.39508497e-3f);
    return es_fma(p * r, r, r);
}

/* 2^k exp(r), where x = k log(2) + r and |r| <= log(2)/2; relative error under 2e-7 wherever the result is a normal number. */
ES_INLINE es_v es_exp(es_v x) {
    x = es_clamp(x, -104.0f, 89.0f); /* beyond these fp32 has only 0 and infinity, and so has what follows */
#if defined(ES_AVX512)
    es_v k = _mm512_roundscale_ps(x * 1.44269504f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return _mm512_scalef_ps(1.0f + es_expm1_near_zero(es_reduced(x, k)), k);
#else
    es_v shifted = es_fma(x, es_splat(1.44269504f), es_splat(ES_TO_NEAREST));
    es_v p = 1.0f + es_expm1_near_zero(es_reduced(x, shifted - ES_TO_NEAREST));
    es_i whole = (es_i)((es_u)shifted - 0x4b400000u); /* k as integers */
    es_i half = whole >> 1;                           /* 2^k in two steps: k may be 128, or below the normal numbers */
    es_v first = (es_v)((es_u)(half + 127) << 23);
    es_v second = (es_v)((es_u)((es_u)whole - (es_u)half + 127u) << 23);
    return p * first * second;
#endif
}

/* 1 / (1 + exp(-x)); 0 below -88.4, where exp(-x) nears infinity. */
ES_INLINE es_v es_sigmoid(es_v x) {
    x = es_clamp(x, -89.0f, 87.0f);
    es_v shifted = es_fma(x, es_splat(-1.44269504f), es_splat(ES_TO_NEAREST + ES_BIAS));
    es_v p = 1.0f + es_expm1_near_zero(es_reduced(-x, shifted - (ES_TO_NEAREST + ES_BIAS)));
    return es_reciprocal(es_fma(p, es_power_of_two(shifted), es_splat(1.0f)));
}

/* e / (e + 2), e = exp(2 |x|) - 1: nothing cancels near zero; 1 from 10 on. */
ES_INLINE es_v es_tanh(es_v x) {
    es_v twice = es_min(es_abs(x + x), es_splat(20.0f));
    es_v shifted = es_fma(twice, es_splat(1.44269504f), es_splat(ES_TO_NEAREST + ES_BIAS)), power = es_power_of_two(shifted);
    es_v r = es_fma(shifted - (ES_TO_NEAREST + ES_BIAS), es_splat(-0.693147181f), twice);
    es_v e = es_fma(es_expm1_near_zero(r), power, power - 1.0f);
    return es_copysign(e / (e + 2.0f), x);
}

/* x p(x^2) / q(x^2), fitted for |x| <= 3.92 to 1.9e-8 of it. With x^2 held there it goes on, and meets the bound. */
ES_INLINE es_v es_erf(es_v x) {
    es_v square = es_min(x * x, es_splat(15.3664f));
    es_v p = ES_POLYNOMIAL(square, 1.12837915f, 1.90405287e-1f, 5.27485568e-2f, 3.76556456e-3f, 2.84881278e-4f, 2.05009217e-6f);
    es_v q = ES_POLYNOMIAL(square, 1.0f, 5.02075033e-1f, 1.14108615e-1f, 1.49691105e-2f, 1.16252238e-3f, 3.80916915e-5f);
    return es_clamp(x * p / q, -1.0f, 1.0f);
}

/* P(normal > |x|), the eighth power of a polynomial: |x| times it is 2.2e-8 off. Beyond 7.2 it is negative, the tail 0. */
ES_INLINE es_v es_normal_tail(es_v x) {
    es_v root = ES_POLYNOMIAL(es_abs(x), 9.17003992e-1f, -9.14565337e-2f, -3.19334600e-2f, -6.59154507e-4f, 1.48919257e-3f,
                              4.40794739e-5f, -6.37329921e-5f, 8.11522574e-6f, -3.42446233e-7f);
    root = es_max(root, es_zero());
    es_v square = root * root, fourth = square * square;
    return fourth * fourth;
}

/* x P(normal <= x), to 2.5e-7: absolute, and relative where the result is above 1. For x < 0 the tail itself is the factor; the tests bound
 * the relative error to 5e-6 down to -3. Further out it grows, to all of the result, which is 0 from -7.2 on. */
ES_INLINE es_v es_gelu(es_v x) {
    es_v tail = es_normal_tail(x);
    return x * es_select(x < 0.0f, tail, 1.0f - tail);
}

/* The approximation with tanh: x/2 (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3). */
ES_INLINE es_v es_gelu_tanh(es_v x) { return x * es_sigmoid(1.59576912f * es_fma(x * x * x, es_splat(0.044715f), x)); }

ES_INLINE es_v es_silu(es_v x) { return x * es_sigmoid(x); }
ES_INLINE es_v es_relu(es_v x) { return es_max(x, es_zero()); }
ES_INLINE es_v es_leaky_relu(es_v x, float slope) { return es_max(x, es_zero()) + slope * es_min(x, es_zero()); }
ES_INLINE es_v es_relu6(es_v x) { return es_clamp(x, 0.0f, 6.0f); }
ES_INLINE es_v es_hardsigmoid(es_v x) { return es_clamp(x + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f); }
ES_INLINE es_v es_hardswish(es_v x) { return x * es_hardsigmoid(x); }

#endif
