#!/usr/bin/env bash
# Prints the folder of ONNX Runtime's headers, for compiling only: the library itself is opened at run time. The system's where it has them,
# else those of Debian 13's libonnxruntime-dev (1.21, MIT), unpacked into DIR from this Debian's own mirror; nothing is installed.
#   bash onnxruntime-headers.sh DIR
set -euo pipefail
out=${1:?usage: onnxruntime-headers.sh DIR}
for folder in /usr/include/onnxruntime /usr/local/include/onnxruntime /usr/include /usr/local/include "$out/include"; do
  if [[ -e $folder/onnxruntime_c_api.h ]]; then
    echo "$folder"
    exit 0
  fi
done
command -v apt-get dpkg-deb >/dev/null || { echo "no headers of ONNX Runtime here, and no apt-get to fetch them with" >&2; exit 1; }
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -E '^(deb |URIs:)' | grep -oE '[a-z+]+:/[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ' || true)
key=$(ls /usr/share/keyrings/debian-archive-keyring.* 2>/dev/null | head -n 1 || true)
[[ -n $mirror && -n $key ]] || { echo "no headers of ONNX Runtime here, and no Debian mirror in /etc/apt" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$out/include"
echo "deb [signed-by=$key] $mirror trixie main" >"$work/sources.list"
apt=(-o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root)
apt-get "${apt[@]}" -qq update >&2
(cd "$work" && apt-get "${apt[@]}" -qq download libonnxruntime-dev >&2)
dpkg-deb -x "$work"/libonnxruntime-dev_*.deb "$work/deb"
cp -r "$work"/deb/usr/include/onnxruntime/. "$out/include/"
echo "$out/include"
