#!/usr/bin/env bash
# The kernels on a machine with an NVIDIA GPU: right, clean under compute-sanitizer, and how fast beside PyTorch.
#
#     kernels/cuda/check/run.sh [OUT]      # OUT: a new folder for logs and result.json; default: out beside this file
#
# Needs bin/ (see build.sh), bash, Python 3 and the driver; PyTorch and compute-sanitizer where they are found. No part
# stops another, each has a time limit, and all of it is over after CHECK_SECONDS (480): 30 % for tests, then up to 75 %
# for times, the rest for sanitizers. Keep the result as results/gpu/<date>-<device>.json.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/out}
bin=$here/bin
python=${PYTHON:-python3}
mkdir -p "$out"
rm -f "$out"/*.{log,json,tsv,csv}
out=$(cd "$out" && pwd)
cd "$here"
SECONDS=0
seconds=${CHECK_SECONDS:-480}
# When the parts that follow have to be done.
until=0
failed=0

# Where drivers lie in containers, which the linker may not know.
for folder in /usr/local/nvidia/lib64 /usr/local/nvidia/lib; do
    [[ -e $folder/libcuda.so.1 ]] && export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
done
export PATH=$PATH:/usr/local/cuda/bin
export MANYGATE_TEST_DEVICE=cuda MANYGATE_ROOT=$bin/root

# part NAME SECONDS COMMAND...: runs it in that time, or what there is; leaves NAME.log and a line of parts.tsv.
part() {
    local name=$1 limit=$2 begin=$SECONDS status
    shift 2
    ((limit > until - SECONDS)) && limit=$((until - SECONDS))
    if ((limit > 0)); then
        timeout --kill-after=5 "$limit" "$@" >"$out/$name.log" 2>&1 </dev/null
        status=$?
    else
        echo 'no time left' >"$out/$name.log"
        status=124
    fi
    ((status == 0)) || failed=1
    local last_line
    last_line=$(grep . "$out/$name.log" | tail -n 1 | tr '\t' ' ' | cut -c -200)
    printf '%s\t%s\t%s\t%s\n' "$name" "$status" "$((SECONDS - begin))" "$last_line" | tee -a "$out/parts.tsv"
}

# One tool of compute-sanitizer over all tests, few cases of each property: it slows kernels down. A test that takes
# too long leaves time for the others.
sanitize() {
    local tool=$1 status=0
    for test in "$bin"/with-lines/*; do
        echo "== $(basename "$test")"
        timeout 10 compute-sanitizer --tool "$tool" --error-exitcode 9 "$test" --test-threads=1 || status=$?
    done
    return $status
}

cp "$bin/built-from" "$out/" 2>/dev/null
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$out/device.csv"

until=$((seconds * 30 / 100))
for test in "$bin"/tests/*; do
    PROPTEST_CASES=8 part "test-$(basename "$test")" 45 "$test" --test-threads=1
done

until=$((seconds * 75 / 100))
part bench 120 bash -c '"$1" bench kernels --device cuda --seconds 90 --json >"$2"' - "$bin/manygate" "$out/bench.json"
if "$python" -c 'import torch' 2>/dev/null; then
    part torch 150 "$python" torch_reference.py "$out/torch.json"
else
    echo 'no PyTorch: nothing to compare with'
fi

until=$seconds
if command -v compute-sanitizer >/dev/null; then
    export -f sanitize
    export bin
    for tool in memcheck racecheck synccheck initcheck; do
        PROPTEST_CASES=2 part "$tool" 60 bash -c 'sanitize "$1"' - "$tool"
    done
else
    echo 'no compute-sanitizer: kernels are not looked at'
fi

"$python" merge.py "$out" >"$out/result.json" || failed=1
echo "$out/result.json, after ${SECONDS}s"
exit $failed
