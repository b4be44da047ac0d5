"""The native runner's pool of workers as LLVM IR: the parts of one launch, dealt to threads (see `jit.runtime`)."""

from __future__ import annotations

import platform
import sys

__all__ = ["JOB", "pool"]

# How to spin, by processor: a pause; a clock and how many of its ticks a thread is patient before it goes to sleep.
_X86 = """
declare void @llvm.x86.sse2.pause()
declare i64 @llvm.readcyclecounter()
define internal i64 @hybrid.clock() {
  call void @llvm.x86.sse2.pause()
  %now = call i64 @llvm.readcyclecounter()
  ret i64 %now
}
define internal i64 @hybrid.patience() {
  ret i64 150000 ; about 50 microseconds
}
"""
_ARM = """
declare void @llvm.aarch64.hint(i32)
declare i64 @llvm.read_volatile_register.i64(metadata)
define internal i64 @hybrid.clock() {
  call void @llvm.aarch64.hint(i32 1)
  %now = call i64 @llvm.read_volatile_register.i64(metadata !0)
  ret i64 %now
}
define internal i64 @hybrid.patience() {
  %frequency = call i64 @llvm.read_volatile_register.i64(metadata !1)
  %ticks = udiv i64 %frequency, 20000 ; 50 microseconds
  ret i64 %ticks
}
!0 = !{!"cntvct_el0"}
!1 = !{!"cntfrq_el0"}
"""
_SPINNING = {"x86_64": _X86, "amd64": _X86, "aarch64": _ARM, "arm64": _ARM}
_FUTEX = {"x86_64": 202, "amd64": 202, "aarch64": 98, "arm64": 98}  # system call numbers
JOB = """
%job = type { ptr, ptr, ptr, i64, i64, ptr, i64 } ; kernel, buffers, parameters, tasks, parts, scratch, stride

define internal void @hybrid.part(ptr %job, i64 %t, i64 %me) {
  %kernel = load ptr, ptr %job
  %buffers.at = getelementptr %job, ptr %job, i64 0, i32 1
  %buffers = load ptr, ptr %buffers.at
  %parameters.at = getelementptr %job, ptr %job, i64 0, i32 2
  %parameters = load ptr, ptr %parameters.at
  %tasks.at = getelementptr %job, ptr %job, i64 0, i32 3
  %tasks = load i64, ptr %tasks.at
  %parts.at = getelementptr %job, ptr %job, i64 0, i32 4
  %parts = load i64, ptr %parts.at
  %scratch.at = getelementptr %job, ptr %job, i64 0, i32 5
  %scratch = load ptr, ptr %scratch.at
  %stride.at = getelementptr %job, ptr %job, i64 0, i32 6
  %stride = load i64, ptr %stride.at
  %low = mul i64 %tasks, %t
  %begin = udiv i64 %low, %parts
  %high = add i64 %low, %tasks
  %end = udiv i64 %high, %parts
  %skip = mul i64 %stride, %me
  %own = getelementptr i8, ptr %scratch, i64 %skip
  call void %kernel(ptr %buffers, ptr %parameters, i64 %begin, i64 %end, ptr %own)
  ret void
}

define internal void @hybrid.alone(ptr %job, i64 %parts) {
entry:
  br label %part
part:
  %t = phi i64 [ 0, %entry ], [ %t.next, %part ]
  call void @hybrid.part(ptr %job, i64 %t, i64 0)
  %t.next = add i64 %t, 1
  %more = icmp slt i64 %t.next, %parts
  br i1 %more, label %part, label %done
done:
  ret void
}
"""

_SERIAL = """
define internal void @hybrid.fork(ptr %job, i64 %threads, i64 %parts) {
  call void @hybrid.alone(ptr %job, i64 %parts)
  ret void
}
define i64 @hybrid_start(i64 %count) {
  ret i64 0
}
define void @hybrid_reset() {
  ret void
}
define void @hybrid_populate(ptr %ranges, i64 %n, ptr %stop) {
  ret void
}
"""

