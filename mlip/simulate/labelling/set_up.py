"""Whether a calculator failed because of how it is set up, which no other structure would mend."""

from __future__ import annotations

import re
import subprocess

from ase.calculators.calculator import BadConfiguration, CalculationFailed, CalculatorSetupError
from ase.calculators.calculator import EnvironmentError as NoEnvironment

NO_COMMAND = (126, 127)
"""Exit status of a shell that cannot run a command, or does not find it."""


def is_of_set_up(error: BaseException) -> bool:
    """Whether an error is about the installation and not about a structure.

    ASE's `CalculatorSetupError` may be about either, such as a missing command or a missing cell.
    """
    if isinstance(error, CalculationFailed):
        found = re.search(r"error code (\d+)", str(error))
        return found is not None and int(found[1]) in NO_COMMAND
    if isinstance(error, subprocess.CalledProcessError):
        return error.returncode in NO_COMMAND
    if isinstance(error, BadConfiguration | NoEnvironment):
        return True
    return (
        isinstance(error, CalculatorSetupError) and re.search(r"command|environment variable", str(error)) is not None
    )
