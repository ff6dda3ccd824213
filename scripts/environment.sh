# Sourced by the other scripts, from the repository root: make .venv where needed, install, activate.
#
#   environment EXTRA     EXTRA is empty or "[test]"
#
# PYTHON names the interpreter (3.11 to 3.13, default python3). A second call with the same pyproject.toml
# and EXTRA only activates.

environment() {
    local extra="${1:-}" python="${PYTHON:-python3}" stamp wanted
    if [ ! -x .venv/bin/python ]; then
        "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || {
            echo "Error: Python 3.11, 3.12 or 3.13 is needed; set PYTHON to one of them." >&2
            return 1
        }
        "$python" -m venv .venv
    fi
    # shellcheck disable=SC1091
    . .venv/bin/activate
    stamp=".venv/.installed${extra}"
    wanted="$(sha256sum < pyproject.toml) $PWD"
    if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
        local started=$SECONDS
        python -m pip install --quiet --upgrade pip
        # First and bounded, so that the packages that need torch find a build that was tested.
        python -m pip install --quiet "torch>=2.6,<2.14"
        python -m pip install --quiet --editable ".${extra}"
        printf '%s' "$wanted" > "$stamp"
        echo "Installed in $((SECONDS - started)) s, $(du -sh .venv | cut -f1) in .venv"
    fi
}
