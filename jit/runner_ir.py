"""The native runner as LLVM IR: what walks a plan, and the pool of workers (see `jit.runtime`)."""

from __future__ import annotations

import ctypes
import platform
import sys
from typing import Any

import numpy as np

from .target import Target

__all__ = ["ir"]

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
_JOB = """
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

# A loop's record: -1, words, count, records and words of the test, records of the body; the places (slot, offset) of the
# limit, the answer and the count of steps taken (slot -1: none); reverse, number of moving and of carried storages; strips of
# the body's one launch that go through all steps by themselves (0: none), as which threads and parts, with which scratch
# stride, and the number of slots; for each moving one (slot, slot and offset of the source, bytes a step); for each carried
# one (slots of current, new and next, places of initial, home and other, bytes); then the records of the test and of the body.
_CONTROL = """
define internal ptr @hybrid.place(ptr %slots, ptr %at) {
  %slot = load i64, ptr %at
  %offset.at = getelementptr i64, ptr %at, i64 1
  %offset = load i64, ptr %offset.at
  %base.at = getelementptr ptr, ptr %slots, i64 %slot
  %base = load ptr, ptr %base.at
  %address = getelementptr i8, ptr %base, i64 %offset
  ret ptr %address
}

define internal void @hybrid.branch(ptr %slots, ptr %p, ptr %kernels) {
  %place = getelementptr i64, ptr %p, i64 2
  %answer.at = call ptr @hybrid.place(ptr %slots, ptr %place)
  %answer = load i8, ptr %answer.at
  %n.at = getelementptr i64, ptr %p, i64 4
  %m.at = getelementptr i64, ptr %p, i64 5
  %words.at = getelementptr i64, ptr %p, i64 6
  %n = load i64, ptr %n.at
  %m = load i64, ptr %m.at
  %words = load i64, ptr %words.at
  %then = getelementptr i64, ptr %p, i64 7
  %otherwise = getelementptr i64, ptr %then, i64 %words
  %holds = icmp ne i8 %answer, 0
  %first = select i1 %holds, ptr %then, ptr %otherwise
  %count = select i1 %holds, i64 %n, i64 %m
  call void @hybrid.records(ptr %slots, ptr %first, i64 %count, ptr %kernels)
  ret void
}

; the addresses of the moving storages in step t
define internal void @hybrid.move(ptr %slots, ptr %entries, i64 %n, i64 %t) {
entry:
  br label %head
head:
  %k = phi i64 [ 0, %entry ], [ %k.next, %one ]
  %more = icmp slt i64 %k, %n
  br i1 %more, label %one, label %done
one:
  %at = mul i64 %k, 4
  %entry.at = getelementptr i64, ptr %entries, i64 %at
  %slot = load i64, ptr %entry.at
  %source = getelementptr i64, ptr %entry.at, i64 1
  %base = call ptr @hybrid.place(ptr %slots, ptr %source)
  %stride.at = getelementptr i64, ptr %entry.at, i64 3
  %stride = load i64, ptr %stride.at
  %skip = mul i64 %stride, %t
  %address = getelementptr i8, ptr %base, i64 %skip
  %into = getelementptr ptr, ptr %slots, i64 %slot
  store ptr %address, ptr %into
  %k.next = add i64 %k, 1
  br label %head
done:
  ret void
}

