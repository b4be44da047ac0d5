"""The native runner as LLVM IR: what walks a plan (see `jit.runtime`); its loops and branches are in `runner_control`, the
workers in `runner_pool`."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from .runner_control import CONTROL
from .runner_pool import JOB, pool
from .target import Target

__all__ = ["ir"]

_RUN = """
declare ptr @llvm.stacksave.p0()
declare void @llvm.stackrestore.p0(ptr)

define void @hybrid_run(ptr %slots, ptr %plan, ptr %kernels) {
  %header = load i64, ptr %plan
  %n = and i64 %header, 4294967295
  %first = getelementptr i64, ptr %plan, i64 1
  call void @hybrid.records(ptr %slots, ptr %first, i64 %n, ptr %kernels)
  ret void
}

; n records, one behind the other: launches, loops and branches
define internal void @hybrid.records(ptr %slots, ptr %first, i64 %n, ptr %kernels) {
entry:
  %job = alloca %job, align 64
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %record, label %done
record:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %p = phi ptr [ %first, %entry ], [ %p.next, %next ]
  %number = load i64, ptr %p
  %control = icmp slt i64 %number, 0
  br i1 %control, label %choose, label %launch
choose:
  %words.at = getelementptr i64, ptr %p, i64 1
  %words = load i64, ptr %words.at
  %p.behind = getelementptr i64, ptr %p, i64 %words
  %is.loop = icmp eq i64 %number, -1
  br i1 %is.loop, label %loop, label %branch
loop:
  call void @hybrid.loop(ptr %slots, ptr %p, ptr %kernels)
  br label %next
branch:
  call void @hybrid.branch(ptr %slots, ptr %p, ptr %kernels)
  br label %next
launch:
  %p1 = getelementptr i64, ptr %p, i64 1
  %tasks = load i64, ptr %p1
  %p2 = getelementptr i64, ptr %p, i64 2
  %split.word = load i64, ptr %p2
  %threads = and i64 %split.word, 1023
  %finer = lshr i64 %split.word, 10
  %coarse = icmp eq i64 %finer, 0
  %parts = select i1 %coarse, i64 %threads, i64 %finer
  %p3 = getelementptr i64, ptr %p, i64 3
  %scratch.slot = load i64, ptr %p3
  %p4 = getelementptr i64, ptr %p, i64 4
  %scratch.offset = load i64, ptr %p4
  %p5 = getelementptr i64, ptr %p, i64 5
  %stride = load i64, ptr %p5
  %p6 = getelementptr i64, ptr %p, i64 6
  %nbuffers = load i64, ptr %p6
  %p7 = getelementptr i64, ptr %p, i64 7
  %nparameters = load i64, ptr %p7
  %places = getelementptr i64, ptr %p, i64 8
  %nplaces = shl i64 %nbuffers, 1
  %parameters = getelementptr i64, ptr %places, i64 %nplaces
  %p.launched = getelementptr i64, ptr %parameters, i64 %nparameters
  %stack = call ptr @llvm.stacksave.p0()
  %buffers = alloca ptr, i64 %nbuffers, align 16
  %any = icmp sgt i64 %nbuffers, 0
  br i1 %any, label %bind, label %bound
bind:
  %b = phi i64 [ 0, %launch ], [ %b.next, %bind ]
  %b2 = shl i64 %b, 1
  %slot.at = getelementptr i64, ptr %places, i64 %b2
  %slot = load i64, ptr %slot.at
  %offset.at = getelementptr i64, ptr %slot.at, i64 1
  %offset = load i64, ptr %offset.at
  %base.at = getelementptr ptr, ptr %slots, i64 %slot
  %base = load ptr, ptr %base.at
  %address = getelementptr i8, ptr %base, i64 %offset
  %into = getelementptr ptr, ptr %buffers, i64 %b
  store ptr %address, ptr %into
  %b.next = add i64 %b, 1
  %b.more = icmp slt i64 %b.next, %nbuffers
  br i1 %b.more, label %bind, label %bound
bound:
  %kernel.at = getelementptr ptr, ptr %kernels, i64 %number
  %kernel = load ptr, ptr %kernel.at
  %scratch.at = getelementptr ptr, ptr %slots, i64 %scratch.slot
  %scratch.base = load ptr, ptr %scratch.at
  %scratch = getelementptr i8, ptr %scratch.base, i64 %scratch.offset
  %serial = icmp sle i64 %threads, 1
  br i1 %serial, label %whole, label %split
whole: ; for no threads at all: from the task on that stands in the place of the number of parts
  %some.tasks = icmp eq i64 %threads, 0
  %first.task = select i1 %some.tasks, i64 %finer, i64 0
  call void %kernel(ptr %buffers, ptr %parameters, i64 %first.task, i64 %tasks, ptr %scratch)
  br label %finished
split:
  store ptr %kernel, ptr %job
  %j1 = getelementptr %job, ptr %job, i64 0, i32 1
  store ptr %buffers, ptr %j1
  %j2 = getelementptr %job, ptr %job, i64 0, i32 2
  store ptr %parameters, ptr %j2
  %j3 = getelementptr %job, ptr %job, i64 0, i32 3
  store i64 %tasks, ptr %j3
  %j4 = getelementptr %job, ptr %job, i64 0, i32 4
  store i64 %parts, ptr %j4
  %j5 = getelementptr %job, ptr %job, i64 0, i32 5
  store ptr %scratch, ptr %j5
  %j6 = getelementptr %job, ptr %job, i64 0, i32 6
  store i64 %stride, ptr %j6
  call void @hybrid.fork(ptr %job, i64 %threads, i64 %parts)
  br label %finished
finished:
  call void @llvm.stackrestore.p0(ptr %stack)
  br label %next
next:
  %p.next = phi ptr [ %p.launched, %finished ], [ %p.behind, %loop ], [ %p.behind, %branch ]
  %i.next = add i64 %i, 1
  %i.more = icmp slt i64 %i.next, %n
  br i1 %i.more, label %record, label %done
done:
  ret void
}

