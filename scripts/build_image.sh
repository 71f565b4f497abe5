#!/usr/bin/env bash
# Builds the image with podman, with this machine's own pip settings and certificates, none of which stay in the image.
#   scripts/build_image.sh [NAME] [ARGUMENT=VALUE ...]     by default localhost/geotrain; EXTRAS= is for production
# Where no image registry can be reached: as root, after scripts/base_image.sh, whose image is taken where it is there.
set -euo pipefail
cd "$(dirname "$0")/.."

name=localhost/geotrain
case ${1:-} in '' | *=*) ;; *) name=$1 && shift ;; esac

mounts=() arguments=(--build-arg "VERSION=$(git describe --always --dirty 2>/dev/null || echo source)")
if podman image exists localhost/python:3.11-bookworm; then
    arguments+=(--build-arg BASE=localhost/python:3.11-bookworm)
fi
for argument in "$@"; do
    arguments+=(--build-arg "$argument")
done

# pip's settings, with what they name on this machine's disk: certificates, folders of packages.
settings=$(mktemp)
trap 'rm -f -- "$settings"' EXIT
python3 - > "$settings" <<'END'
import ast, subprocess
listed = subprocess.run(["pip", "config", "list"], capture_output=True, text=True).stdout.splitlines()
values = dict(line.split("=", 1) for line in sorted(listed, reverse=True))  # the environment's, `:env:`, come last: they count
options = {name.rpartition(".")[2]: ast.literal_eval(value).split() for name, value in values.items()}
print("[global]", *(f"{option} = " + "\n    ".join(words) for option, words in options.items()), sep="\n")
END
mounts+=(--volume "$settings:/etc/pip.conf:ro")
# The files of a package index on the disk lie beside it: its parent is mounted.
named=$(grep -oE '(file://|= |^ +)/[^ ]+' "$settings" | sed -E 's#^(= | +)##' | sed -E 's#^file://(.*)/[^/]+/?$#\1#' | sort -u)
for path in $named; do
    if [ -e "$path" ]; then mounts+=(--volume "$path:$path:ro"); fi
done
podman build --network host --format docker --tag "$name" "${mounts[@]}" "${arguments[@]}" .
podman image inspect --format '{{.Size}} bytes' "$name"