; what 0: before the first of n steps; 1: after a step; 2: at the end, when values have to arrive at home
define internal void @hybrid.carry(ptr %slots, ptr %entries, i64 %count, i64 %what, i64 %n) {
entry:
  br label %head
head:
  %k = phi i64 [ 0, %entry ], [ %k.next, %next ]
  %more = icmp slt i64 %k, %count
  br i1 %more, label %one, label %done
one:
  %k.next = add i64 %k, 1
  %at = mul i64 %k, 10
  %e = getelementptr i64, ptr %entries, i64 %at
  %current.slot = load i64, ptr %e
  %e1 = getelementptr i64, ptr %e, i64 1
  %new.slot = load i64, ptr %e1
  %e2 = getelementptr i64, ptr %e, i64 2
  %next.slot = load i64, ptr %e2
  %current.at = getelementptr ptr, ptr %slots, i64 %current.slot
  %new.at = getelementptr ptr, ptr %slots, i64 %new.slot
  %next.at = getelementptr ptr, ptr %slots, i64 %next.slot
  %home.place = getelementptr i64, ptr %e, i64 5
  %home = call ptr @hybrid.place(ptr %slots, ptr %home.place)
  switch i64 %what, label %settle [ i64 0, label %begin
                                    i64 1, label %turn ]
begin:
  %initial.place = getelementptr i64, ptr %e, i64 3
  %initial = call ptr @hybrid.place(ptr %slots, ptr %initial.place)
  %other.place = getelementptr i64, ptr %e, i64 7
  %other = call ptr @hybrid.place(ptr %slots, ptr %other.place)
  %bit = and i64 %n, 1
  %odd = icmp ne i64 %bit, 0
  %first = select i1 %odd, ptr %home, ptr %other
  %second = select i1 %odd, ptr %other, ptr %home
  store ptr %initial, ptr %current.at
  store ptr %first, ptr %new.at
  store ptr %second, ptr %next.at
  br label %next
turn:
  %was.new = load ptr, ptr %new.at
  %was.next = load ptr, ptr %next.at
  store ptr %was.new, ptr %current.at
  store ptr %was.next, ptr %new.at
  store ptr %was.new, ptr %next.at
  br label %next
settle:
  %end = load ptr, ptr %current.at
  %there = icmp eq ptr %end, %home
  br i1 %there, label %next, label %copy
copy:
  %bytes.at = getelementptr i64, ptr %e, i64 9
  %bytes = load i64, ptr %bytes.at
  %words = lshr i64 %bytes, 3
  br label %word.head
word.head:
  %w = phi i64 [ 0, %copy ], [ %w.next, %word ]
  %w.more = icmp slt i64 %w, %words
  br i1 %w.more, label %word, label %rest
word:
  %from = getelementptr i64, ptr %end, i64 %w
  %to = getelementptr i64, ptr %home, i64 %w
  %value = load i64, ptr %from, align 1
  store i64 %value, ptr %to, align 1
  %w.next = add i64 %w, 1
  br label %word.head
rest:
  %whole = shl i64 %words, 3
  br label %byte.head
byte.head:
  %b = phi i64 [ %whole, %rest ], [ %b.next, %byte ]
  %b.more = icmp slt i64 %b, %bytes
  br i1 %b.more, label %byte, label %next
byte:
  %from.byte = getelementptr i8, ptr %end, i64 %b
  %to.byte = getelementptr i8, ptr %home, i64 %b
  %value.byte = load i8, ptr %from.byte
  store i8 %value.byte, ptr %to.byte
  %b.next = add i64 %b, 1
  br label %byte.head
next:
  br label %head
done:
  ret void
}

; some strips of the loop whose record is told: all of its steps, with slots and a body of their own
define internal void @hybrid.strip(ptr %told, ptr %unused, i64 %begin, i64 %end, ptr %scratch) {
entry:
  %slots = load ptr, ptr %told
  %told1 = getelementptr ptr, ptr %told, i64 1
  %p = load ptr, ptr %told1
  %told2 = getelementptr ptr, ptr %told, i64 2
  %kernels = load ptr, ptr %told2
  %told3 = getelementptr ptr, ptr %told, i64 3
  %body = load ptr, ptr %told3
  %f1 = getelementptr i64, ptr %p, i64 1
  %words = load i64, ptr %f1
  %f2 = getelementptr i64, ptr %p, i64 2
  %n = load i64, ptr %f2
  %f12 = getelementptr i64, ptr %p, i64 12
  %reverse = load i64, ptr %f12
  %f13 = getelementptr i64, ptr %p, i64 13
  %nmoving = load i64, ptr %f13
  %f14 = getelementptr i64, ptr %p, i64 14
  %ncarried = load i64, ptr %f14
  %f15 = getelementptr i64, ptr %p, i64 15
  %strips = load i64, ptr %f15
  %f18 = getelementptr i64, ptr %p, i64 18
  %nslots = load i64, ptr %f18
  %moving = getelementptr i64, ptr %p, i64 19
  %moving.words = mul i64 %nmoving, 4
  %carried = getelementptr i64, ptr %moving, i64 %moving.words
  %own.slots = alloca ptr, i64 %nslots, align 16
  call void @hybrid.copy(ptr %own.slots, ptr %slots, i64 %nslots)
  %behind = getelementptr i64, ptr %p, i64 %words
  %behind.number = ptrtoint ptr %behind to i64
  %body.number = ptrtoint ptr %body to i64
  %body.bytes = sub i64 %behind.number, %body.number
  %body.words = lshr i64 %body.bytes, 3
  %own.body = alloca i64, i64 %body.words, align 16
  call void @hybrid.copy(ptr %own.body, ptr %body, i64 %body.words)
  %b1 = getelementptr i64, ptr %own.body, i64 1
  %tasks = load i64, ptr %b1
  %each = udiv i64 %tasks, %strips
  %first = mul i64 %begin, %each
  %stop = mul i64 %end, %each
  store i64 %stop, ptr %b1
  %first.field = shl i64 %first, 10
  %b2 = getelementptr i64, ptr %own.body, i64 2
  store i64 %first.field, ptr %b2
  %b3 = getelementptr i64, ptr %own.body, i64 3
  %scratch.slot = load i64, ptr %b3
  %base.at = getelementptr ptr, ptr %slots, i64 %scratch.slot
  %base = load i64, ptr %base.at
  %scratch.number = ptrtoint ptr %scratch to i64
  %offset = sub i64 %scratch.number, %base
  %b4 = getelementptr i64, ptr %own.body, i64 4
  store i64 %offset, ptr %b4
  call void @hybrid.carry(ptr %own.slots, ptr %carried, i64 %ncarried, i64 0, i64 %n)
  %backwards = icmp ne i64 %reverse, 0
  %last = sub i64 %n, 1
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %step ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %step, label %done
step:
  %mirrored = sub i64 %last, %i
  %t = select i1 %backwards, i64 %mirrored, i64 %i
  call void @hybrid.move(ptr %own.slots, ptr %moving, i64 %nmoving, i64 %t)
  call void @hybrid.records(ptr %own.slots, ptr %own.body, i64 1, ptr %kernels)
  call void @hybrid.carry(ptr %own.slots, ptr %carried, i64 %ncarried, i64 1, i64 %n)
  %i.next = add i64 %i, 1
  br label %head
done:
  ret void
}