; the same, given NumPy arrays that hold the three tables
define void @hybrid_run_tables(ptr %slots, ptr %plan, ptr %kernels) {
  %slots.at = getelementptr i8, ptr %slots, i64 ARRAY_DATA
  %s = load ptr, ptr %slots.at
  %plan.at = getelementptr i8, ptr %plan, i64 ARRAY_DATA
  %p = load ptr, ptr %plan.at
  %kernels.at = getelementptr i8, ptr %kernels, i64 ARRAY_DATA
  %k = load ptr, ptr %kernels.at
  call void @hybrid_run(ptr %s, ptr %p, ptr %k)
  ret void
}

%span = type { i64, i64, i64, i64 } ; where memory begins and ends, whether it is written, number of the array

declare void @qsort(ptr, i64, i64, ptr)

define internal i32 @hybrid.earlier(ptr %a, ptr %b) {
  %x = load i64, ptr %a
  %y = load i64, ptr %b
  %above = icmp ugt i64 %x, %y
  %below = icmp ult i64 %x, %y
  %one = zext i1 %above to i32
  %other = zext i1 %below to i32
  %order = sub i32 %one, %other
  ret i32 %order
}

; the memory of n arrays, in order of its addresses
define internal void @hybrid.spans(ptr %spans, ptr %data, ptr %sizes, i64 %n, ptr %writes, i64 %written) {
entry:
  br label %one
one:
  %i = phi i64 [ 0, %entry ], [ %i.next, %one ]
  %low.at = getelementptr i64, ptr %data, i64 %i
  %low = load i64, ptr %low.at
  %size.at = getelementptr i64, ptr %sizes, i64 %i
  %size = load i64, ptr %size.at
  %high = add i64 %low, %size
  %span = getelementptr %span, ptr %spans, i64 %i
  %high.to = getelementptr %span, ptr %span, i64 0, i32 1
  %writes.to = getelementptr %span, ptr %span, i64 0, i32 2
  %number.to = getelementptr %span, ptr %span, i64 0, i32 3
  store i64 %low, ptr %span
  store i64 %high, ptr %high.to
  store i64 0, ptr %writes.to
  store i64 %i, ptr %number.to
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %n
  br i1 %more, label %one, label %mark
mark:
  %w = phi i64 [ 0, %one ], [ %w.next, %mark ]
  %w.at = getelementptr i64, ptr %writes, i64 %w
  %number = load i64, ptr %w.at
  %marked = getelementptr %span, ptr %spans, i64 %number, i32 2
  store i64 1, ptr %marked
  %w.next = add i64 %w, 1
  %w.more = icmp slt i64 %w.next, %written
  br i1 %w.more, label %mark, label %sort
sort:
  call void @qsort(ptr %spans, i64 %n, i64 32, ptr @hybrid.earlier)
  ret void
}

