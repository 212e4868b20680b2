#!/usr/bin/env bash
# The CUDA kernels as host C++, under AddressSanitizer and UndefinedBehaviorSanitizer, against plain loops.
#
#     kernels/cuda/host/run.sh                  # all tests of this folder
#     kernels/cuda/host/run.sh gemm             # gemm_test.cpp
#     kernels/cuda/host/run.sh --debug gemm     # built for a debugger, without sanitizers; says how to start it
#
# Needs g++ or another C++17 compiler in CXX. Not part of the gate, which has the PTX interpreter; `.ci/sanitize cuda`
# runs it.
set -euo pipefail
cd "$(dirname "$0")"
built=../../../target/cuda-host
compiler=${CXX:-g++}

flags=(-std=c++17 -g -I.. -Wall -Wextra -Werror -Wno-unknown-pragmas -Wno-sign-compare)
# Unlike the CUDA compilers: what a kernel needs fused it writes as fmaf.
flags+=(-ffp-contract=off)
sanitized=(-O1 -fsanitize=address,undefined -fno-sanitize-recover=all)
# clang guards variables in sections without being told.
"$compiler" --version | grep -q clang || sanitized+=(-fsanitize-sections=emulated_shared)

mode=sanitized
if [[ ${1:-} == --debug ]]; then
    mode=debug
    sanitized=(-O0)
    shift
fi
tests=("$@")
(($#)) || for test in *_test.cpp; do tests+=("${test%_test.cpp}"); done

mkdir -p "$built"
compile() { "$compiler" "${flags[@]}" "${sanitized[@]}" "$@"; }
emulation=("$built/scheduler-$mode.o" "$built/fiber-$mode.o")
compile -c scheduler.cpp -o "${emulation[0]}"
compile -c fiber.cpp -o "${emulation[1]}"
for test in "${tests[@]}"; do
    program=$built/$test-$mode
    compile "${test}_test.cpp" "${emulation[@]}" -o "$program"
    if [[ $mode == debug ]]; then
        echo "gdb $(realpath "$program")"
    else
        printf '%s: ' "$test"
        "$program"
    fi
done
