#!/usr/bin/env python3
"""Makes the PTX of the CUDA kernels, and checks that what is committed is what their source compiles to.

    kernels/cuda/ptx.py build            # all families, after a change of a header
    kernels/cuda/ptx.py build gemm gate  # some of them
    kernels/cuda/ptx.py check            # what the gate runs

A family is a file `<family>.cu`; its PTX is `ptx/<family>.ptx`, and what its kernels take on each device stands in
`ptx/registers.tsv`. Both are committed, so that no build of the engine needs a compiler of CUDA. Both commands assemble
the PTX for every device it is meant for.

The compilers come from PyPI on first use, 83 MB, and stay in target/cuda-toolchain, or where MANYGATE_CUDA_TOOLCHAIN
says. Needs Python 3.9 with pip, on Linux x86-64; no GPU and no CUDA.

Exit status: 0 when all is well, 1 when something differs, does not compile or spills registers, 2 on wrong usage.
"""
import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from toolchain import LINE_INFO, TARGETS, Failure, Toolchain, default_folder, target_name

CUDA = Path(__file__).resolve().parent
ROOT = CUDA.parents[1]
PTX = CUDA / "ptx"
TABLE = PTX / "registers.tsv"
COLUMNS = ["family", "kernel", *map(target_name, TARGETS)]
REBUILD = "kernels/cuda/ptx.py build"


def all_families():
    return sorted(path.stem for path in CUDA.glob("*.cu"))


def ptx_of(family):
    return PTX / f"{family}.ptx"


def compile_family(toolchain, family, options=()):
    try:
        return toolchain.nvrtc().compile(CUDA / f"{family}.cu", CUDA, options)
    except Failure as failure:
        raise Failure(f"{family}.cu:\n{failure}") from None


# The table of resources: a row a kernel, a cell a device.


def measure(toolchain, paths):
    """{(family, kernel): cells} of files of PTX, assembled for all devices at once."""
    toolchain.fetch_all()
    rows = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [(path, [pool.submit(toolchain.assemble, path, target) for target in TARGETS]) for path in paths]
        for path, results in jobs:
            of_targets = [result.result() for result in results]
            for kernel in {kernel for resources in of_targets for kernel in resources}:
                rows[path.stem, kernel] = [str(resources.get(kernel, "-")) for resources in of_targets]
    return rows


def read_table():
    if not TABLE.exists():
        return {}
    _, *lines = TABLE.read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    return {(family, kernel): cells for family, kernel, *cells in rows}


def write_table(rows):
    lines = [COLUMNS, *([*key, *cells] for key, cells in sorted(rows.items()))]
    write_if_changed(TABLE, "".join("\t".join(line) + "\n" for line in lines).encode())


def table_differences(committed, measured):
    """A line for each kernel that is not as the table has it."""
    for family, kernel in sorted(committed.keys() | measured.keys()):
        before, now = committed.get((family, kernel)), measured.get((family, kernel))
        name = f"{family}: {kernel}"
        if before is None:
            yield f"{name} is not in registers.tsv"
            continue
        if now is None:
            yield f"{name} is in registers.tsv and nowhere else"
            continue
        for column, was, is_now in zip(COLUMNS[2:], before, now):
            if was != is_now:
                yield f"{name} on {column} takes {is_now}, not {was}"


def new_spills(committed, measured):
    """A line for each kernel that spills registers and did not so before."""
    for (family, kernel), cells in sorted(measured.items()):
        spilling = [column for column, cell in zip(COLUMNS[2:], cells) if "spilled" in cell]
        if spilling and "spilled" not in " ".join(committed.get((family, kernel), [])):
            yield f"{family}: {kernel} spills registers on {', '.join(spilling)}: {cells}"


# The commands.


def build(args, toolchain):
    families = args.families or all_families()
    folder = args.output or PTX
    for family in families:
        path = folder / f"{family}.ptx"
        changed = write_if_changed(path, compile_family(toolchain, family, [LINE_INFO] * args.line_info))
        print(f"{os.path.relpath(path)}{'' if changed else ' (as it was)'}", file=sys.stderr)
    if args.output:
        return 0
    for path in set(PTX.glob("*.ptx")) - set(map(ptx_of, all_families())):
        path.unlink()
        print(f"{os.path.relpath(path)} removed: it has no source", file=sys.stderr)
    committed = read_table()
    measured = measure(toolchain, map(ptx_of, families))
    print("\t".join(COLUMNS))
    for key, cells in sorted(measured.items()):
        print("\t".join([*key, *cells]))
    if spills := list(new_spills(committed, measured)):
        if not args.allow_spills:
            raise Failure("\n".join([*spills, "registers.tsv is left as it was; --allow-spills writes them into it"]))
    kept = {key: cells for key, cells in committed.items() if key[0] in all_families() and key[0] not in families}
    write_table(kept | measured)
    return 0


def check(_, toolchain):
    wanted = {ptx_of(family): compile_family(toolchain, family) for family in all_families()}
    problems = []
    for path in sorted(wanted.keys() | set(PTX.glob("*.ptx"))):
        name = path.relative_to(ROOT)
        if not path.exists():
            problems.append(f"{name} is missing")
        elif path not in wanted:
            problems.append(f"{name} has no source")
        elif path.read_bytes() != wanted[path]:
            problems.append(f"{name} is not what its source compiles to")
    if not problems:
        # The files are what was compiled, so they may stand for it.
        problems += table_differences(read_table(), measure(toolchain, wanted))
    if problems:
        raise Failure("\n".join([*problems, f"After a change of kernels, `{REBUILD}` makes these files anew."]))
    print(f"{len(wanted)} files of PTX are what their source compiles to, and their {len(read_table())} kernels take "
          f"what registers.tsv says for {len(TARGETS)} targets")
    return 0


def write_if_changed(path, data):
    """Leaves a file alone that is right, so that cargo builds nothing anew."""
    if path.exists() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return True


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    builder = commands.add_parser("build", help="make PTX and table anew, and print what kernels take")
    builder.add_argument("families", nargs="*", metavar="FAMILY",
                         help="name of a .cu file without its ending; default: all")
    builder.add_argument("--output", type=Path, metavar="FOLDER",
                         help="write the PTX there alone, and no table")
    builder.add_argument("--line-info", action="store_true",
                         help="with lines of the source, for compute-sanitizer and profilers; needs --output")
    builder.add_argument("--allow-spills", action="store_true",
                         help="accept kernels that have begun to spill registers")
    builder.set_defaults(run=build)
    commands.add_parser("check", help="compare with what is committed; changes nothing").set_defaults(run=check)
    args = parser.parse_args()
    if args.command == "build":
        if unknown := set(args.families) - set(all_families()):
            known = ", ".join(all_families()) or "none"
            parser.error(f"no such family: {', '.join(sorted(unknown))}; there are {known}")
        if args.line_info and not args.output:
            parser.error("--line-info needs --output: what is committed has no lines")
    return args


def main():
    args = parse_arguments()
    try:
        return args.run(args, Toolchain(default_folder(ROOT)))
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
