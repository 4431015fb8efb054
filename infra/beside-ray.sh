#!/usr/bin/env bash
# Runs a command that drives Ray beside a Ray node of its own, which has no cores to give: a process
# joins a cluster through a node on its machine. When one of the two ends, the other is asked to.
set -euo pipefail
set -m # without job control a command in the background ignores SIGINT
asked='' told='' command=''
tell() { # the command, once it runs and only once, to stop
  asked=yes
  if [ -n "$command" ] && [ -z "$told" ]; then
    told=yes
    kill -TERM "$command" 2> /dev/null || true
  fi
}
trap tell TERM INT
ray start --address="$RAY_ADDRESS" --num-cpus=0 --num-gpus=0 --block &
node=$!
"$@" &
command=$!
if [ -n "$asked" ]; then tell; fi
wait -n "$node" "$command" || true
tell
code=0
wait "$command" || code=$?
kill -TERM "$node" 2> /dev/null || true
wait "$node" || true
exit "$code"
