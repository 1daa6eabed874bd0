#!/usr/bin/env bash
# The first ten minutes on a GPU, in one call: benchmarks/device.sh OUT [--dry]
#
# Each part has its own time limit and its own log, OUT/NAME.log; what it measured so far stays when
# it is stopped. OUT/parts.tsv says of each part how it ended and how long it took. Parts go on after
# one that fails. --dry runs every part on a CPU at its smallest, to see that the script works.
# DATA: a converted CamVid with the split `eighth`; without it, drawn scenes. TESTS=0 leaves out pytest.
set -u
out=${1:?usage: benchmarks/device.sh OUT [--dry]}
dry=${2:-}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.."
export PYTHONUNBUFFERED=1
warpseg=(${PYTHON:-python3} -m warpseg)
printf 'part\tstatus\tseconds\n' > "$out/parts.tsv"
failed=0

part() {  # part NAME SECONDS COMMAND...: run a command under a limit, keep its log, note how it ended
    local name=$1 limit=$2 begin status
    shift 2
    begin=$(date +%s)
    set -m  # a process group of its own, so that what the command started ends with it
    ("$@") > "$out/$name.log" 2>&1 &
    local group=$!
    (sleep "$limit"; kill -INT -- -$group; sleep 20; kill -KILL -- -$group) 2> /dev/null &
    local watch=$!
    disown $watch
    wait $group
    status=$?
    kill -KILL -- -$watch 2> /dev/null
    set +m
    [ $status -eq 0 ] || failed=1
    printf '%s\t%s\t%s\n' "$name" "$status" "$(($(date +%s) - begin))" | tee -a "$out/parts.tsv"
}

shares() {  # warm Triton's cache by several processes at once
    local count=$1 pids=() number status=0
    for number in $(seq "$count"); do
        "${warpseg[@]}" bench device --share "$number" "$count" --out "$out/device.jsonl" "${tiny[@]}" &
        pids+=($!)
    done
    for number in "${pids[@]}"; do wait "$number" || status=1; done
    return $status
}

resume() {  # a run killed in the midst must end with the score of one that was not
    local run=(train "$recipe" --data "$data" --split "$split" --out "$out/killed" "${short[@]}")
    timeout --signal=KILL "$kill_after" "${warpseg[@]}" "${run[@]}"
    "${warpseg[@]}" "${run[@]}" --resume
}

if [ "$dry" = --dry ]; then
    tiny=(--size 1 24 32) jobs=1 kill_after=12 limit=240
    steps=(consistency-synthetic-swiftnet18-tiny)
    small=(--geometry.crop-size 64 64 --batch-size 2)
    short=(--num-steps 4 --checkpoint-every 2 --log-every 1 "${small[@]}")
    speeds=(none graph) kernels=(--op confusion --size 1 24 32) bench=(--rounds 1 --steps 1)
    memory=(consistency-synthetic-swiftnet18-tiny "${small[@]}" --model)
    recipe=supervised-synthetic-swiftnet18-tiny
else
    tiny=() jobs=8 kill_after=60 limit=240
    steps=(consistency-cityscapes-half-swiftnet18 unimatch-v2-voc-dpt-dinov2-s14)
    small=() short=(--num-steps 300 --checkpoint-every 50)
    speeds=(none graph compiled compiled-graph) kernels=(--mode default) bench=(--rounds 3 --steps 5)
    memory=(consistency-cityscapes-half-swiftnet18 --plain)
    recipe=consistency-camvid-swiftnet18
fi
data=${DATA:-} split=eighth
if [ -z "$data" ]; then
    data=$out/data split=few
    [ -z "$dry" ] && recipe=consistency-synthetic-swiftnet18-tiny
    sizes=(--train 16 --val 4 --scene-size 48 48)
    [ -z "$dry" ] && sizes=()
    part data 120 bash -c '"$@" && '"${warpseg[*]}"' split "'"$data"'" few --labeled 8' -- \
        "${warpseg[@]}" convert synthetic "$data" "${sizes[@]}"
fi

part device 90 shares "$jobs"
if [ "${TESTS:-1}" = 1 ] && [ -z "$dry" ]; then
    tests=(${PYTHON:-python3} -m pytest -q -p no:cacheprovider)
    part tests-graphs 90 "${tests[@]}" tests/trainers/engine/steps tests/trainers/engine/test_no_sync.py
    part tests-kernels 150 "${tests[@]}" -x tests/kernels
    part tests-loaders 60 "${tests[@]}" tests/pipelines/loaders
    part tests-runs 90 "${tests[@]}" tests/trainers/engine/test_speed.py tests/trainers/engine/test_checkpoint.py
fi
part kernels $limit "${warpseg[@]}" bench kernels --out "$out" "${kernels[@]}"
if command -v ncu > /dev/null && [ -z "$dry" ]; then
    for op in cross_entropy consistency_kl pseudo_label quantile strong_view; do
        part "counters-$op" 60 ncu --clock-control none --set basic --launch-count 3 \
            ${PYTHON:-python3} -m warpseg bench kernels --op $op --mode default
    done
fi
for name in "${steps[@]}"; do
    for speed in "${speeds[@]}"; do
        words=() plain=()
        case $speed in
            none) words=(--speed.no-step-graph) plain=(--plain fp32 amp) ;;
            graph) words=() ;;
            compiled) words=(--speed.compile default --speed.no-step-graph) ;;
            compiled-graph) words=(--speed.compile default) ;;
        esac
        part "step-$name-$speed" $limit "${warpseg[@]}" bench step "$name" "${bench[@]}" \
            "${plain[@]}" --out "$out/step-$name-$speed.json" "${small[@]}" "${words[@]}"
    done
done
part memory 90 "${warpseg[@]}" bench memory "${memory[@]}" --out "$out/memory.json"
part train $limit "${warpseg[@]}" train "$recipe" --data "$data" --split $split \
    --out "$out/run" --profile 3 "${short[@]}"
part resume $limit resume
part page 60 "${warpseg[@]}" bench report "$out"/step-*.json "$out/memory.json" --out "$out/page.md"
part report 60 "${warpseg[@]}" report "$out/run" "$out/killed" --json "$out/runs.json"
exit $failed
