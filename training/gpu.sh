#!/usr/bin/env bash
# Train presenter-256 on one CUDA machine, from rendering to weights, in four commands of less than ten minutes.
#
#   training/gpu.sh PACK OUT STEP      STEP: render, first, second or check, in this order
#
# PACK is an archive of `python -m training.pack`. Results go to OUT, at most eight files of 15 MiB a step; all
# else stays in WORK, where the next step goes on. Needs python3 with torch, numpy, scipy, opencv, pillow, einops,
# safetensors, pyyaml, tqdm, av, moderngl and pytest, and EGL; nothing is downloaded. A step that was stopped is
# run again as it was: finished takes and stages are kept.
#
# Environment: PYTHON, WORK, WORKERS, PRESENTERS, MINUTES (of training video), SPOKEN_MINUTES (of keypoints alone),
# SCALE (factor of all training times), STEP_SECONDS (a step's limit), START (weights folder: its speech encoder is
# used, none is trained).
set -euo pipefail

[[ $# -eq 3 ]] || { sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 2; }
pack=$1 out=$2 step=$3
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=${WORK:-${TMPDIR:-/tmp}/avatar-training}
workers=${WORKERS:-$(nproc)}
presenters=${PRESENTERS:-maya,tom,lin,kofi}
limit_s=${STEP_SECONDS:-570}
data=$work/data speech=$work/speech runs=$work/runs
mkdir -p "$work" "$out"
export PYTHONUNBUFFERED=1
# Kernels that fail their tests here are not used for what this script trains and measures.
if [[ -f $work/kernels-failed ]]; then export KERNELS_BACKEND=torch; fi
started=$SECONDS

say() { echo "[$step $((SECONDS - started)) s] $*"; }
left() { echo $((limit_s - (SECONDS - started) - ${1:-0})); }  # seconds that remain, less a reserve

recipe() {  # recipe STAGES [stage:key=value …], ended when the step's time is up; output in the first stage's log
    local name=${1%%,*}
    timeout "$(left 20)" "$python" -m training.recipe training/configs/recipe_gpu.yaml \
        --data "$data" --speech "$speech" --out "$runs" --minutes-scale "${SCALE:-1}" ${START:+--start "$START"} \
        --stages "$@" >>"$work/log/$name.txt" 2>&1 \
        || { tail -n 25 "$work/log/$name.txt"; return 1; }
    say "done: $1"
}

wait_all() {  # waits for every background job; fails if one of them did
    local failed=0 job
    for job in "$@"; do wait "$job" || failed=1; done
    return $failed
}

gather() {  # logs and run descriptions, whatever the step came to
    rm -rf "$work/gathered" && mkdir -p "$work/gathered/logs"
    cp "$work"/log/*.txt "$work/gathered/logs/" 2>/dev/null || true
    local file
    for file in "$runs"/*/log.txt "$runs"/*/run.json; do
        if [[ -f $file ]]; then cp "$file" "$work/gathered/logs/$(basename "$(dirname "$file")")-$(basename "$file")"; fi
    done
    "$python" -m training.pack --results "$work/gathered/logs" --out "$out" --name "logs-$step"
}

render_takes() {  # render_takes MINUTES OPTION…
    local minutes=$1; shift
    timeout "$(left 45)" env OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 "$python" -m training.synthetic --out "$data" \
        --speech "$speech" "${dress[@]}" --presenters "$presenters" --minutes "$minutes" --workers "$workers" "$@" \
        || say "rendering ended early; what is finished is used"
}

mkdir -p "$work/log"
trap gather EXIT
case $step in
render)
    if command -v nvidia-smi >/dev/null; then nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv; fi
    [[ -f $speech/manifest.json ]] || "$python" -m training.pack --unpack "$pack" --out "$work"
    dress=()
    if [[ -d $work/assets ]]; then dress=(--assets "$work/assets"); fi
    "$python" - <<'PYTHON'
from training.synthetic.renderer import Renderer

print("renders on", Renderer().context.info["GL_RENDERER"])
PYTHON
    # The device has nothing to do while the processors render: test the kernels meanwhile.
    (timeout "$(left 30)" "$python" -m pytest tests/kernels -q -x -W default >"$work/log/kernels.txt" 2>&1 \
        || touch "$work/kernels-failed") &
    kernels=$!
    render_takes "${HELDOUT_MINUTES:-3}" --heldout --voices allison,awb
    render_takes "${MINUTES:-28}"
    render_takes "${SPOKEN_MINUTES:-140}" --keypoints-only --first-take 1000
    say "decode"
    timeout "$(left)" "$python" -m training.frames --data "$data" --workers "$workers"
    wait "$kernels"
    tail -n 3 "$work/log/kernels.txt"
    ;;
first)
    export OMP_NUM_THREADS=2
    jobs=()
    if [[ -z ${START:-} ]]; then recipe audio & jobs+=($!); fi
    recipe vae & jobs+=($!)
    wait_all "${jobs[@]}"
    recipe pose & jobs=($!)
    recipe latents & jobs+=($!)
    wait_all "${jobs[@]}"
    recipe animator,animated
    "$python" -m training.pack --results "$runs/weights" --out "$out" --name weights-first
    ;;
second)
    export OMP_NUM_THREADS=2
    recipe lr_a2v,lr_few_step & jobs=($!)
    recipe refiner & jobs+=($!)
    recipe vae_decoder & jobs+=($!)
    wait_all "${jobs[@]}"
    recipe generated,refiner_one_step  # on small latents of LR-A2V's making: after it
    "$python" -m training.pack --results "$runs/weights" --out "$out" --name weights-second
    recipe export,archives
    cp "$runs"/archives/*.tar "$out/"
    ;;
check)
    "$python" -m pytest tests/kernels -q -W default | tee "$work/log/kernels.txt" || touch "$work/kernels-failed"
    timeout 180 "$python" -m benchmarks.bench_kernels --out cuda | tee "$out/bench_kernels.txt" || say "no benchmark"
    if [[ -f benchmarks/results/cuda.json ]]; then cp benchmarks/results/cuda.json "$out/bench_kernels.json"; fi
    if recipe evaluation; then
        "$python" -m training.pack --results "$runs/evaluation" --out "$out" --name evaluation
    else
        say "no evaluation"
    fi
    cp "$runs"/archives/*.tar "$out/"
    ;;
*)
    echo "unknown step '$step'; there are render, first, second and check" >&2
    exit 2
    ;;
esac
say "done"
