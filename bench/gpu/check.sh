#!/usr/bin/env bash
# What a GPU machine is for, in steps that can be stopped and gone on with, the most worth first.
#   bench/gpu/check.sh list       the steps, how long each may take, and which are done
#   bench/gpu/check.sh            all steps that are not done, as far as GPU_CHECK_SECONDS go
#   bench/gpu/check.sh STEP...    these steps, done or not
# Runs in the repository's root. Needs no network. A step that is done leaves a mark and is skipped the next time; after every step
# results and logs go to $OUT. GPU_CHECK_DRY=1 runs everything on a CPU, at tiny sizes, over stand-ins of the devices.
set -uo pipefail
cd "$(dirname "$0")/../.."

DRY=${GPU_CHECK_DRY:-}
ROOT=${GPU_ROOT:-/tmp/gpu}                      # where the sets trt86 and ort were unpacked
STATE=${GPU_CHECK_STATE:-$ROOT/check}           # marks, bundles, results, logs
PACKED=${GPU_CHECK_PACKED:-build/packed}        # what bench/gpu/pack.sh made
OUT=${OUT:-build/gpu}
SECONDS_LEFT=${GPU_CHECK_SECONDS:-570}
PYTHON=${PYTHON:-python3}

# Step and the seconds that it may take.
STEPS=(
  machine:60
  nano-build:300 nano-verify:120 nano-logits:120 nano-quality:300
  1b-fill:120 1b-build-2:540 1b-verify:180 1b-bench-2:180 1b-rivals-2:360
  7b-fill:240 7b-build-2:540 7b-bench-2:240 7b-rivals-2:480 7b-verify:240
  1b-logits:480
  1b-build-32:540 1b-bench-32:240 1b-rivals-32:360
  1b-build-8:540 1b-bench-8:180 1b-rivals-8:360
  7b-build-32:540 7b-bench-32:300 7b-rivals-32:480
  7b-build-8:540 7b-bench-8:240 7b-rivals-8:480
)

results=$STATE/results
bundles=$STATE/bundles

# Three environments: TensorRT 8.6 with its own Python, ONNX Runtime's wheels, and the machine's torch.
if [[ $DRY ]]; then
  TRT=stand-in-slice CUDA=stand-in-gqa
  trt() { "$PYTHON" "$@"; }; ort() { "$PYTHON" "$@"; }; torch() { "$PYTHON" "$@"; }
  build=(--library tensorrt_rtx --compute-capability 8.9 --level 0 --flavour slice)
  bench=(--repeats 1 --seconds 0.5 --copy-mb 8)
  rivals=(--model tiny --device cpu --dtype fp32 --compiler eager --way eager --way compiled --repeats 1)
  quality=(--draws 8 --questions 8)
else
  TRT=tensorrt CUDA=cuda
  # shellcheck disable=SC1091
  trt() (source "$ROOT/trt86/env.sh" && exec python3 "$@")
  # shellcheck disable=SC1091
  ort() (source "$ROOT/ort/env.sh" && exec "$PYTHON" "$@")
  torch() { "$PYTHON" "$@"; }
  build=() bench=() quality=(--draws 300 --questions 300)
  rivals=(--dtype bf16)
fi

limit() { local step; for step in "${STEPS[@]}"; do [[ ${step%:*} == "$1" ]] && echo "${step#*:}" && return; done; return 1; }

# --- the steps -----------------------------------------------------------------------------------------------------------------

