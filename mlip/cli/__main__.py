"""``python -m mlip.cli``: the command without its entry point."""

from mlip.cli.main import main

main()
