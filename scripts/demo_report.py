"""Collect what the steps of ``scripts/demo.sh`` left behind into one page, ``index.html``."""

from __future__ import annotations

import html
import sys
from pathlib import Path

STEPS = {
    "train": "Training on the bundled ethanol set",
    "info": "The model's card",
    "evaluate": "Errors on the test split",
    "relax": "Relaxation of one geometry",
    "md": "Molecular dynamics at 300 K",
    "doctor": "Self-test of the model",
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
pre { background: #f6f6f6; padding: 0.8rem; overflow-x: auto; font-size: 12px; line-height: 1.25; }
img { max-width: 100%; } .time { color: #777; font-weight: normal; font-size: 1rem; }
"""


def main(folder: Path) -> None:
    """Write ``folder/index.html`` from the text of each step and the pictures in its folder."""
    seconds = dict(line.split() for line in (folder / "seconds.txt").read_text().splitlines())
    parts = [section(folder, name, title, seconds.get(name)) for name, title in STEPS.items()]
    total = sum(int(value) for value in seconds.values())
    page = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>mlip demo</title>"
        f"<style>{STYLE}</style></head><body><h1>mlip demo</h1>"
        f"<p>All steps together took {total} s.</p>{''.join(parts)}</body></html>\n"
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    print(f"The report is in {folder / 'index.html'}")


def section(folder: Path, name: str, title: str, seconds: str | None) -> str:
    """Return one step as HTML: its pictures, what it printed, links to its files."""
    text = folder / f"{name}.txt"
    if not text.is_file():
        return ""
    files = sorted(p for p in (folder / name).rglob("*") if p.is_file()) if (folder / name).is_dir() else []
    paths = [html.escape(p.relative_to(folder).as_posix()) for p in files if "tensorboard" not in p.parts]
    images = "".join(f"<p><img src='{p}' alt='{p}'></p>" for p in paths if p.endswith(".png"))
    links = ", ".join(f"<a href='{p}'>{p}</a>" for p in paths if not p.endswith(".png"))
    time = f" <span class='time'>{seconds} s</span>" if seconds else ""
    printed = html.escape(text.read_text(encoding="utf-8", errors="replace"))
    files_line = f"<p>Files: {links}</p>" if links else ""
    return f"<h2>{html.escape(title)}{time}</h2>{images}<pre>{printed}</pre>{files_line}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
