#!/usr/bin/env bash
# Fresh machine: make .venv, install, train on the bundled ethanol set, evaluate, relax, run MD, and leave a
# report with plots in demo_report/. Under ten minutes on two cores. A second run replaces the report.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
environment

report=demo_report
data=data/ethanol_dft/ethanol.xyz
model=$report/train/model.safetensors
rm -rf "$report"
mkdir -p "$report"

# Show a step, keep what it prints for the report, and note how long it took.
step() {
    local name="$1" started=$SECONDS
    shift
    echo
    echo "== $name: $*"
    COLUMNS=140 "$@" 2>&1 | tee "$report/$name.txt"
    echo "$name $((SECONDS - started))" >> "$report/seconds.txt"
}

step train mlip train experiment=ethanol data.path="$data" run_dir="$report/train"
step info mlip info "$model"
step evaluate mlip evaluate "$model" data=ethanol data.path="$data" --subset test --output "$report/evaluate"
step relax mlip relax "$data" --model "$model" --output "$report/relax"
step md mlip md "$report/relax/final.xyz" --model "$model" --ensemble nvt --temperature 300 --steps 2000 \
    --output "$report/md"
# The report shows what failed, if something did.
step doctor mlip doctor "$model" "$report/relax/final.xyz" --json "$report/doctor/doctor.json" || true

python scripts/demo_report.py "$report"
