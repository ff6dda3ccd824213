"""The timing of convolutions on GPUs: what it says without one, and that its variants compute the same."""

from __future__ import annotations

import importlib

import pytest
import torch

from mlip.ops.layout import to_e3nn


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    script = importlib.import_module("time_gpu_convolution")
    with pytest.raises(SystemExit, match=r"^There is no CUDA device here: run this script on a machine with a GPU"):
        script.main([])


def test_variants_that_need_no_gpu_agree() -> None:
    script = importlib.import_module("time_gpu_convolution")
    task = script.Task(8, 1, 3, torch.float64, torch.device("cpu"))
    assert (task.nodes, len(task.senders)) == (8, 8 * 28)
    plain = script.mlip_plain(task)(*task.operands["ir_mul"])
    reference = script.e3nn(task)(*task.operands["mul_ir"])
    # e3nn's constants have the digits of float32.
    assert torch.allclose(reference, to_e3nn(plain, task.product.irreps_out), rtol=0, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    script = importlib.import_module("time_gpu_convolution")
    script.main(["--atoms", "8", "--lmax", "1", "--channels", "8", "--rounds", "2"])
    printed = capsys.readouterr().out
    assert "| 8 | 224 | 1 | 8 | float32 | mlip |" in printed
    assert "differ" not in printed
