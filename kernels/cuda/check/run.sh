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
    local last_line
    last_line=$(grep . "$out/$name.log" | tail -n 1 | tr '\t' ' ' | cut -c -200)
    printf '%s\t%s\t%s\t%s\n' "$name" "$status" "$((SECONDS - begin))" "$last_line" | tee -a "$out/parts.tsv"
}

# Waits until fewer than so many parts run: what is not timed runs side by side, as compiling kernels takes the processor.
await_fewer_than() {
    while (($(jobs -rp | wc -l) >= $1)); do wait -n; done
}
at_once=$((($(nproc) + 1) / 2))

cp "$bin/built-from" "$out/" 2>/dev/null
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$out/device.csv"

until=$((seconds * 30 / 100))
# What is told where there is no device, or another one, is a matter of the stand-in.
for test in "$bin"/tests/*; do
    await_fewer_than $at_once
    PROPTEST_CASES=8 part "test-$(basename "$test")" 90 "$test" --test-threads=1 --skip unavailable:: &
done
wait

until=$((seconds * 75 / 100))
part bench 150 bash -c '"$1" bench kernels --device cuda --seconds 130 --json >"$2"' - "$bin/manygate" "$out/bench.json"
if "$python" -c 'import torch' 2>/dev/null; then
    part torch 150 "$python" torch_reference.py "$out/torch.json"
else
    echo 'no PyTorch: nothing to compare with'
fi

until=$seconds
if command -v compute-sanitizer >/dev/null; then
    # Few cases of each property: these tools slow kernels down. Calls that the driver refuses are part of tests.
    for tool in memcheck racecheck initcheck synccheck; do
        for test in "$bin"/with-lines/*; do
            await_fewer_than $at_once
            PROPTEST_CASES=2 part "$tool-$(basename "$test")" 90 compute-sanitizer --tool "$tool" \
                --report-api-errors no --error-exitcode 9 "$test" --test-threads=1 --skip unavailable:: &
        done
    done
    wait
else
    echo 'no compute-sanitizer: kernels are not looked at'
fi

"$python" merge.py "$out" >"$out/result.json" || exit
awk -F '\t' '$2 != 0 { failed = 1; print $1 " failed" } END { exit failed }' "$out/parts.tsv"
failed=$?
echo "$out/result.json, after ${SECONDS}s"
exit $failed
