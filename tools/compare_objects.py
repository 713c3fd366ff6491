"""Shows that a refactoring of the C sources left the machine code alone.

    python setup.py build_ext --build-temp before    # the old commit
    python setup.py build_ext --build-temp after     # the new one
    python -m tools.compare_objects before after --renames renames.txt

Compares every object file: the allocated sections (code, constants, unwind tables) byte by byte,
and their relocations. A line ``old new`` of the table of renames maps an object's name, without
its ending, or a symbol; everything else must be the same. Objects named by ``--except`` are left
out: translation units that were cut, whose results and instruction counts are compared instead.
"""

import argparse
import struct
import sys
from pathlib import Path

SHT_RELA, SHT_SYMTAB, SHT_NOBITS = 4, 2, 8
SHF_ALLOC = 2
STT_SECTION = 3


def text(table, offset):
    return table[offset : table.index(b"\0", offset)].decode()


class Object:
    """The allocated sections of an ELF64 object, and their relocations."""

    def __init__(self, path):
        data = path.read_bytes()
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path} is no 64-bit little-endian ELF file")
        start, size, count, names = struct.unpack_from("<Q10xHHH", data, 40)
        headers = [struct.unpack_from("<IIQQQQIIQQ", data, start + i * size) for i in range(count)]
        contents = [data[h[4] : h[4] + h[5]] if h[1] != SHT_NOBITS else h[5] for h in headers]
        title = [text(contents[names], h[0]) for h in headers]
        self.sections = {
            title[i]: contents[i]
            for i, h in enumerate(headers)
            if h[2] & SHF_ALLOC and h[1] != SHT_RELA
        }
        symbols = []
        for i, h in enumerate(headers):
            if h[1] == SHT_SYMTAB:
                for entry in struct.iter_unpack("<IBBHQQ", contents[i]):
                    section = entry[1] & 15 == STT_SECTION
                    symbols.append(title[entry[3]] if section else text(contents[h[6]], entry[0]))
        self.relocations = {
            title[h[7]]: [
                (offset, info & 0xFFFFFFFF, symbols[info >> 32], addend)
                for offset, info, addend in struct.iter_unpack("<QQq", contents[i])
            ]
            for i, h in enumerate(headers)
            if h[1] == SHT_RELA and title[h[7]] in self.sections
        }


def differences(old, new, renames):
    """The first difference of each section, as text."""
    for name in sorted(old.sections.keys() | new.sections.keys()):
        a, b = old.sections.get(name), new.sections.get(name)
        if a is None or b is None:
            yield f"{name} is only in the {'new' if a is None else 'old'} object"
        elif a != b:
            at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), None)  # noqa: B905
            yield f"{name} differs, {len(a)} and {len(b)} bytes" + (
                "" if at is None else f", first at byte {at:#x}"
            )
        mapped = [
            (offset, kind, renames.get(symbol, symbol), addend)
            for offset, kind, symbol, addend in old.relocations.get(name, ())
        ]
        for one, other in zip(mapped, new.relocations.get(name, ()), strict=False):
            if one != other:
                yield f"{name} has a relocation {one} in the old object, {other} in the new one"
                break
        else:
            if len(mapped) != len(new.relocations.get(name, ())):
                yield f"{name} has another number of relocations"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--renames", type=Path, help='a file of lines "old new"')
    parser.add_argument("--except", dest="cut", nargs="*", default=[], help="objects left out")
    arguments = parser.parse_args()
    lines = arguments.renames.read_text().splitlines() if arguments.renames else []
    renames = dict(line.split() for line in lines if line.strip() and not line.startswith("#"))
    found = {
        (path.relative_to(arguments.new).parts[0], path.stem): path
        for path in arguments.new.rglob("*.o")
    }
    same = different = 0
    for path in sorted(arguments.old.rglob("*.o")):
        variant, stem = path.relative_to(arguments.old).parts[0], path.stem
        if stem in arguments.cut:
            continue
        match = found.get((variant, renames.get(stem, stem)))
        if match is None:
            print(f"{variant}/{stem}: no such object among the new ones")
            different += 1
            continue
        rows = list(differences(Object(path), Object(match), renames))
        for row in rows:
            print(f"{variant}/{stem}: {row}")
        same, different = same + (not rows), different + bool(rows)
    print(f"{same} objects are the same, {different} differ; left out: {arguments.cut or 'none'}")
    return different > 0 or same == 0


if __name__ == "__main__":
    sys.exit(main())
