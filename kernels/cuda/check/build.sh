#!/usr/bin/env bash
# Builds what run.sh needs into bin/ (not in git), on a machine with Rust and without a GPU; the whole folder is then
# carried to one with a GPU and PyTorch. Programs need glibc of this machine's version or newer there, and nothing else.
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD root=$(cd ../../.. && pwd)
bin=$here/bin
rm -rf "$bin"
mkdir -p "$bin/tests" "$bin/with-lines"

# Copies the test programs of `cargo test ARGUMENTS` to a folder, each under its own name.
copy_tests() {
    local folder=$1
    shift
    cargo test --release --locked --no-run --message-format=json "$@" | python3 -c '
import json, shutil, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["profile"]["test"] and message["target"]["kind"] == ["test"]:
        shutil.copy(message["executable"], sys.argv[1] + "/" + message["target"]["name"])
' "$folder"
}

cd "$root"
git describe --always --dirty >"$bin/built-from"
cargo build --release --locked -p manygate-cli
cp target/release/manygate "$bin/"
copy_tests "$bin/tests" -p manygate-cuda-tests
copy_tests "$bin/tests" -p manygate-tests --test device_golden --test device_steps --test device_training \
    --test device_evaluation
# What tests read: MANYGATE_ROOT there.
mkdir "$bin/root"
cp -r --parents README.md tests/golden configs data/quickstart "$bin/root"

# The same tests of PTX that names the lines of its source, for compute-sanitizer: from a copy of the tree, as what is
# committed stays as it is.
copy=$root/target/cuda-check/tree
rm -rf "$copy"
mkdir -p "$copy"
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- -cf - | tar -xf - -C "$copy"
python3 kernels/cuda/ptx.py build --line-info --output "$copy/kernels/cuda/ptx"
cd "$copy"
copy_tests "$bin/with-lines" -p manygate-cuda-tests --target-dir "$root/target/cuda-check/build"

# Faults are planted for the interpreter alone.
rm "$bin"/{tests,with-lines}/planted_faults
strip "$bin/manygate" "$bin"/tests/* "$bin"/with-lines/*
du -sh "$bin"
