#!/usr/bin/env bash
# One round of active learning on copper, labelled by ASE's EMT: bash scripts/demo_active_learning.sh [FOLDER]
#
# Needs the mlip command; ten minutes on one core. docs/active-learning.md quotes what it prints.
set -euo pipefail
folder=${1:-demo_active_learning}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder" && cd "$folder"

python "$here/active_learning_copper.py" make
mlip data label start.extxyz --ase emt --out first.extxyz --jobs 1
train() { mlip train data.path="$1" model=facet_270k cutoff=4.0 max_epochs=25 seed="$2" name="$3" > "$3.log"; }
for seed in 0 1; do train first.extxyz $seed before_$seed; done
mlip md cell.extxyz --committee runs/before_0/model.safetensors --committee runs/before_1/model.safetensors \
  --select 15 --temperature 800 --timestep 2 --steps 500 --log-interval 2 --output md
mlip data label md/selected.extxyz --ase emt --out second.extxyz --jobs 1
cat first.extxyz second.extxyz > both.extxyz
for seed in 0 1; do train both.extxyz $seed after_$seed; done
python "$here/active_learning_copper.py" compare
