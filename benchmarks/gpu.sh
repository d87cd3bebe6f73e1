#!/usr/bin/env bash
# Tests and measurements on a CUDA device, in steps of less than nine minutes; see README.md beside this file.
#   benchmarks/gpu.sh [-o FOLDER] STEP ...
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
out=./bench-out
failed=0
export PYTHONUNBUFFERED=1

usage() { echo "usage: benchmarks/gpu.sh [-o FOLDER] $(echo "${STEPS[@]}" | tr ' ' '|') ..." >&2; exit 2; }
STEPS=(install quick tests sanitize kernels grouped tiles model long)

# run NAME SECONDS COMMAND...: its output goes to NAME.log too, its end is kept for the summary
run() {
  local name=$1 limit=$2 start=$SECONDS code
  shift 2
  timeout --signal=INT --kill-after=20 "$limit" "$@" 2>&1 | tee "$out/$name.log"
  code=${PIPESTATUS[0]}
  [ "$code" = 0 ] || failed=1
  echo "$name exit $code, $((SECONDS - start)) s" >>"$out/steps.txt"
}

step_install() { run install 200 "$PYTHON" -m pip install -q --no-deps --no-build-isolation -e .; }
step_quick() {
  run quick 400 "$PYTHON" -m pytest -p no:cacheprovider -m gpu -n "${WORKERS:-12}" --maxfail=20 tests/kernels/test_triton.py
}
step_tests() {
  run tests 530 "$PYTHON" -m pytest -p no:cacheprovider -m gpu -n "${WORKERS:-12}" -rs --durations=10 \
    tests/kernels/test_gpu.py tests/kernels/test_gpu_sdpa.py tests/probes/test_gpu.py
}
step_sanitize() {
  local chosen="lengths_around_blocks and (65 or 129) or every_width and 500 and (72 or 256)"
  for tool in memcheck racecheck; do
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 run "$tool" 260 compute-sanitizer --tool "$tool" --error-exitcode 9 \
      --target-processes all "$PYTHON" -m pytest -p no:cacheprovider -m gpu -k "$chosen" tests/kernels/test_gpu.py
  done
}
step_kernels() { run kernels 530 "$PYTHON" -m headatlas bench kernels --device cuda --out "$out/kernels"; }
step_grouped() {
  run grouped 400 "$PYTHON" -m headatlas bench kernels --device cuda --kv-heads 8 --lengths 8192,32768 --out "$out/grouped"
}
step_tiles() { run tiles 530 "$PYTHON" benchmarks/tiles.py --seconds "${TILE_SECONDS:-440}" --out "$out/tiles.csv"; }
step_model() {
  run model 530 "$PYTHON" -m headatlas bench model --model llama-8b --device cuda --lengths 32768 --repeats 5 --out "$out/model"
}
step_long() {
  run long 530 "$PYTHON" -m headatlas bench model --model llama-8b --device cuda --lengths 131072 --repeats 1 --out "$out/long"
}

if [ "${1:-}" = -o ]; then out=${2:?}; shift 2; fi
[ $# -gt 0 ] || usage
for step in "$@"; do [[ " ${STEPS[*]} " == *" $step "* ]] || usage; done
mkdir -p "$out"
: >"$out/steps.txt"
for step in "$@"; do "step_$step"; done
"$PYTHON" benchmarks/summary.py "$out"
exit "$failed"
