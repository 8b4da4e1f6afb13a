#!/usr/bin/env bash
# One node's part of a run on several nodes: start the same line on every node.
#
#   NODES=2 HEAD=node01 docs/clusters/torchrun.sh train tokenizer --preset G+R --data /data/imagenet --out /runs/gr
#
# NODES    how many nodes                          HEAD     a node that all others can reach; the same everywhere
# DEVICES  devices of each node (8)                PORT     a free port on it (29400)
# DEVICE   cuda or npu (cuda)                      RUN      a name that tells this run from others on HEAD (mergevq)
set -euo pipefail
: "${NODES:=1}" "${DEVICES:=8}" "${DEVICE:=cuda}" "${HEAD:=localhost}" "${PORT:=29400}" "${RUN:=mergevq}"

exec torchrun --nnodes "$NODES" --nproc-per-node "$DEVICES" --max-restarts 0 \
  --rdzv-backend c10d --rdzv-endpoint "$HEAD:$PORT" --rdzv-id "$RUN" \
  -m mergevq "$@" --device "$DEVICE" --devices "$DEVICES"
