"""What programs print of a calculation that has not converged is told from what they print on the way."""

import pytest

from mlip.simulate.labelling.convergence import unconverged


@pytest.mark.parametrize(
    "said",
    [
        "     convergence NOT achieved after 100 iterations: stopping",
        "  nstep=    5 was not enough SCF cycles to converge;",
        "--- !ScfConvergenceWarning",
        "SCF_NOT_CONV: SCF did not converge in maximum number of steps.",
        "! SCF NOT CONVERGED AFTER 125 CYCLES !",
        "This wavefunction IS NOT FULLY CONVERGED!",
        "*** WARNING in qs_scf.F:598 :: SCF run NOT converged ***",
        "  outer SCF loop FAILED to converge after 2 iterations",
        "scf: WARNING: density not converged",
        "SCC is NOT converged, maximal SCC iterations exceeded",
        "|     The electronic self-consistency was not achieved in the given       |",
        "  ** scf_solver: SCF cycle not converged.",
        "WARNING! SELF-CONSISTENCY CYCLE DID NOT CONVERGE",
        "Calculation failed to converge",
        "Convergence failure -- run terminated.",
        " >>>>>>>>>> Convergence criterion not met.",
        "-1- scf: Self consistent charge iterator did not converge",
        "*** convergence criteria cannot be satisfied within 250 iterations ***",
        "Could not converge SCF iterations in 100 iterations.",
        "SCF *not* converged!",
        "SCF IS UNCONVERGED, TOO MANY ITERATIONS",
        "UNABLE TO ACHIEVE SELF-CONSISTENCE",
        "max. SCF cycles performed but system has not reached the groundstate.",
    ],
)
def test_programs_that_have_not_converged(said: str) -> None:
    text = f"{'1.0 ' * 200}\n{said}\nTotal energy 1.0"
    assert unconverged(text.encode()) == " ".join(said.split())
    assert unconverged(said.encode())


def test_phrases_across_lines() -> None:
    assert unconverged(b"The SCF has not\n    been converged") == "The SCF has not been converged"


@pytest.mark.parametrize(
    "said",
    [
        "     c_bands:  2 eigenvalues not converged",
        "     convergence has been achieved in  12 iterations",
        "*               SCF CONVERGED AFTER  10 CYCLES               *",
        "------------------------ aborting loop because EDIFF is reached ----------------------------------------",
        "  *** SCF run converged in    12 steps ***",
        "Self-consistency cycle not yet converged - restarting mixer to attempt better convergence.",
        "&SCF IGNORE_CONVERGENCE_FAILURE",
        "scf_must_converge = .true.",
        "Convergence criteria: energy 1e-8",
        "",
    ],
)
def test_programs_that_are_fine(said: str) -> None:
    assert unconverged(said.encode()) is None
