#!/usr/bin/env bash
# Runs a command with the secrets that come as files: NAME is what the file of NAME_FILE holds.
set -euo pipefail
for name in AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY PGPASSWORD; do
  file=${name}_FILE
  if [ -n "${!file:-}" ]; then
    value=$(< "${!file}")
    export "$name=$value"
  fi
done
exec "$@"