define internal void @hybrid.copy(ptr %to, ptr %from, i64 %n) {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %one ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %one, label %done
one:
  %from.at = getelementptr i64, ptr %from, i64 %i
  %to.at = getelementptr i64, ptr %to, i64 %i
  %value = load i64, ptr %from.at
  store i64 %value, ptr %to.at
  %i.next = add i64 %i, 1
  br label %head
done:
  ret void
}

; all strips of a loop, shared by threads once
define internal void @hybrid.strips(ptr %slots, ptr %p, ptr %kernels, ptr %body) {
  %job = alloca %job, align 64
  %told = alloca [4 x ptr], align 16
  store ptr %slots, ptr %told
  %told1 = getelementptr ptr, ptr %told, i64 1
  store ptr %p, ptr %told1
  %told2 = getelementptr ptr, ptr %told, i64 2
  store ptr %kernels, ptr %told2
  %told3 = getelementptr ptr, ptr %told, i64 3
  store ptr %body, ptr %told3
  %f15 = getelementptr i64, ptr %p, i64 15
  %strips = load i64, ptr %f15
  %f16 = getelementptr i64, ptr %p, i64 16
  %split = load i64, ptr %f16
  %threads = and i64 %split, 1023
  %finer = lshr i64 %split, 10
  %coarse = icmp eq i64 %finer, 0
  %parts = select i1 %coarse, i64 %threads, i64 %finer
  %f17 = getelementptr i64, ptr %p, i64 17
  %stride = load i64, ptr %f17
  %scratch.place = getelementptr i64, ptr %body, i64 3
  %scratch = call ptr @hybrid.place(ptr %slots, ptr %scratch.place)
  store ptr @hybrid.strip, ptr %job
  %j1 = getelementptr %job, ptr %job, i64 0, i32 1
  store ptr %told, ptr %j1
  %j2 = getelementptr %job, ptr %job, i64 0, i32 2
  store ptr null, ptr %j2
  %j3 = getelementptr %job, ptr %job, i64 0, i32 3
  store i64 %strips, ptr %j3
  %j4 = getelementptr %job, ptr %job, i64 0, i32 4
  store i64 %parts, ptr %j4
  %j5 = getelementptr %job, ptr %job, i64 0, i32 5
  store ptr %scratch, ptr %j5
  %j6 = getelementptr %job, ptr %job, i64 0, i32 6
  store i64 %stride, ptr %j6
  call void @hybrid.fork(ptr %job, i64 %threads, i64 %parts)
  ret void
}

