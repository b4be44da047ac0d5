// CUDA on one thread of the host: what generated modules use of it, for g++ or clang++ on x86-64 and AArch64.
//
// Every thread of a block is a fiber with a stack of its own. It runs until it meets a barrier (a shuffle is one) or ends;
// then the next one runs, in an order that the caller chooses: forward, backward, or shuffled. When all threads of a warp (or
// block) have come to the barrier, they go on. A barrier that some of them never reach is an error, not a hang.
// Shared memory begins as NaN. The caller lends memory for the stacks of 1024 threads.

#define HYBRID_SIMULATOR
#define __global__
#define __device__
#define __launch_bounds__(...)
#define DEVICE static inline __attribute__((always_inline))
#define SHARED(name) unsigned char *const name = simulator::shared

#define fabsf __builtin_fabsf
#define fabs __builtin_fabs
#define fmaf __builtin_fmaf
#define fma __builtin_fma
#define sqrtf __builtin_sqrtf
#define sqrt __builtin_sqrt
#define floorf __builtin_floorf
#define floor __builtin_floor
#define ceilf __builtin_ceilf
#define ceil __builtin_ceil
#define truncf __builtin_truncf
#define trunc __builtin_trunc
#define rintf __builtin_rintf
#define rint __builtin_rint
#define fmodf __builtin_fmodf
#define fmod __builtin_fmod
#define copysignf __builtin_copysignf
#define copysign __builtin_copysign

struct Dim3 { int x, y, z; };
static Dim3 threadIdx, blockIdx, blockDim, gridDim;

extern "C" {
void *memset(void *, int, unsigned long);
int snprintf(char *, unsigned long, const char *, ...);
__attribute__((visibility("hidden"))) void hybrid_simulator_switch(void **from, void *to);
__attribute__((visibility("hidden"))) void hybrid_simulator_entry();
}

// Keep what a call must keep, put the stack pointer into *from, take `to` for it.
#if defined(__x86_64__)
asm(R"(
.text
.local hybrid_simulator_switch
.type hybrid_simulator_switch, @function
hybrid_simulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.local hybrid_simulator_entry
hybrid_simulator_entry:
  xorl %ebp, %ebp
  callq *%rbx
  ud2
)");
enum { SAVED = 7, ENTRY = 6, FUNCTION = 4 };  // words on a new fiber's stack: r15 r14 r13 r12 rbx rbp, return address
#elif defined(__aarch64__)
asm(R"(
.text
.local hybrid_simulator_switch
.type hybrid_simulator_switch, %function
hybrid_simulator_switch:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.local hybrid_simulator_entry
hybrid_simulator_entry:
  mov x29, xzr
  blr x19
  brk #1
)");
enum { SAVED = 20, ENTRY = 11, FUNCTION = 0 };
#else
#error "the simulator knows x86-64 and AArch64"
#endif