; -(i + 1) where array number i lies over another one and either is written; 0 where there is none. A span that begins before
; the end of what came before it overlaps with that; `reach` is how far all of them go, `reach.written` the written ones.
define internal i64 @hybrid.clash(ptr %spans, i64 %n) {
entry:
  br label %one
one:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %reach = phi i64 [ 0, %entry ], [ %reach.next, %next ]
  %reach.written = phi i64 [ 0, %entry ], [ %reach.written.next, %next ]
  %span = getelementptr %span, ptr %spans, i64 %i
  %low = load i64, ptr %span
  %high.at = getelementptr %span, ptr %span, i64 0, i32 1
  %high = load i64, ptr %high.at
  %writes.at = getelementptr %span, ptr %span, i64 0, i32 2
  %writes = load i64, ptr %writes.at
  %written = icmp ne i64 %writes, 0
  %bound = select i1 %written, i64 %reach, i64 %reach.written
  %under = icmp ult i64 %low, %bound
  %some = icmp ult i64 %low, %high
  %clash = and i1 %under, %some
  br i1 %clash, label %found, label %next
found:
  %number.at = getelementptr %span, ptr %span, i64 0, i32 3
  %number = load i64, ptr %number.at
  %minus = xor i64 %number, -1
  ret i64 %minus
next:
  %further = icmp ugt i64 %high, %reach
  %reach.next = select i1 %further, i64 %high, i64 %reach
  %further.written = icmp ugt i64 %high, %reach.written
  %extends = and i1 %further.written, %written
  %reach.written.next = select i1 %extends, i64 %high, i64 %reach.written
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %n
  br i1 %more, label %one, label %none
none:
  ret i64 0
}

; arrays: a Python list of NumPy arrays, whose addresses become the slots. `checks` holds the number of arrays behind the
; first to be checked, the number of written ones among them, the bytes of each, and the numbers (from 0) of the written
; ones. Returns 0 when the plan has run; i when array number i (from 1) isn't contiguous and aligned, and -i when it and
; another one lie over the same memory and one of them is written: nothing has run then.
define i64 @hybrid_run_arrays(ptr %list, i64 %n, ptr %plan, ptr %kernels, ptr %checks) {
entry:
  %header = load i64, ptr %plan
  %moving = lshr i64 %header, 32
  %nslots = add i64 %n, %moving
  %slots = alloca ptr, i64 %nslots, align 16
  %items.at = getelementptr i8, ptr %list, i64 LIST_ITEMS
  %items = load ptr, ptr %items.at
  %checked = load i64, ptr %checks
  %written.at = getelementptr i64, ptr %checks, i64 1
  %written = load i64, ptr %written.at
  %sizes = getelementptr i64, ptr %checks, i64 2
  %writes = getelementptr i64, ptr %sizes, i64 %checked
  %ends = getelementptr ptr, ptr %slots, i64 1
  %any = icmp sgt i64 %n, 0
  br i1 %any, label %each, label %checked.all
each:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %item.at = getelementptr ptr, ptr %items, i64 %i
  %item = load ptr, ptr %item.at
  %data.at = getelementptr i8, ptr %item, i64 ARRAY_DATA
  %data = load ptr, ptr %data.at
  %slot = getelementptr ptr, ptr %slots, i64 %i
  store ptr %data, ptr %slot
  %before = sub i64 %i, 1
  %checks.it = icmp ult i64 %before, %checked
  br i1 %checks.it, label %flags, label %next
flags:
  %flags.at = getelementptr i8, ptr %item, i64 ARRAY_FLAGS
  %bits = load i32, ptr %flags.at
  %wanted = and i32 %bits, 257 ; NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED
  %good = icmp eq i32 %wanted, 257
  br i1 %good, label %next, label %bad
bad:
  ret i64 %i
next:
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %n
  br i1 %more, label %each, label %checked.all
checked.all:
  %writes.any = icmp sgt i64 %written, 0
  br i1 %writes.any, label %spans, label %go
spans:
  %sorted = alloca %span, i64 %checked, align 16
  call void @hybrid.spans(ptr %sorted, ptr %ends, ptr %sizes, i64 %checked, ptr %writes, i64 %written)
  %clash = call i64 @hybrid.clash(ptr %sorted, i64 %checked)
  %meet = icmp ne i64 %clash, 0
  br i1 %meet, label %overlap, label %go
overlap:
  ret i64 %clash
go:
  call void @hybrid_run(ptr %slots, ptr %plan, ptr %kernels)
  ret i64 0
}