# What is there, in one line each; a missing environment is said here and costs the steps that need it.
machine() {
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>&1 | head -n 1
  nproc; free -g | sed -n 2p; df -h "$STATE" | tail -n 1
  local say='import sys; from bench.gpu.machine import versions; import NAMES; print(sys.version.split()[0], versions())' bad=0
  trt -c "${say/NAMES/$([[ $DRY ]] && echo tensorrt_rtx || echo 'tensorrt, cuda.core')}" || { echo "missing: the set trt86"; bad=1; }
  ort -c "${say/NAMES/onnxruntime, cuda.core}; import onnxruntime; print(onnxruntime.get_available_providers())" || { echo "missing: the set ort"; bad=1; }
  torch -c "${say/NAMES/torch, transformers, click}; import torch; print(torch.cuda.is_available())" || { echo "missing: torch"; bad=1; }
  if [[ ! $DRY ]]; then
    local open='from janus_runtime.backends.cuda_device import CudaDevice; device = CudaDevice(); print(device.name, device.free_bytes)'
    trt -c "$open" || bad=1
    ort -c "$open" || bad=1
  fi
  return $bad
}

nano-build() {
  mkdir -p "$bundles"
  rm -rf "$bundles/nano-fp32" "$bundles/nano-fp16"
  cp -r engines/janus-nano "$bundles/nano-fp32" && cp -r "$PACKED/nano-fp16" "$bundles/nano-fp16" || return
  local precision
  # Pictures come one and eight at a time.
  for precision in fp32 fp16; do
    trt -m bench.gpu.plans "$bundles/nano-$precision" --rows 2,16 --lengths 320 "${build[@]}" --out "$results/plans-nano-$precision.json" || return
  done
}

# both NAME COMMAND...: on each backend, whatever became of the other.
both() {
  local name=$1 bad=0
  shift
  trt -m "$@" --backend "$TRT" --out "$results/$name-tensorrt.json" || bad=1
  ort -m "$@" --backend "$CUDA" --out "$results/$name-cuda.json" || bad=1
  return $bad
}

nano-verify() {
  local bad=0
  trt -m bench.gpu.parity verify "$bundles/nano-fp32" --backend "$TRT" --out "$results/verify-nano-fp32-tensorrt.json" || bad=1
  both verify-nano-fp16 bench.gpu.parity verify "$bundles/nano-fp16" || bad=1
  return $bad
}

# agree ENVIRONMENT BUNDLE BACKEND NAME BASELINE: fed what the CPU drew.
agree() {
  local record=$STATE/records/$4.npz
  "$1" -m bench.gpu.parity record "$2" --backend "$3" --fed "$5" --out "$record" &&
    "$1" -m bench.gpu.parity compare "$5" "$record" --out "$results/logits-$4.json"
}

nano-logits() {
  local cpu=$STATE/records/nano-cpu.npz bad=0
  ort -m bench.gpu.parity record engines/janus-nano --backend cpu --out "$cpu" || return
  agree trt "$bundles/nano-fp32" "$TRT" nano-fp32-tensorrt "$cpu" || bad=1
  agree trt "$bundles/nano-fp16" "$TRT" nano-fp16-tensorrt "$cpu" || bad=1
  agree ort "$bundles/nano-fp16" "$CUDA" nano-fp16-cuda "$cpu" || bad=1
  return $bad
}

nano-quality() {
  local cpu=$results/quality-nano-cpu.json
  ort -m bench.gpu.parity quality engines/janus-nano --backend cpu "${quality[@]}" --out "$cpu" || return
  both quality-nano bench.gpu.parity quality "$bundles/nano-fp16" "${quality[@]}" --baseline "$cpu"
}

# fill NAME: a packed bundle, with its weights, in our own folder; carrying again would take them away.
fill() {
  mkdir -p "$bundles" && rm -rf "${bundles:?}/$1" && cp -r "$PACKED/$1" "$bundles/$1" && torch -m testing.seeded_bundle fill "$bundles/$1"
}
1b-fill() { fill 1b-fp16; }
7b-fill() { fill 7b-fp16; }

