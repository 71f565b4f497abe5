#!/usr/bin/env bash
# Makes the base image out of Debian packages, for a machine that reaches no image registry but has a package mirror.
#   scripts/base_image.sh [NAME]     as root; needs debootstrap and podman; by default localhost/python:3.11-bookworm
# The mirror is the one that apt uses on this machine.
set -euo pipefail

name=${1:-localhost/python:3.11-bookworm}
suite=bookworm # its python3 is 3.11

mirror=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $suite" 'Created-By: Packages' | head -1)
if [ -z "$mirror" ]; then
    echo "error: apt on this machine names no mirror of Debian $suite; add one to /etc/apt/sources.list" >&2
    exit 2
fi
rootfs=$(mktemp -d)
trap 'rm -rf -- "$rootfs"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$rootfs" "$mirror"
rm -rf "$rootfs"/var/cache/apt/* "$rootfs"/var/lib/apt/lists/* "$rootfs"/usr/share/{doc,man,locale}/* "$rootfs"/var/log/*
tar -C "$rootfs" -c . | podman import --change 'CMD ["python3"]' - "$name"
