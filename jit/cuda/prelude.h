// What every generated module begins with: types, and the functions that loop IR needs beyond C's operators.
// Vectors of the loop IR lie over the threads of a worker: L threads, of which thread t holds lanes t, t + L, ...
// A vector of N < L lanes is repeated: thread t holds lane t % N.

typedef signed char int8;
typedef unsigned char uint8;
typedef short int16;
typedef unsigned short uint16;
typedef int int32;
typedef unsigned int uint32;
typedef long long int64;
typedef unsigned long long uint64;
typedef float float32;
typedef double float64;

#ifndef INDEX
#define INDEX long long
#endif
typedef INDEX I;  // sizes, loop variables and what is computed from them

#ifndef HYBRID_SIMULATOR
#define SHARED(name) extern __shared__ __align__(64) unsigned char name[]
#define DEVICE __device__ __forceinline__
#endif

#define INF32 __int_as_float(0x7f800000)
#define NAN32 __int_as_float(0x7fc00000)
#define INF64 __longlong_as_double(0x7ff0000000000000LL)
#define NAN64 __longlong_as_double(0x7ff8000000000000LL)

// -- arithmetic

DEVICE float magnitude(float x) { return fabsf(x); }
DEVICE double magnitude(double x) { return fabs(x); }
DEVICE float fused(float a, float b, float c) { return fmaf(a, b, c); }
DEVICE double fused(double a, double b, double c) { return fma(a, b, c); }
DEVICE float root(float x) { return sqrtf(x); }
DEVICE double root(double x) { return sqrt(x); }
DEVICE float down(float x) { return floorf(x); }
DEVICE double down(double x) { return floor(x); }
DEVICE float up(float x) { return ceilf(x); }
DEVICE double up(double x) { return ceil(x); }
DEVICE float towards_zero(float x) { return truncf(x); }
DEVICE double towards_zero(double x) { return trunc(x); }
DEVICE float nearest(float x) { return rintf(x); }
DEVICE double nearest(double x) { return rint(x); }
DEVICE float remainder_of(float a, float b) { return fmodf(a, b); }
DEVICE double remainder_of(double a, double b) { return fmod(a, b); }
DEVICE float with_sign(float a, float b) { return copysignf(a, b); }
DEVICE double with_sign(double a, double b) { return copysign(a, b); }

// minimum and maximum: NaN if either is; of equal numbers the second
template <class T> DEVICE T minimum(T a, T b) { return a < b || a != a ? a : b; }
template <class T> DEVICE T maximum(T a, T b) { return a > b || a != a ? a : b; }
template <class T> DEVICE T sign_of(T x) { return x > 0 ? (T)1 : x < 0 ? (T)-1 : x != x ? x : (T)0; }

template <class T> DEVICE T floor_remainder(T a, T b) {
  const T rest = remainder_of(a, b);
  if (b == 0) return rest;
  const T moved = rest != 0 && (b < 0) != (rest < 0) ? rest + b : rest;
  return moved == 0 ? with_sign((T)0, b) : moved;
}

template <class T> DEVICE T floor_quotient(T a, T b) {  // exact multiples of b are divided, as in NumPy
  if (b == 0) return a / b;
  const T rest = remainder_of(a, b);
  T quotient = (a - rest) / b;
  if (rest != 0 && (b < 0) != (rest < 0)) quotient -= 1;
  if (quotient == 0) return with_sign((T)0, a / b);
  const T floor = down(quotient);
  return quotient - floor > (T)0.5 ? floor + 1 : floor;
}

// floor division of integers; division by zero gives 0, and the least number divided by -1 itself
template <class T> DEVICE T floor_div(T a, T b) {
  if (b == 0) return 0;
  if ((T)-1 < 0 && b == (T)-1) return (T)(0 - (uint64)a);
  const T quotient = a / b, rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? quotient - 1 : quotient;
}
template <class T> DEVICE T floor_mod(T a, T b) {
  if (b == 0 || ((T)-1 < 0 && b == (T)-1)) return 0;
  const T rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}
// the same of numbers that are not negative
DEVICE int32 natural_div(int32 a, int32 b) { return b ? (int32)((uint32)a / (uint32)b) : 0; }
DEVICE int32 natural_mod(int32 a, int32 b) { return b ? (int32)((uint32)a % (uint32)b) : 0; }
DEVICE int64 natural_div(int64 a, int64 b) { return b ? (int64)((uint64)a / (uint64)b) : 0; }
DEVICE int64 natural_mod(int64 a, int64 b) { return b ? (int64)((uint64)a % (uint64)b) : 0; }

