#!/bin/sh
# Makes the secrets of compose.yaml in this folder, once; as root, because containers read them by their own numbers.
set -eu
cd "$(dirname "$0")"
umask 077

[ ! -e postgresql_password ] || { echo "found secrets here, required: none: nothing is made anew" >&2; exit 1; }
name=${1:?"required: the name by which browsers call the pages, e.g. thoracle.hospital.example"}

index=$(openssl rand -hex 24)
archive=$(openssl rand -hex 24)
printf '%s' "$index" > postgresql_password
cat > orthanc.json <<JSON
{
  "RegisteredUsers": {"administrator": "$archive"},
  "PostgreSQL": {
    "EnableIndex": true,
    "EnableStorage": false,
    "Host": "postgresql",
    "Port": 5432,
    "Database": "orthanc",
    "Username": "orthanc",
    "Password": "$index",
    "EnableSsl": false
  }
}
JSON
# For a start: browsers warn of it. Put a certificate of your authority in its place.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 365 -subj "/CN=$name" \
    -addext "subjectAltName = DNS:$name,DNS:localhost" \
    -keyout web_key.pem -out web_certificate.pem 2>/dev/null
chmod 0400 postgresql_password orthanc.json web_key.pem web_certificate.pem
chown 999:999 postgresql_password
chown 10002:10002 orthanc.json
chown 10001:10001 web_key.pem web_certificate.pem
