#!/usr/bin/env bash
# All measurements that need a CUDA device, in one call of less than ten minutes.
#
#   benchmarks/gpu.sh OUT
#
# Writes to OUT a JSON file and a log for every benchmark (benchmarks/bench_*.py say what is in them), and
# summary.txt: what was measured, what failed, and what time did not allow. Most wanted first: a step that has no time
# left is skipped and named. Nothing is downloaded; weights are random or shipped.
#
# A kernel that fails its first test is not used for the rest: KERNELS_HOPPER=0 leaves the portable attention kernel,
# KERNELS_BACKEND=torch none; without a graph if those fail theirs. The summary says so.
#
# Environment: PYTHON (python3), SECONDS_IN_ALL (570), TILES=1 (compare tiles of the attention kernels as well: two
# minutes more), DEVICE (cuda; cpu runs everything at toy size, to try this script).
set -uo pipefail

[[ $# -eq 1 ]] || { sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1" || exit 1
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
limit_s=${SECONDS_IN_ALL:-570}
device=${DEVICE:-cuda}
export PYTHONUNBUFFERED=1
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-${TMPDIR:-/tmp}/avatar-triton}
started=$SECONDS failed=0
: >"$out/summary.txt"

say() { echo "[$((SECONDS - started)) s] $*" | tee -a "$out/summary.txt"; }
left() { echo $((limit_s - (SECONDS - started))); }

run() {  # run NAME MOST_SECONDS MODULE OPTION…: one benchmark, its JSON and log named NAME
    local name=$1 most=$2 status; shift 2
    if ((most > $(left))); then most=$(left); fi
    if ((most < 15)); then say "no time left for $name"; failed=1; return; fi
    timeout "$most" "$python" -m "$@" --device "$device" --folder "$out" --out "$name" >"$out/$name.log" 2>&1
    status=$?
    case $status in
        0) say "done: $name" ;;
        124) say "stopped after $most s: $name"; failed=1 ;;
        *) say "failed: $name"; tail -n 5 "$out/$name.log" | tee -a "$out/summary.txt"; failed=1 ;;
    esac
}

check() {  # check NAME MOST_SECONDS PYTEST_OPTION…: tests on this device; fails if one does, not if time ends
    local name=$1 most=$2 status; shift 2
    timeout "$most" "$python" -m pytest -q -x -p no:cacheprovider "$@" >"$out/$name.log" 2>&1
    status=$?
    if ((status == 124)); then say "stopped after $most s: $name"; return 0; fi
    return $status
}

if [[ $device == cuda ]]; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | tee -a "$out/summary.txt"
    if ! check check-hopper 60 tests/kernels/test_attention_cached.py -k hopper_kernel; then
        export KERNELS_HOPPER=0
        say "the Hopper attention kernel failed its test (or this is no Hopper): the portable one is measured"
    fi
    if ! check check-portable 60 tests/kernels/test_attention.py -k "test_kernel_equals_reference and bfloat16"; then
        export KERNELS_BACKEND=torch
        say "the portable attention kernel failed its test: PyTorch is measured instead of the kernels"
    fi
    two=(--refiner 2b) one=(--refiner 1.3b) graphs=(--graphs)
    if ! check check-graphs 60 tests/models/test_graphs.py tests/models/test_overlap.py -k cuda; then
        graphs=()
        say "graphs or overlapping halves failed their tests on the device: the models are measured without graphs"
    fi
    if ! check check-fp8 40 tests/models/test_fp8.py; then
        say "fp8 failed its tests: its figures mean nothing"
    fi
    large=paper-720p small=(presenter-512 presenter-256) sizes=720p small_sizes=(512 256)
else
    two=(--chunks 4) one=(--chunks 4) graphs=()
    large=tiny small=(tiny) sizes=toy small_sizes=()
fi

run chunk-$large-2b-4-steps 120 benchmarks.bench_chunk --preset $large "${two[@]}" --steps 4
run kernels-$sizes 170 benchmarks.bench_kernels --sizes $sizes --seconds 0.1
run chunk-$large-1.3b-4-steps 90 benchmarks.bench_chunk --preset $large "${one[@]}" --steps 4
run chunk-$large-2b-2-steps 60 benchmarks.bench_chunk --preset $large "${two[@]}" --steps 2 --no-plain
run chunk-$large-1.3b-2-steps 60 benchmarks.bench_chunk --preset $large "${one[@]}" --steps 2 --no-plain
run chunk-$large-2b-4-steps-fp8 60 benchmarks.bench_chunk --preset $large "${two[@]}" --steps 4 --fp8 --no-plain
for name in "${small[@]}"; do
    run "sessions-$name" 60 benchmarks.bench_sessions --preset "$name" --seconds 0.5 "${graphs[@]}"
    run "chunk-$name" 45 benchmarks.bench_chunk --preset "$name" "${graphs[@]}"
done
run chunk-$large-2b-4-steps-graphs 60 benchmarks.bench_chunk --preset $large "${two[@]}" --steps 4 "${graphs[@]}" --no-plain
if [[ $device == cuda ]]; then
    for family in lite leaptalk pro; do
        run "public-$family" 60 benchmarks.bench_public --family $family
        run "public-$family-graphs" 60 benchmarks.bench_public --family $family "${graphs[@]}"
    done
    run public-lite-fp8 60 benchmarks.bench_public --family lite --fp8 "${graphs[@]}"
fi
for size in "${small_sizes[@]}"; do
    run "kernels-$size" 60 benchmarks.bench_kernels --sizes "$size" --seconds 0.05
done
if [[ $device == cuda ]]; then
    run kernels-$sizes-compiled 120 benchmarks.bench_kernels --sizes $sizes --seconds 0.05 --compile \
        --op low_pass --op modulate --op qk_norm_rope --op pose_tokens --op rgb_to_i420 --op norm_act
fi
if [[ ${TILES:-} == 1 ]]; then
    run kernels-$sizes-tiles 150 benchmarks.bench_kernels --sizes $sizes --seconds 0.05 --op attention --tiles
fi
if [[ $device == cuda ]]; then  # what is left of the time goes to the tests
    if (($(left) < 20)); then
        say "no time left for tests/kernels"
        failed=1
    elif check tests-kernels "$(left)" tests/kernels --deselect tests/kernels/test_compile.py; then
        say "done: tests/kernels, $(tail -n 1 "$out/tests-kernels.log")"
    else
        say "tests/kernels failed or were stopped: $(tail -n 1 "$out/tests-kernels.log")"
        failed=1
    fi
fi
say "everything is in $out"
exit $failed
