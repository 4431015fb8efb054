#!/usr/bin/env bash
# Makes Prefect's work pool QFACTORY_POOL, of the type that is the argument, deploys all flows to it
# and lets silent runs count as crashed. Run again, it brings pool and flows up to date.
# Kubernetes runs them in the image QFACTORY_IMAGE.
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

# So many trainings at once; others wait in their queue.
prefect work-queue set-concurrency-limit training "${QFACTORY_TRAININGS:-1}" --pool "$QFACTORY_POOL"
prefect automation inspect qfactory-silent-runs > /dev/null 2>&1 ||
  prefect automation create --from-file infra/automations.yaml
