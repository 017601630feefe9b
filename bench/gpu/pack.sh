#!/usr/bin/env bash
# Makes what must be carried to a GPU machine that has no network, and says in what order. Runs in the repository's root.
#   bench/gpu/pack.sh build/packed PART...    PART: folders of the sets trt86 and ort, as their pack.sh made them
# At Janus-Pro's shapes an export takes minutes and room for the whole bundle (7B: 15 GB), of which a few MB are kept.
# GPU_CHECK_DRY=1 packs tiny models instead.
set -euo pipefail
out=${1:?usage: bench/gpu/pack.sh DIR PART...}; shift
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
for part in "$@"; do
  [[ -f $part/part && -f $part/unpack.sh ]] || { echo "pack.sh: $part is no part of a set; expected a folder with part and unpack.sh" >&2; exit 2; }
done
mkdir -p "$out"

# pack NAME MODEL PRECISION
pack() { [[ -d $out/$1 ]] || "$python" -m testing.seeded_bundle pack --model "$2" --precision "$3" --out "$out/$1"; }

[[ -d $out/nano-fp16 ]] || "$python" -m janus_export.cli checkpoint nano/janus-nano --out "$out/nano-fp16" --precision fp16 --quiet
if [[ ${GPU_CHECK_DRY:-} ]]; then
  pack 1b-fp16 tiny fp16; pack 1b-fp32 tiny fp32; pack 7b-fp16 tiny fp16
else
  pack 1b-fp16 janus-pro-1b fp16; pack 1b-fp32 janus-pro-1b fp32; pack 7b-fp16 janus-pro-7b fp16
fi

echo "carry, one after the other, and run there:"
sets=()
for part in "$@"; do
  name=$(basename "$part"); sets+=("${name%.*}")
  echo "  $part: bash $part/unpack.sh $part/part"
done
for set_name in $(printf '%s\n' "${sets[@]:-}" | sort -u); do
  first=$(printf '%s\n' "$@" | grep "$set_name\.00\$")
  echo "  $first, after the last of $set_name: bash $first/unpack.sh done $set_name"
done
for name in nano-fp16 1b-fp16 7b-fp16 1b-fp32; do
  echo "  $out/$name, $(du -sm "$out/$name" | cut -f1) MB"
done
echo "then there, again and again until nothing is left: GPU_CHECK_PACKED=$out bash bench/gpu/check.sh"
