"""Two processes of ``torchrun`` (gloo, CPU) end with the same weights, with gradient caching too."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from leanmatch.training.checkpoints import load_weights


@pytest.mark.parametrize("mini_batch_size", [None, 5])
def test_two_processes(tmp_path, mini_batch_size):
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import dataclasses, os, sys
            sys.path.insert(0, {str(Path(__file__).parent)!r})
            import training_models as models
            from leanmatch.training import fit
            from leanmatch.training.checkpoints import save_weights

            rank = os.environ["RANK"]
            model = models.transformer_model({str(tmp_path)!r} + "/bert" + rank)
            save_weights({str(tmp_path)!r} + f"/base{{rank}}.safetensors", model.state_dict())
            options = models.resumable_options()
            schedule = dataclasses.replace(
                options.schedule, max_steps=3, mini_batch_size={mini_batch_size}, checkpoint_minutes=9.0
            )
            options = dataclasses.replace(options, schedule=schedule)
            fit(model, models.pairs(), None, options, {str(tmp_path / "work")!r})
            save_weights({str(tmp_path)!r} + f"/trained{{rank}}.safetensors", model.state_dict())
            """
        )
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launcher, str(script)], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    base, *trained = (
        load_weights(tmp_path / f"{name}.safetensors") for name in ("base0", "trained0", "trained1")
    )
    assert any(not torch.equal(value, trained[0][name]) for name, value in base.items())
    for name, value in trained[0].items():
        torch.testing.assert_close(value, trained[1][name], rtol=0, atol=0)
