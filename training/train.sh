#!/usr/bin/env bash
# Makes the bundled checkpoint on all GPUs of this host and scores it.
# Started again, it goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"

for part in recogniser autoencoder denoiser; do
    if [ ! -e "build/training/$part.done" ]; then
        "$python" -m torch.distributed.run --standalone --nproc-per-node gpu \
            -m "reelserve.training.train_$part"
        touch "build/training/$part.done"
    fi
done
"$python" -m reelserve.training.evaluate "$@"