# One row count and one cache length at a time: each costs minutes of building.
plans() {
  # Those of other row counts, which would else lie on the disk twice; what was timed stays.
  rm -rf "${bundles:?}/$1-fp16/plans"/*/
  trt -m bench.gpu.plans "$bundles/$1-fp16" --rows "$2" --lengths 704 "${build[@]}" --out "$results/plans-$1-$2.json"
}
1b-build-2() { plans 1b 2; }
1b-build-8() { plans 1b 8; }
1b-build-32() { plans 1b 32; }
7b-build-2() { plans 7b 2; }
7b-build-8() { plans 7b 8; }
7b-build-32() { plans 7b 32; }

graphs() { both "verify-$1" bench.gpu.parity verify "$bundles/$1-fp16"; }
1b-verify() { graphs 1b; }
7b-verify() { graphs 7b; }

ours() { both "gpu-$1-$2" bench.gpu.latency "$bundles/$1-fp16" --rows "$2" "${bench[@]}"; }
1b-bench-2() { ours 1b 2; }
1b-bench-8() { ours 1b 8; }
1b-bench-32() { ours 1b 32; }
7b-bench-2() { ours 7b 2; }
7b-bench-8() { ours 7b 8; }
7b-bench-32() { ours 7b 32; }

others() { torch -m bench.gpu.rivals --model "janus-pro-$1" --rows "$2" "${rivals[@]}" --out "$results/gpu-$1-$2-rivals.json"; }
1b-rivals-2() { others 1b 2; }
1b-rivals-8() { others 1b 8; }
1b-rivals-32() { others 1b 32; }
7b-rivals-2() { others 7b 2; }
7b-rivals-8() { others 7b 8; }
7b-rivals-32() { others 7b 32; }

# All 576 steps at the true width, from the same seed in both precisions.
1b-logits() {
  local cpu=$STATE/records/1b-cpu.npz bad=0
  fill 1b-fp32 && ort -m bench.gpu.parity record "$bundles/1b-fp32" --backend cpu --out "$cpu" || return
  rm -rf "$bundles/1b-fp32"
  agree trt "$bundles/1b-fp16" "$TRT" 1b-tensorrt "$cpu" || bad=1
  agree ort "$bundles/1b-fp16" "$CUDA" 1b-cuda "$cpu" || bad=1
  return $bad
}

# --- running them --------------------------------------------------------------------------------------------------------------

flush() {
  mkdir -p "$OUT"
  tar czf "$OUT/.gpu_check.tar.gz" -C "$STATE" results logs && mv "$OUT/.gpu_check.tar.gz" "$OUT/gpu_check.tar.gz"
}

# run STEP: in a process of its own, so that it can be stopped whole.
run() {
  local seconds began=$SECONDS status
  seconds=$(limit "$1") || { echo "check.sh: got step $1, expected one of: ${STEPS[*]%:*}" >&2; exit 2; }
  rm -f "$STATE/done/$1"
  timeout -k 10 "$seconds" bash bench/gpu/check.sh inside "$1" >"$STATE/logs/$1.log" 2>&1
  status=$?
  [[ $status == 0 ]] && touch "$STATE/done/$1"
  echo "== $1: $([[ $status == 0 ]] && echo ok || echo "FAILED ($status)") after $((SECONDS - began)) s"
  tail -n "$([[ $status == 0 ]] && echo 12 || echo 30)" "$STATE/logs/$1.log"
  flush
  return $status
}

case ${1:-} in
list)
  for step in "${STEPS[@]}"; do
    printf '%-14s %4s s  %s\n' "${step%:*}" "${step#*:}" "$([[ -f $STATE/done/${step%:*} ]] && echo done)"
  done
  exit
  ;;
inside) "$2"; exit ;;
esac

mkdir -p "$STATE/done" "$STATE/logs" "$STATE/records" "$results"
failed=0
if (($#)); then
  for step in "$@"; do run "$step" || failed=1; done
  exit $failed
fi
for step in "${STEPS[@]%:*}"; do
  [[ -f $STATE/done/$step ]] && continue
  if ((SECONDS + $(limit "$step") > SECONDS_LEFT)); then
    echo "== next is $step, for which $((SECONDS_LEFT - SECONDS)) s are too few; run this again"
    exit $failed
  fi
  run "$step" || failed=1
done
exit $failed