; The same as a method of Python's: its object is an array of words (plan, kernels, checks, where calls are counted, the
; function that makes a Python int), its argument the list, its result the status. It costs a seventh of a call by ctypes.
define ptr @hybrid_call(ptr %bound, ptr %list) {
  %words.at = getelementptr i8, ptr %bound, i64 ARRAY_DATA
  %words = load ptr, ptr %words.at
  %plan = load ptr, ptr %words
  %kernels.at = getelementptr ptr, ptr %words, i64 1
  %kernels = load ptr, ptr %kernels.at
  %checks.at = getelementptr ptr, ptr %words, i64 2
  %checks = load ptr, ptr %checks.at
  %count.at = getelementptr ptr, ptr %words, i64 3
  %count = load ptr, ptr %count.at
  %integer.at = getelementptr ptr, ptr %words, i64 4
  %integer = load ptr, ptr %integer.at
  %n.at = getelementptr i8, ptr %list, i64 LIST_LENGTH
  %n = load i64, ptr %n.at
  %status = call i64 @hybrid_run_arrays(ptr %list, i64 %n, ptr %plan, ptr %kernels, ptr %checks)
  %good = icmp eq i64 %status, 0
  %one = zext i1 %good to i64
  %calls = load i64, ptr %count
  %more = add i64 %calls, %one
  store i64 %more, ptr %count
  %result = call ptr %integer(i64 %status)
  ret ptr %result
}
"""


def _offsets() -> tuple[int, int, int]:
    """Where a Python list keeps the pointer to its items (its length is before that), and a NumPy array the address of its data
    and its flags, in bytes."""
    array = np.empty((2, 2))
    probe: list[Any] = [array] * 12345
    words = (ctypes.c_size_t * 6)
    data = 8 * list(words.from_address(id(array))).index(array.ctypes.data)
    flags = data + 48  # after the data: ndim (with padding), dimensions, strides, base, descr

    def contiguous(a: np.ndarray) -> bool:
        return ctypes.c_int32.from_address(id(a) + flags).value & 0x101 == 0x101

    if not contiguous(array) or contiguous(array.T) or contiguous(array[:, :1]):
        raise RuntimeError("this NumPy's arrays have an unknown layout")
    for word in range(2, 6):
        pointer = words.from_address(id(probe))[word]
        length = words.from_address(id(probe))[word - 1]
        if length == len(probe) and pointer > 1 << 16 and ctypes.c_size_t.from_address(pointer).value == id(array):
            return 8 * word, data, flags
    raise RuntimeError("this Python's lists have an unknown layout")


def ir(target: Target) -> str:
    """The LLVM IR of the runner, for this process's operating system and processor."""
    items, data, flags = _offsets()
    text = JOB + CONTROL
    offsets = {"LIST_ITEMS": items, "LIST_LENGTH": items - 8, "ARRAY_DATA": data, "ARRAY_FLAGS": flags}
    run = _RUN
    for name, offset in offsets.items():
        run = run.replace(name, str(offset))
    text += run + pool()
    return f'target triple = "{target.triple}"\n{text}'