namespace simulator {

typedef unsigned long long word;
enum State { READY, WARP, BLOCK, DONE };
enum { THREADS = 1024, STACK = 256 << 10, SHARED_BYTES = 256 << 10 };

struct Fiber {
  void *stack;   // the stack pointer while it waits
  int x, y;
  State state;
  const void *where;  // the kind of barrier it waits at
  word sent[2];
};

static Fiber fibers[THREADS];
static Fiber *current;
static void *scheduler;
static unsigned char shared[SHARED_BYTES] __attribute__((aligned(64)));
static int round_of_warp[THREADS / 32], round_of_block;
static void (*body)(const word *);
static const word *arguments;
static char message[256];

static void enter() {
  body(arguments);
  current->state = DONE;
  hybrid_simulator_switch(&current->stack, scheduler);
}

static void start(Fiber &f, char *stack) {
  word *top = (word *)(stack + STACK) - SAVED;
  memset(top, 0, SAVED * sizeof(word));
  top[ENTRY] = (word)(void *)hybrid_simulator_entry;
  top[FUNCTION] = (word)(void *)enter;
  f.stack = top;
  f.state = READY;
}

static void wait(State state, const void *where) {
  current->state = state;
  current->where = where;
  hybrid_simulator_switch(&current->stack, scheduler);
}

// 0 ... n-1 in one of three kinds of order: 0 forward, 1 backward, others shuffled
static word chance;
static void shuffle(int *order, int n, int kind) {
  for (int i = 0; i < n; i++) order[i] = kind == 1 ? n - 1 - i : i;
  if (kind > 1)
    for (int i = n - 1; i > 0; i--) {
      chance = chance * 6364136223846793005ull + 1442695040888963407ull;
      const int j = (int)((chance >> 33) % (i + 1)), k = order[i];
      order[i] = order[j];
      order[j] = k;
    }
}

static const char *name(State s) { return s == DONE ? "has ended" : s == WARP ? "waits for its warp" : "waits for the block"; }

static bool disagree(const Fiber &a, const Fiber &b) {
  snprintf(message, sizeof message, "block %d: thread (%d, %d) %s%s while thread (%d, %d) %s", blockIdx.x, a.x, a.y,
           name(a.state), a.state == b.state ? " at another place" : "", b.x, b.y, name(b.state));
  return false;
}

// Run a warp until its threads have ended or wait for the block.
static bool run_warp(Fiber *warp, int n, int number, int kind) {
  int order[32];
  for (;;) {
    shuffle(order, n, kind);
    for (int i = 0; i < n; i++) {
      Fiber &f = warp[order[i]];
      if (f.state != READY) continue;
      current = &f;
      threadIdx.x = f.x;
      threadIdx.y = f.y;
      hybrid_simulator_switch(&scheduler, f.stack);
    }
    for (int i = 1; i < n; i++)
      if (warp[i].state != warp[0].state || (warp[0].state != DONE && warp[i].where != warp[0].where))
        return disagree(warp[0], warp[i]);
    if (warp[0].state != WARP) return true;
    round_of_warp[number] ^= 1;
    for (int i = 0; i < n; i++) warp[i].state = READY;
  }
}

static bool run_block(int kind, char *stacks) {
  const int n = blockDim.x * blockDim.y, warps = (n + 31) / 32;
  int order[THREADS / 32];
  for (int i = 0; i < n; i++) {
    fibers[i].x = i % blockDim.x;
    fibers[i].y = i / blockDim.x;
    start(fibers[i], stacks + (unsigned long)i * STACK);
  }
  for (;;) {
    shuffle(order, warps, kind);
    for (int i = 0; i < warps; i++) {
      const int first = 32 * order[i], many = n - first < 32 ? n - first : 32;
      if (!run_warp(fibers + first, many, order[i], kind)) return false;
    }
    for (int i = 1; i < n; i++)
      if (fibers[i].state != fibers[0].state || (fibers[0].state != DONE && fibers[i].where != fibers[0].where))
        return disagree(fibers[0], fibers[i]);
    if (fibers[0].state == DONE) return true;
    round_of_block ^= 1;
    for (int i = 0; i < n; i++) fibers[i].state = READY;
  }
}

static const char *launch(void (*kernel)(const word *), const word *values, const int *grid, const int *block, long shared_bytes,
                          int kind, char *stacks) {
  if (block[0] < 1 || block[1] < 1 || block[0] * block[1] > THREADS) return "a block has 1 to 1024 threads";
  if (shared_bytes < 0 || shared_bytes > SHARED_BYTES) return "shared memory of a block: at most 256 KB";
  body = kernel;
  arguments = values;
  blockDim = {block[0], block[1], 1};
  gridDim = {grid[0], grid[1], 1};
  chance = kind;
  for (int k = 0; k < grid[0]; k++) {
    blockIdx = {kind == 1 ? grid[0] - 1 - k : k, 0, 0};
    memset(shared, 0xff, shared_bytes);
    if (!run_block(kind, stacks)) return message;
  }
  return 0;
}

template <class T> T bits_to(word w) {
  T x;
  __builtin_memcpy(&x, &w, sizeof x);
  return x;
}
template <class T> word bits_of(T x) {
  word w = 0;
  __builtin_memcpy(&w, &x, sizeof x);
  return w;
}

// What thread `source` of this warp (or block) passes; the places alternate, so that none is written while it is read.
template <class T> T exchange(T x, int source, State state) {
  static const char here = 0;
  Fiber *const first = state == WARP ? fibers + (current - fibers) / 32 * 32 : fibers;
  const int round = state == WARP ? round_of_warp[(current - fibers) / 32] : round_of_block;
  current->sent[round] = bits_of(x);
  wait(state, &here);
  return bits_to<T>(first[source].sent[round]);
}

template <int... n> struct Numbers {};
template <int n, int... rest> struct Count : Count<n - 1, n - 1, rest...> {};
template <int... rest> struct Count<0, rest...> { typedef Numbers<rest...> type; };

template <class... A, int... n> static void call(void (*kernel)(A...), const word *values, Numbers<n...>) {
  kernel(bits_to<A>(values[n])...);
}
template <class... A> static void call(void (*kernel)(A...), const word *values) {
  call(kernel, values, typename Count<sizeof...(A)>::type());
}

}  // namespace simulator