_POOL = """
@lock = internal global i32 0, align 128
@state = internal global i64 0, align 128      ; launch counter << 20 | parts << 10 | participants
@epoch = internal global i32 0, align 128      ; changes after state does: what idle workers sleep on
@job.now = internal global ptr null, align 128
@claims = internal global [1024 x [8 x i64]] zeroinitializer, align 128 ; of each part: 2 * launch counter, + 1 once taken
@pending = internal global i32 0, align 128    ; parts that aren't finished
@waiting = internal global i32 0, align 128    ; 1 while the caller sleeps on pending
@sleepers = internal global i32 0, align 128   ; workers that sleep on epoch, or are about to
@workers = internal global i64 0, align 128
@initial = internal global i64 0, align 8      ; state when the newest workers were started

declare i64 @syscall(i64, ...)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(ptr)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @sigfillset(ptr)

; Run the parts that nobody has taken yet: those from participant `me`'s own share on, all round. The job is only looked at
; with a part in hand: a late worker may hold the number of a launch that is over.
define internal void @hybrid.parts(i64 %open, i64 %me, i64 %participants, i64 %parts) {
entry:
  %taken = add i64 %open, 1
  %before.me = mul i64 %parts, %me
  %begin = udiv i64 %before.me, %participants
  br label %look
look:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %inside = icmp slt i64 %i, %parts
  br i1 %inside, label %peek, label %done
peek:
  %on = add i64 %begin, %i
  %over = icmp sge i64 %on, %parts
  %round = sub i64 %on, %parts
  %t = select i1 %over, i64 %round, i64 %on
  %claim = getelementptr [8 x i64], ptr @claims, i64 %t
  %now = load atomic i64, ptr %claim monotonic, align 8
  %free = icmp eq i64 %now, %open
  br i1 %free, label %take, label %next
take:
  %exchange = cmpxchg ptr %claim, i64 %open, i64 %taken acquire monotonic
  %mine = extractvalue { i64, i1 } %exchange, 1
  br i1 %mine, label %work, label %next
work:
  %job = load ptr, ptr @job.now, align 8
  call void @hybrid.part(ptr %job, i64 %t, i64 %me)
  %before = atomicrmw sub ptr @pending, i32 1 seq_cst, align 4
  %last = icmp eq i32 %before, 1
  br i1 %last, label %report, label %next
report:
  %sleeping = load atomic i32, ptr @waiting seq_cst, align 4
  %call = icmp ne i32 %sleeping, 0
  br i1 %call, label %rouse, label %next
rouse:
  %roused = call i64 (i64, ...) @syscall(i64 FUTEX, ptr @pending, i64 129, i64 1)
  br label %next
next:
  %i.next = add i64 %i, 1
  br label %look
done:
  ret void
}

define internal void @hybrid.fork(ptr %job, i64 %threads, i64 %parts) {
entry:
  %many = icmp sgt i64 %parts, 1023
  br i1 %many, label %alone, label %try
try:
  %exchange = cmpxchg ptr @lock, i32 0, i32 1 acquire monotonic
  %won = extractvalue { i32, i1 } %exchange, 1
  br i1 %won, label %mine, label %alone
mine:
  %workers = load atomic i64, ptr @workers monotonic, align 8
  %nobody = icmp eq i64 %workers, 0
  br i1 %nobody, label %give.back, label %prepare
give.back:
  store atomic i32 0, ptr @lock release, align 4
  br label %alone
alone:
  call void @hybrid.alone(ptr %job, i64 %parts)
  ret void
prepare:
  %most = add i64 %workers, 1
  %fewer = icmp slt i64 %threads, %most
  %participants = select i1 %fewer, i64 %threads, i64 %most
  store ptr %job, ptr @job.now, align 8
  %parts32 = trunc i64 %parts to i32
  store atomic i32 %parts32, ptr @pending monotonic, align 4
  %old = load atomic i64, ptr @state monotonic, align 8
  %before = lshr i64 %old, 20
  %count = add i64 %before, 1
  %open = shl i64 %count, 1
  br label %each
each:
  %t = phi i64 [ 0, %prepare ], [ %t.next, %each ]
  %claim = getelementptr [8 x i64], ptr @claims, i64 %t
  store atomic i64 %open, ptr %claim monotonic, align 8
  %t.next = add i64 %t, 1
  %t.more = icmp slt i64 %t.next, %parts
  br i1 %t.more, label %each, label %publish
publish:
  %count.field = shl i64 %count, 20
  %parts.field = shl i64 %parts, 10
  %fields = or i64 %count.field, %parts.field
  %new = or i64 %fields, %participants
  store atomic i64 %new, ptr @state seq_cst, align 8
  %epoch.before = atomicrmw add ptr @epoch, i32 1 seq_cst, align 4
  %asleep = load atomic i32, ptr @sleepers seq_cst, align 4
  %someone = icmp ne i32 %asleep, 0
  br i1 %someone, label %wake, label %work
wake:
  %woken = call i64 (i64, ...) @syscall(i64 FUTEX, ptr @epoch, i64 129, i64 2147483647)
  br label %work
work:
  call void @hybrid.parts(i64 %open, i64 0, i64 %participants, i64 %parts)
  %patience = call i64 @hybrid.patience()
  %since = call i64 @hybrid.clock()
  br label %poll
poll:
  %left = load atomic i32, ptr @pending acquire, align 4
  %ready = icmp eq i32 %left, 0
  br i1 %ready, label %unlock, label %again
again:
  %now.clock = call i64 @hybrid.clock()
  %spent = sub i64 %now.clock, %since
  %patient = icmp ult i64 %spent, %patience
  br i1 %patient, label %poll, label %sleep
sleep:
  store atomic i32 1, ptr @waiting seq_cst, align 4
  %still = load atomic i32, ptr @pending seq_cst, align 4
  %over = icmp eq i32 %still, 0
  br i1 %over, label %awake, label %wait
wait:
  %still64 = zext i32 %still to i64
  %waited = call i64 (i64, ...) @syscall(i64 FUTEX, ptr @pending, i64 128, i64 %still64, ptr null)
  br label %sleep
awake:
  store atomic i32 0, ptr @waiting seq_cst, align 4
  br label %unlock
unlock:
  store atomic i32 0, ptr @lock release, align 4
  ret void
}

define internal ptr @hybrid.worker(ptr %argument) {
entry:
  %number = ptrtoint ptr %argument to i64
  %start = load i64, ptr @initial, align 8
  %patience = call i64 @hybrid.patience()
  br label %next
next:
  %seen = phi i64 [ %start, %entry ], [ %now, %finished ]
  %since = call i64 @hybrid.clock()
  br label %poll
poll:
  %polled = load atomic i64, ptr @state acquire, align 8
  %changed = icmp ne i64 %polled, %seen
  br i1 %changed, label %look, label %again
again:
  %now.clock = call i64 @hybrid.clock()
  %spent = sub i64 %now.clock, %since
  %patient = icmp ult i64 %spent, %patience
  br i1 %patient, label %poll, label %sleep
sleep:
  %s1 = atomicrmw add ptr @sleepers, i32 1 seq_cst, align 4
  %at = load atomic i32, ptr @epoch seq_cst, align 4
  %check = load atomic i64, ptr @state seq_cst, align 8
  %same = icmp eq i64 %check, %seen
  br i1 %same, label %wait, label %rise
wait:
  %at64 = zext i32 %at to i64
  %waited = call i64 (i64, ...) @syscall(i64 FUTEX, ptr @epoch, i64 128, i64 %at64, ptr null)
  br label %rise
rise:
  %s2 = atomicrmw sub ptr @sleepers, i32 1 seq_cst, align 4
  %risen = load atomic i64, ptr @state acquire, align 8
  %nothing = icmp eq i64 %risen, %seen
  br i1 %nothing, label %sleep, label %look
look:
  %now = phi i64 [ %polled, %poll ], [ %risen, %rise ]
  %participants = and i64 %now, 1023
  %invited = icmp slt i64 %number, %participants
  br i1 %invited, label %work, label %finished
work:
  %parts.field = lshr i64 %now, 10
  %parts = and i64 %parts.field, 1023
  %count = lshr i64 %now, 20
  %open = shl i64 %count, 1
  call void @hybrid.parts(i64 %open, i64 %number, i64 %participants, i64 %parts)
  br label %finished
finished:
  br label %next
}

; Start workers until there are `count`, with all signals blocked in them. Returns how many there are, -1 if busy.
define i64 @hybrid_start(i64 %count) {
entry:
  %all = alloca [16 x i64], align 16
  %kept = alloca [16 x i64], align 16
  %thread = alloca ptr, align 8
  %exchange = cmpxchg ptr @lock, i32 0, i32 1 acquire monotonic
  %won = extractvalue { i32, i1 } %exchange, 1
  br i1 %won, label %begin, label %busy
busy:
  ret i64 -1
begin:
  %filled = call i32 @sigfillset(ptr %all)
  %masked = call i32 @pthread_sigmask(i32 2, ptr %all, ptr %kept)
  %state.now = load atomic i64, ptr @state monotonic, align 8
  store i64 %state.now, ptr @initial, align 8
  br label %more
more:
  %have = load atomic i64, ptr @workers monotonic, align 8
  %enough = icmp sge i64 %have, %count
  br i1 %enough, label %done, label %create
create:
  %number = add i64 %have, 1
  %argument = inttoptr i64 %number to ptr
  %failed = call i32 @pthread_create(ptr %thread, ptr null, ptr @hybrid.worker, ptr %argument)
  %bad = icmp ne i32 %failed, 0
  br i1 %bad, label %done, label %created
created:
  %id = load ptr, ptr %thread, align 8
  %detached = call i32 @pthread_detach(ptr %id)
  store atomic i64 %number, ptr @workers monotonic, align 8
  br label %more
done:
  %total = load atomic i64, ptr @workers monotonic, align 8
  %unmasked = call i32 @pthread_sigmask(i32 2, ptr %kept, ptr null)
  store atomic i32 0, ptr @lock release, align 4
  ret i64 %total
}

; A forked child has no workers, and perhaps the locks of a thread that it doesn't have.
define void @hybrid_reset() {
  store atomic i64 0, ptr @workers monotonic, align 8
  store atomic i32 0, ptr @pending monotonic, align 4
  store atomic i32 0, ptr @waiting monotonic, align 4
  store atomic i32 0, ptr @sleepers monotonic, align 4
  store atomic i32 0, ptr @lock release, align 4
  ret void
}

declare i32 @madvise(ptr, i64, i32)

; Have the system provide the pages of n ranges (address, bytes) as long as the word at %stop is 0; a little at a time, for who
; maps memory must wait meanwhile. What they hold doesn't change. Where the system doesn't know how, nothing happens.
define void @hybrid_populate(ptr %ranges, i64 %n, ptr %stop) {
entry:
  br label %range
range:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %open, label %done
open:
  %at = getelementptr [2 x i64], ptr %ranges, i64 %i
  %first = load ptr, ptr %at
  %bytes.at = getelementptr i64, ptr %at, i64 1
  %bytes = load i64, ptr %bytes.at
  br label %piece
piece:
  %offset = phi i64 [ 0, %open ], [ %offset.next, %provide ]
  %left = sub i64 %bytes, %offset
  %some = icmp sgt i64 %left, 0
  br i1 %some, label %look, label %next
look:
  %stopped = load atomic i64, ptr %stop monotonic, align 8
  %wanted = icmp eq i64 %stopped, 0
  br i1 %wanted, label %provide, label %done
provide:
  %large = icmp sgt i64 %left, 65536
  %now = select i1 %large, i64 65536, i64 %left
  %here = getelementptr i8, ptr %first, i64 %offset
  %status = call i32 @madvise(ptr %here, i64 %now, i32 23) ; MADV_POPULATE_WRITE
  %provided = icmp eq i32 %status, 0
  %offset.next = add i64 %offset, %now
  br i1 %provided, label %piece, label %next
next:
  %i.next = add i64 %i, 1
  br label %range
done:
  ret void
}
"""


def pool() -> str:
    """`hybrid.fork`, `hybrid_start`, `hybrid_reset` and `hybrid_populate` for this process's operating system and processor: with
    threads where both are known."""
    machine = platform.machine().lower()
    if sys.platform == "linux" and machine in _FUTEX:
        return _SPINNING[machine] + _POOL.replace("FUTEX", str(_FUTEX[machine]))
    return _SERIAL
