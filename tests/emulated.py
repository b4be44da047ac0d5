"""Kernels compiled for AArch64 and run in an emulator (Unicorn, which is QEMU's processor model), where there is one.

A relocatable ELF object is placed in the emulator's memory; the few relocations that code without global data needs are
applied (ELF for the Arm 64-bit Architecture, ABI release 2024Q3).
"""

import io
import math
import struct

import numpy as np
import pytest

from jit import llvm, machine

CODE, STUBS, STACK, DATA, PAGE = 0x10000000, 0x14000000, 0x20000000, 0x40000000, 0x1000  # calls reach 2**27 bytes


def _fmod(a, b):
    if math.isnan(a) or math.isnan(b) or math.isinf(a) or b == 0:
        return math.nan
    return math.fmod(a, b)


class Emulated:
    """As `native_kernels.Native`."""

    def __init__(self, kernels, target):
        unicorn = pytest.importorskip("unicorn")
        elf = pytest.importorskip("elftools.elf.elffile")
        text = llvm.emit(kernels, [k.name for k in kernels], target)
        self.object = elf.ELFFile(io.BytesIO(machine.emit_object(text, target)))
        self.unicorn, self.arm = unicorn, pytest.importorskip("unicorn.arm64_const")
        self.engine = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        self.engine.mem_map(STACK, 1 << 20)
        self.engine.mem_map(STUBS, PAGE)
        self.mapped = None
        self._place()
        self.engine.hook_add(unicorn.UC_HOOK_CODE, self._library_call, begin=STUBS + 64, end=STUBS + PAGE - 1)

    # -- loading
    def _place(self):
        sections = {}
        at = CODE
        for number, section in enumerate(self.object.iter_sections()):
            if section["sh_flags"] & 2 and section["sh_size"]:  # SHF_ALLOC
                align = max(64, section["sh_addralign"])
                at = (at + align - 1) // align * align
                sections[number] = at
                at += section["sh_size"]
        self.engine.mem_map(CODE, (at - CODE + PAGE) // PAGE * PAGE)
        for number, address in sections.items():
            self.engine.mem_write(address, self.object.get_section(number).data())
        table = self.object.get_section_by_name(".symtab")
        self.symbols, self.library = {}, []
        addresses = []
        for symbol in table.iter_symbols():
            where = symbol["st_shndx"]
            if where in sections:
                addresses.append(sections[where] + symbol["st_value"])
                self.symbols[symbol.name] = addresses[-1]
            elif where == "SHN_UNDEF" and symbol.name:
                self.library.append(symbol.name)
                addresses.append(STUBS + 64 * len(self.library))
                self.engine.mem_write(addresses[-1], struct.pack("<I", 0xD65F03C0))  # ret
            else:
                addresses.append(0)
        for section in self.object.iter_sections():
            if section["sh_type"] == "SHT_RELA" and section["sh_info"] in sections:
                for r in section.iter_relocations():
                    place = sections[section["sh_info"]] + r["r_offset"]
                    self._relocate(place, r["r_info_type"], addresses[r["r_info_sym"]] + r["r_addend"])

    def _relocate(self, place, kind, value):
        def patch(mask, bits):
            (word,) = struct.unpack("<I", self.engine.mem_read(place, 4))
            self.engine.mem_write(place, struct.pack("<I", word & ~mask | bits & mask))

        if kind == 275:  # ADR_PREL_PG_HI21
            pages = (value >> 12) - (place >> 12)
            patch(3 << 29 | 0x7FFFF << 5, (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5)
        elif kind in (277, 278, 284, 285, 286, 299):  # ADD_ABS_LO12_NC, LDST8/16/32/64/128_ABS_LO12_NC
            shift = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4}[kind]
            patch(0xFFF << 10, (value & 0xFFF) >> shift << 10)
        elif kind in (282, 283):  # JUMP26, CALL26
            assert abs(value - place) < 1 << 27
            patch(0x3FFFFFF, (value - place) >> 2)
        elif kind == 261:  # PREL32
            self.engine.mem_write(place, struct.pack("<i", value - place))
        elif kind == 257:  # ABS64
            self.engine.mem_write(place, struct.pack("<Q", value))
        else:
            raise NotImplementedError(f"relocation {kind}")

    def _library_call(self, engine, address, size, user):
        name = self.library[(address - STUBS) // 64 - 1]
        read = lambda r: engine.reg_read(getattr(self.arm, f"UC_ARM64_REG_D{r}"))
        pattern = "<d" if name == "fmod" else "<f"
        if name not in ("fmod", "fmodf"):
            raise NotImplementedError(f"the code calls {name}")
        a, b = (struct.unpack_from(pattern, struct.pack("<Q", read(r)))[0] for r in (0, 1))
        engine.reg_write(self.arm.UC_ARM64_REG_D0, int.from_bytes(struct.pack(pattern, _fmod(a, b)), "little"))

    # -- calling
    def __call__(self, name, buffers, parameters, first, last, scratch=1 << 16):
        if self.mapped:
            self.engine.mem_unmap(*self.mapped)
        arrays = [*buffers, np.array(parameters, np.int64), np.full(scratch, 0xFF, np.uint8)]
        places, at = [], DATA + PAGE
        for a in arrays:
            places.append(at)
            at += (a.nbytes + 63) // 64 * 64 + 64
        table = at
        self.mapped = (DATA, (at + 8 * len(buffers) - DATA + 2 * PAGE) // PAGE * PAGE)
        self.engine.mem_map(*self.mapped)
        self.engine.mem_write(DATA, b"\xa5" * self.mapped[1])
        for a, p in zip(arrays, places, strict=True):
            self.engine.mem_write(p, np.ascontiguousarray(a).tobytes())
        self.engine.mem_write(table, struct.pack(f"<{len(buffers)}Q", *places[: len(buffers)]))
        before = bytes(self.engine.mem_read(*self.mapped))
        entry = {"X0": table, "X1": places[-2], "X2": first, "X3": last, "X4": places[-1], "SP": STACK + (1 << 19), "X30": STUBS}
        for register, value in entry.items():
            self.engine.reg_write(getattr(self.arm, f"UC_ARM64_REG_{register}"), value)
        self.engine.emu_start(self.symbols[name], STUBS, timeout=20_000_000)  # microseconds
        if self.engine.reg_read(self.arm.UC_ARM64_REG_PC) != STUBS:
            raise TimeoutError(f"{name} doesn't come to an end")
        after = bytes(self.engine.mem_read(*self.mapped))
        allowed = np.zeros(len(after), bool)
        for a, p in zip(arrays, places, strict=True):
            allowed[p - DATA : p - DATA + a.nbytes] = True
        changed = np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8)
        assert not (changed & ~allowed).any(), f"{name} writes outside of its buffers"
        for a, p in zip(buffers, places, strict=False):
            a[...] = np.frombuffer(after, a.dtype, a.size, p - DATA).reshape(a.shape)