#define HYBRID_SIMULATED(symbol)                                                                                       \
  extern "C" __attribute__((visibility("default"))) const char *hybrid_simulate_##symbol(                              \
      const unsigned long long *values, const int *grid, const int *block, long shared_bytes, int kind, char *stacks) {  \
    return simulator::launch([](const simulator::word *v) { simulator::call(symbol, v); }, values, grid, block,        \
                             shared_bytes, kind, stacks);                                                              \
  }

static const char warp_barrier = 0, block_barrier = 0;
DEVICE void __syncwarp() { simulator::wait(simulator::WARP, &warp_barrier); }
DEVICE void __syncthreads() { simulator::wait(simulator::BLOCK, &block_barrier); }
template <class T> DEVICE T __shfl_sync(unsigned, T x, int source) {
  return simulator::exchange(x, source % 32, simulator::WARP);
}
static unsigned __ballot_sync(unsigned, bool x) {
  unsigned found = 0;
  simulator::exchange((int)x, 0, simulator::WARP);
  simulator::Fiber *const warp = simulator::fibers + (simulator::current - simulator::fibers) / 32 * 32;
  const int round = 1 ^ simulator::round_of_warp[(simulator::current - simulator::fibers) / 32];
  for (int i = 0; i < 32; i++) found |= (unsigned)warp[i].sent[round] << i;
  return found;
}
DEVICE bool __any_sync(unsigned mask, bool x) { return __ballot_sync(mask, x) != 0; }
DEVICE bool __all_sync(unsigned mask, bool x) { return __ballot_sync(mask, x) == 0xffffffffu; }
static int __syncthreads_or(int x) {
  simulator::exchange(x, 0, simulator::BLOCK);
  int found = 0;
  for (int i = 0; i < blockDim.x * blockDim.y; i++) found |= (int)simulator::fibers[i].sent[1 ^ simulator::round_of_block];
  return found != 0;
}
static int __syncthreads_and(int x) { return !__syncthreads_or(!x); }
static unsigned __match_any_sync(unsigned, unsigned long long x) {
  unsigned found = 0;
  simulator::exchange(x, 0, simulator::WARP);
  simulator::Fiber *const warp = simulator::fibers + (simulator::current - simulator::fibers) / 32 * 32;
  const int round = 1 ^ simulator::round_of_warp[(simulator::current - simulator::fibers) / 32];
  for (int i = 0; i < 32; i++) found |= (unsigned)(warp[i].sent[round] == x) << i;
  return found;
}

DEVICE float __int_as_float(int x) { return simulator::bits_to<float>((unsigned)x); }
DEVICE float __uint_as_float(unsigned x) { return simulator::bits_to<float>(x); }
DEVICE int __float_as_int(float x) { return (int)simulator::bits_of(x); }
DEVICE unsigned __float_as_uint(float x) { return (unsigned)simulator::bits_of(x); }
DEVICE double __longlong_as_double(long long x) { return simulator::bits_to<double>((unsigned long long)x); }
DEVICE long long __double_as_longlong(double x) { return (long long)simulator::bits_of(x); }

// The conversions that the GPU has instructions for: to nearest, ties to even.
static float load_float16(unsigned short x) {
  const unsigned size = x & 0x7fffu, sign = (x & 0x8000u) << 16;
  if (size >= 0x7c00u) return __uint_as_float(sign | 0x7f800000u | size << 13);
  return __uint_as_float(sign | __float_as_uint(__uint_as_float(size << 13) * 0x1p112f));
}
static unsigned short store_float16(double x) {
  const unsigned short sign = __builtin_signbit(x) ? 0x8000 : 0;
  const double size = fabs(x);
  if (size != size) return 0x7e00;
  if (size >= 65520.0) return sign | 0x7c00;
  if (size < 0x1p-14) return sign | (unsigned short)rint(size * 0x1p24);  // units of the least subnormal
  const unsigned long long bits = simulator::bits_of(size), rest = bits & 0x3ffffffffffull;
  unsigned long long kept = bits >> 42;
  kept += rest > 0x20000000000ull || (rest == 0x20000000000ull && (kept & 1));
  return sign | (unsigned short)(kept - (1008ull << 10));
}
static unsigned short store_float16(float x) { return store_float16((double)x); }
static unsigned short store_bfloat16(float x) {
  const unsigned bits = __float_as_uint(x);
  if (x != x) return (bits | 0x400000u) >> 16;
  return (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}
