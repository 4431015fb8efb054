#!/usr/bin/env bash
# Makes Prefect's work pool QFACTORY_POOL, of the type that is the argument, and deploys all flows
# to it. Run again, it brings both up to date. Kubernetes runs them in the image QFACTORY_IMAGE.
set -euo pipefail
cd "$(dirname "$0")/.."
pool=(prefect work-pool create "$QFACTORY_POOL" --overwrite --type "$1")
if [ "$1" = kubernetes ]; then
  template=$(mktemp)
  sed "s|QFACTORY_IMAGE|$QFACTORY_IMAGE|" infra/kubernetes/base-job-template.json > "$template"
  pool+=(--base-job-template "$template")
fi
"${pool[@]}"
prefect --no-prompt deploy --all --prefect-file infra/prefect.yaml
