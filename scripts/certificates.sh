#!/bin/sh
# Makes an authority and a certificate for each name, for mutual TLS: FOLDER/NAME/{ca,cert,key}.pem. What is there stays.
#   scripts/certificates.sh FOLDER coordinator operator ewr.sites ...      needs openssl 3; see docs/how-to/secure-the-links.md
# As root, the files are given to the user of the image.
set -eu
umask 077

folder=$1 && shift
authority=$folder/authority
new="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc"
mkdir -p "$authority"
if [ ! -e "$authority/ca.pem" ]; then
    openssl req -x509 $new -days 3650 -subj '/CN=geotrain authority' -keyout "$authority/ca.key" -out "$authority/ca.pem"
fi
for name in "$@"; do
    own=$folder/$name
    [ ! -e "$own/cert.pem" ] || continue
    mkdir -p "$own"
    openssl req $new -subj "/CN=$name.geotrain" -addext "subjectAltName=DNS:$name.geotrain" \
        -keyout "$own/key.pem" -out "$own/request.pem"
    cp "$authority/ca.pem" "$own/ca.pem"
    openssl x509 -req -in "$own/request.pem" -copy_extensions copy -days 365 \
        -CA "$authority/ca.pem" -CAkey "$authority/ca.key" -CAcreateserial -out "$own/new.pem"
    [ "$(id -u)" != 0 ] || chown -R 10001 "$own"
    mv "$own/new.pem" "$own/cert.pem"
done
