#!/bin/sh
# Starts a node of docker-compose.multisite.yml: start.sh enterprise|community, with NODE_ID, PORT and RACK of its own.
set -eu

config=$(mktemp)
sed "s/\bNODE_ID\b/$NODE_ID/; s/\bPORT\b/$PORT/; s/\bRACK\b/$RACK/; /^#/d" "$(dirname "$0")/$1.conf" > "$config"
exec asd --foreground --config-file "$config"
