"""A small library, and compilers that do what a test wants."""

from pathlib import Path

SOURCE = 'extern "C" int answer() { return 42; }\n'


def fake_compiler(folder: Path, program: str, head: str = "#!/bin/sh\n") -> Path:
    """Write a program that is to pass for a compiler."""
    path = folder / "my-compiler"
    path.write_text(f"{head}{program}\n")
    path.chmod(0o755)
    return path
