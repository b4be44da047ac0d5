"""The native runner's loops and branches as LLVM IR (see `jit.runtime` and `jit.runner_ir`)."""

__all__ = ["CONTROL"]

# A loop's record: -1, words, count, records and words of the test, records of the body; the places (slot, offset) of the
# limit, the answer and the count of steps taken (slot -1: none); reverse, number of moving and of carried storages; strips of
# the body's one launch that go through all steps by themselves (0: none), as which threads and parts, with which scratch
# stride, and the number of slots; for each moving one (slot, slot and offset of the source, bytes a step); for each carried
# one (slots of current, new and next, places of initial, home and other, bytes); then the records of the test and of the body.
_STORAGES = """%f12 = getelementptr i64, ptr %p, i64 12
  %reverse = load i64, ptr %f12
  %f13 = getelementptr i64, ptr %p, i64 13
  %nmoving = load i64, ptr %f13
  %f14 = getelementptr i64, ptr %p, i64 14
  %ncarried = load i64, ptr %f14
  %f15 = getelementptr i64, ptr %p, i64 15
  %strips = load i64, ptr %f15
  %moving = getelementptr i64, ptr %p, i64 19
  %moving.words = mul i64 %nmoving, 4
  %carried = getelementptr i64, ptr %moving, i64 %moving.words"""
"""The fields of the record at %p that say how storages move; STORAGES below."""

CONTROL = """
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
  STORAGES
  %f18 = getelementptr i64, ptr %p, i64 18
  %nslots = load i64, ptr %f18
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
  STORAGES
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
""".replace("STORAGES", _STORAGES)
