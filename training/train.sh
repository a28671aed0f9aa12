#!/usr/bin/env bash
# Makes checkpoints/world from nothing on all GPUs of this host and scores it; about three quarters
# of an hour on four H200. With CONTINUE set, goes on from the weights that are there. Started again,
# it goes on where it was. Every part's log is in build/training/.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
gpus="${GPUS:-$("$python" -c 'import torch; print(torch.cuda.device_count())')}"
logs=build/training
mkdir -p "$logs"

# part NAME GPUS COMMAND...: runs a module on the given GPUs unless it is done.
part() {
    local name=$1 devices=$2
    shift 2
    if [ -e "$logs/$name.done" ]; then return; fi
    echo "$(date -u +%T) $name starts on GPUs $devices"
    local count
    count=$(tr ',' '\n' <<<"$devices" | wc -l)
    CUDA_VISIBLE_DEVICES=$devices "$python" -m torch.distributed.run --nproc-per-node "$count" \
        --rdzv-backend c10d --rdzv-endpoint localhost:0 \
        -m "reelserve.training.$@" >>"$logs/$name.log" 2>&1 ||
        { echo "$name failed:"; tail -n 30 "$logs/$name.log"; exit 1; }
    touch "$logs/$name.done"
    echo "$(date -u +%T) $name is done"
}

# init NAME: goes on from the committed weights where CONTINUE is set.
init() { if [ -n "${CONTINUE:-}" ]; then echo "--init checkpoints/world/$1"; fi; }

all=$(seq -s, 0 $((gpus - 1)))
if [ "$gpus" -ge 4 ]; then
    # The first GPU trains what reads clips, which takes as long as all the rest.
    rest=$(seq -s, 1 $((gpus - 1)))
    part recogniser 0 train_recogniser --max-seconds 1300 $(init recogniser) & reading=$!
    # It waits for captions more than for its GPU.
    part text_encoder 0 words.train_text_encoder --max-seconds 500 & words=$!
else
    rest=$all
    part recogniser "$all" train_recogniser $(init recogniser) & reading=$!
    wait "$reading"
    part text_encoder 0 words.train_text_encoder & words=$!
    wait "$words"
fi
part autoencoder "$rest" train_autoencoder --max-seconds 400 $(init vae)
part denoiser "$rest" train_denoiser --max-seconds 680 --out "$logs/teacher"
part distilled "$rest" distil_denoiser --max-seconds 180 --teacher "$logs/teacher"
wait "$reading"
wait "$words"
part upsampler 0 train_upsampler --max-seconds 30
part evaluation 0 evaluate "$@"