define internal void @hybrid.loop(ptr %slots, ptr %p, ptr %kernels) {
entry:
  %f2 = getelementptr i64, ptr %p, i64 2
  %most = load i64, ptr %f2
  %f3 = getelementptr i64, ptr %p, i64 3
  %tests = load i64, ptr %f3
  %f4 = getelementptr i64, ptr %p, i64 4
  %test.words = load i64, ptr %f4
  %f5 = getelementptr i64, ptr %p, i64 5
  %bodies = load i64, ptr %f5
  %limit.place = getelementptr i64, ptr %p, i64 6
  %limit.slot = load i64, ptr %limit.place
  %answer.place = getelementptr i64, ptr %p, i64 8
  %answer.slot = load i64, ptr %answer.place
  %taken.place = getelementptr i64, ptr %p, i64 10
  %taken.slot = load i64, ptr %taken.place
  %f12 = getelementptr i64, ptr %p, i64 12
  %reverse = load i64, ptr %f12
  %f13 = getelementptr i64, ptr %p, i64 13
  %nmoving = load i64, ptr %f13
  %f14 = getelementptr i64, ptr %p, i64 14
  %ncarried = load i64, ptr %f14
  %f15 = getelementptr i64, ptr %p, i64 15
  %strips = load i64, ptr %f15
  %moving = getelementptr i64, ptr %p, i64 19
  %moving.words = mul i64 %nmoving, 4
  %carried = getelementptr i64, ptr %moving, i64 %moving.words
  %carried.words = mul i64 %ncarried, 10
  %test = getelementptr i64, ptr %carried, i64 %carried.words
  %body = getelementptr i64, ptr %test, i64 %test.words
  %limited = icmp sge i64 %limit.slot, 0
  br i1 %limited, label %read.limit, label %begin
read.limit:
  %limit.at = call ptr @hybrid.place(ptr %slots, ptr %limit.place)
  %limit = load i64, ptr %limit.at
  %negative = icmp slt i64 %limit, 0
  %natural = select i1 %negative, i64 0, i64 %limit
  %less = icmp slt i64 %natural, %most
  %fewer = select i1 %less, i64 %natural, i64 %most
  br label %begin
begin:
  %n = phi i64 [ %most, %entry ], [ %fewer, %read.limit ]
  call void @hybrid.move(ptr %slots, ptr %moving, i64 %nmoving, i64 0)
  call void @hybrid.carry(ptr %slots, ptr %carried, i64 %ncarried, i64 0, i64 %n)
  %backwards = icmp ne i64 %reverse, 0
  %last = sub i64 %n, 1
  %tested = icmp sge i64 %answer.slot, 0
  %in.strips = icmp sgt i64 %strips, 0
  br i1 %in.strips, label %strip, label %head
strip:
  call void @hybrid.strips(ptr %slots, ptr %p, ptr %kernels, ptr %body)
  br label %count
count: ; what the strips have done to their own slots
  %c = phi i64 [ 0, %strip ], [ %c.next, %counted.step ]
  %c.more = icmp slt i64 %c, %n
  br i1 %c.more, label %counted.step, label %end
counted.step:
  call void @hybrid.carry(ptr %slots, ptr %carried, i64 %ncarried, i64 1, i64 %n)
  %c.next = add i64 %c, 1
  br label %count
head:
  %i = phi i64 [ 0, %begin ], [ %i.next, %step ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %ask, label %end
ask:
  br i1 %tested, label %check, label %step
check:
  call void @hybrid.records(ptr %slots, ptr %test, i64 %tests, ptr %kernels)
  %answer.at = call ptr @hybrid.place(ptr %slots, ptr %answer.place)
  %answer = load i8, ptr %answer.at
  %on = icmp ne i8 %answer, 0
  br i1 %on, label %step, label %end
step:
  %mirrored = sub i64 %last, %i
  %t = select i1 %backwards, i64 %mirrored, i64 %i
  call void @hybrid.move(ptr %slots, ptr %moving, i64 %nmoving, i64 %t)
  call void @hybrid.records(ptr %slots, ptr %body, i64 %bodies, ptr %kernels)
  call void @hybrid.carry(ptr %slots, ptr %carried, i64 %ncarried, i64 1, i64 %n)
  %i.next = add i64 %i, 1
  br label %head
end:
  %steps = phi i64 [ %i, %head ], [ %i, %check ], [ %c, %count ]
  call void @hybrid.carry(ptr %slots, ptr %carried, i64 %ncarried, i64 2, i64 %n)
  %counted = icmp sge i64 %taken.slot, 0
  br i1 %counted, label %tell, label %done
tell:
  %taken.at = call ptr @hybrid.place(ptr %slots, ptr %taken.place)
  store i64 %steps, ptr %taken.at
  br label %done
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
    machine = platform.machine().lower()
    items, data, flags = _offsets()
    text = _JOB + _CONTROL
    offsets = {"LIST_ITEMS": items, "LIST_LENGTH": items - 8, "ARRAY_DATA": data, "ARRAY_FLAGS": flags}
    run = _RUN
    for name, offset in offsets.items():
        run = run.replace(name, str(offset))
    text += run
    if sys.platform == "linux" and machine in _FUTEX:
        text += _SPINNING[machine] + _POOL.replace("FUTEX", str(_FUTEX[machine]))
    else:
        text += _SERIAL
    return f'target triple = "{target.triple}"\n{text}'