template <class T> DEVICE T shift_left(T a, T b) {  // by the width or more: 0
  return (uint64)b < 8 * sizeof(T) ? (T)((uint64)a << (int)b) : (T)0;
}
template <class T> DEVICE T shift_right(T a, T b) {  // by the width or more: the sign
  return (uint64)b < 8 * sizeof(T) ? (T)(a >> (int)b) : (T)(a < 0 ? -1 : 0);
}
template <class T> DEVICE T power(T a, T b) {  // modulo the width, for b >= 0
  uint64 result = 1, square = (uint64)a;
  for (uint64 rest = (uint64)b & ~0ull >> (64 - 8 * sizeof(T)); rest; rest >>= 1, square *= square)
    if (rest & 1) result *= square;
  return (T)result;
}

// -- float16 and bfloat16: 16-bit patterns in memory, float in registers

#ifndef HYBRID_SIMULATOR
DEVICE float load_float16(uint16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
}
DEVICE uint16 store_float16(float x) {
  uint16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
DEVICE uint16 store_float16(double x) {
  uint16 y;
  asm("cvt.rn.f16.f64 %0, %1;" : "=h"(y) : "d"(x));
  return y;
}
DEVICE uint16 store_bfloat16(float x) {
  uint16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
#endif
DEVICE uint16 store_bfloat16(double x) { return store_bfloat16((float)x); }
DEVICE float load_bfloat16(uint16 x) { return __uint_as_float((uint32)x << 16); }
template <class T> DEVICE float round_float16(T x) { return load_float16(store_float16(x)); }
template <class T> DEVICE float round_bfloat16(T x) { return load_bfloat16(store_bfloat16(x)); }

// -- lanes of other threads. Every thread of the worker must come here.

template <int L> DEVICE void synchronize() {
  if (L == 32) __syncwarp();
  else __syncthreads();
}

// what thread `source` of the worker holds
template <int L, class T> DEVICE T from_lane(T x, int source) {
  if (L == 32) return (T)__shfl_sync(0xffffffffu, x, source);
  SHARED(memory);  // which begins with 8 bytes for each thread
  __syncthreads();
  ((T *)memory)[threadIdx.x] = x;
  __syncthreads();
  return ((T *)memory)[source];
}
template <int L> DEVICE bool from_lane(bool x, int source) { return from_lane<L>((int32)x, source); }
template <int L> DEVICE int8 from_lane(int8 x, int source) { return (int8)from_lane<L>((int32)x, source); }
template <int L> DEVICE uint8 from_lane(uint8 x, int source) { return (uint8)from_lane<L>((int32)x, source); }
template <int L> DEVICE int16 from_lane(int16 x, int source) { return (int16)from_lane<L>((int32)x, source); }
template <int L> DEVICE uint16 from_lane(uint16 x, int source) { return (uint16)from_lane<L>((int32)x, source); }

// N lanes (at most L) folded: lower half with upper half, until one is left, which every thread gets.
template <int L, int N, class T, class F> DEVICE T reduce(T x, F combine) {
  if (L > 32 && N > 32) {
    SHARED(memory);
    T parts[L > 32 ? L / 32 : 1];
    __syncthreads();
    ((T *)memory)[threadIdx.x] = x;
    __syncthreads();
#pragma unroll
    for (int k = 0; k < N / 32; k++) parts[k] = ((T *)memory)[k * 32 + threadIdx.x % 32];
#pragma unroll
    for (int half = N / 64; half > 0; half /= 2)
#pragma unroll
      for (int k = 0; k < half; k++) parts[k] = combine(parts[k], parts[k + half]);
    x = parts[0];
  }
#pragma unroll
  for (int half = (N < 32 ? N : 32) / 2; half > 0; half /= 2) {
    const T other = from_lane<32>(x, (threadIdx.x % 32 + half) % 32);
    x = combine(x, other);
  }
  return from_lane<32>(x, 0);
}
// The same where combine(a, b) is combine(b, a) to the bit, so that both threads of a pair compute it.
template <int L, int N, class T, class F> DEVICE T reduce_symmetric(T x, F combine) {
  if (L > 32 && N > 32) return reduce<L, N>(x, combine);
#pragma unroll
  for (int half = (N < 32 ? N : 32) / 2; half > 0; half /= 2) x = combine(x, from_lane<32>(x, threadIdx.x % 32 ^ half));
  return x;
}
template <int L> DEVICE bool any(bool x) { return L == 32 ? __any_sync(0xffffffffu, x) : __syncthreads_or(x); }
template <int L> DEVICE bool all(bool x) { return L == 32 ? __all_sync(0xffffffffu, x) : __syncthreads_and(x); }

// whether no later lane that is on goes to the same place; lanes are the threads of one warp
DEVICE bool last_of_place(int64 place, bool on) {
  const uint32 same = __match_any_sync(0xffffffffu, (uint64)(on ? place : -1 - (int64)threadIdx.x));
  return on && (same >> threadIdx.x % 32) == 1;
}
