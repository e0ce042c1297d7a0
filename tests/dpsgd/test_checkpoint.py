"""Resuming: whole files or none, the same plan, fresh keys, one charge; also after kill -9."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from privkt.dpsgd import CheckpointError, RefusedTraining, TrainingError
from privkt.dpsgd import checkpoint as checkpoints
from privkt.dpsgd.checkpoint import Identity, State
from privkt.privacy import Budget, Ledger

IDENTITY = Identity("run", "generator", "a" * 64, "f" * 64)


def _state(step=2):
    return State(step, {"w": torch.arange(3.0)}, {"state": {}, "param_groups": []}, {"last_epoch": 2})


def test_a_state_comes_back_as_it_was(tmp_path):
    assert checkpoints.load(tmp_path, IDENTITY) is None
    checkpoints.save(tmp_path, IDENTITY, _state())
    checkpoints.save(tmp_path, IDENTITY, _state(3))
    back = checkpoints.load(tmp_path, IDENTITY)
    assert back.step == 3
    assert torch.equal(back.weights["w"], torch.arange(3.0))
    assert back.scheduler == {"last_epoch": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["training.ckpt"]


def test_only_the_owner_can_read_it(tmp_path):
    checkpoints.save(tmp_path / "new", IDENTITY, _state())
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "new" / "training.ckpt").stat().st_mode) == 0o600


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
def test_a_damaged_checkpoint_is_a_clear_error(tmp_path, damage):
    checkpoints.save(tmp_path, IDENTITY, _state())
    path = tmp_path / "training.ckpt"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    path.write_bytes({"cut": content[:-5], "empty": b"", "other": b"x" * 400}.get(damage, content))
    with pytest.raises(CheckpointError, match="got a damaged file; restore it from a copy, or delete it"):
        checkpoints.load(tmp_path, IDENTITY)


@pytest.mark.parametrize("field", ["run_id", "purpose", "plan", "fingerprint"])
def test_another_run_plan_or_data_is_refused(tmp_path, field):
    checkpoints.save(tmp_path, IDENTITY, _state())
    with pytest.raises(CheckpointError, match=f"{field} must be the one it was written under"):
        checkpoints.load(tmp_path, Identity(**{**vars(IDENTITY), field: "other"}))


def test_a_write_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, IDENTITY, _state(1))

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(tmp_path, IDENTITY, _state(2))
    monkeypatch.undo()
    assert checkpoints.load(tmp_path, IDENTITY).step == 1
    checkpoints.save(tmp_path, IDENTITY, _state(2))
    assert checkpoints.load(tmp_path, IDENTITY).step == 2


def _training(dp, tmp_path, model=None, **changes):
    model = dp.make("llama-lora") if model is None else model
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    settings = {"checkpoint": tmp_path / "ckpt", "checkpoint_every": 1, "optimizer": optimizer, "steps": 4}
    return dp.training(model, **{**settings, **changes}), model, optimizer


def test_a_resumed_training_goes_on_where_the_checkpoint_is(dp, tmp_path, ledger):
    budget = Budget(8.0, 1e-3, ledger=ledger)
    first, model, optimizer = _training(dp, tmp_path, budget=budget)
    dp.run(first, stop_after=2)
    again, fresh, other = _training(dp, tmp_path, budget=budget)
    assert again.steps_taken == 2
    assert torch.equal(dp.weights(fresh), dp.weights(model))
    assert str(other.state_dict()) == str(optimizer.state_dict())
    dp.run(again)
    release = again.finish()
    assert again.plan == first.plan
    (charge,) = ledger.charges()
    assert release.charge == charge.id
    assert release.guarantee == first.plan.guarantee()


def test_resume_draws_fresh_keys(dp, tmp_path):
    """The same noise on another batch would reveal the difference of two clipped sums; so both keys change."""
    first, _, _ = _training(dp, tmp_path)
    dp.run(first, stop_after=2)
    second, _, _ = _training(dp, tmp_path)
    third, _, _ = _training(dp, tmp_path)
    noises = [training._mean.take() for training in (first, second, third)]
    first_draws = [training._sampler.draw(2).tolist() for training in (first, second, third)]
    keys = {key for training in (first, second, third) for key in (training._mean._key, training._sampler._key)}
    assert len(keys) == 6
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(noises[a], noises[b])
    assert len({str(draw) for draw in first_draws}) == 3  # equal with probability below 1e-6


def test_no_key_is_ever_written(dp, tmp_path):
    training, _, _ = _training(dp, tmp_path)
    keys = training._mean._key, training._sampler._key
    dp.run(training)
    training.finish()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert not any(key in path.read_bytes() or key.hex().encode() in path.read_bytes() for key in keys)
    assert training._mean._key is None


def test_a_finished_training_gives_the_same_release_again(dp, tmp_path, ledger):
    budget = Budget(8.0, 1e-3, ledger=ledger)
    first, _, _ = _training(dp, tmp_path, budget=budget)
    dp.run(first)
    release = first.finish()
    again, _, _ = _training(dp, tmp_path, budget=budget)
    assert list(again) == []
    assert again.finish().payload == release.payload
    assert again.finish().charge == release.charge
    again.discard_checkpoint()
    assert list((tmp_path / "ckpt").iterdir()) == []


def test_a_second_release_for_one_charge_is_refused(dp, tmp_path, ledger):
    budget = Budget(8.0, 1e-3, ledger=ledger)
    first, _, _ = _training(dp, tmp_path, budget=budget)
    dp.run(first)
    first.finish()
    first.discard_checkpoint()
    again, _, _ = _training(dp, tmp_path, budget=budget)
    with pytest.raises(RefusedTraining, match="one charge pays for one release"):
        dp.run(again)


def test_two_copies_of_a_run_resumed_side_by_side_end_in_one_release(dp, tmp_path, ledger):
    budget = Budget(8.0, 1e-3, ledger=ledger)
    begun, _, _ = _training(dp, tmp_path, budget=budget)
    dp.run(begun, stop_after=2)
    shutil.copytree(tmp_path / "ckpt", tmp_path / "copy")
    one, _, _ = _training(dp, tmp_path, budget=budget)
    two, _, _ = _training(dp, tmp_path, budget=budget, checkpoint=tmp_path / "copy")
    dp.run(one)
    dp.run(two)  # charged while `one` had released nothing
    release = one.finish()
    with pytest.raises(RefusedTraining, match="another copy of this run has made it"):
        two.finish()
    assert ledger.status(release.charge).taken == 4


def test_a_run_that_died_before_its_first_checkpoint_is_charged_once(dp, tmp_path, ledger):
    budget = Budget(8.0, 1e-3, ledger=ledger)
    first, _, _ = _training(dp, tmp_path, budget=budget, checkpoint_every=100)
    dp.run(first, stop_after=1)
    again, _, _ = _training(dp, tmp_path, budget=budget, checkpoint_every=100)
    assert again.steps_taken == 0
    dp.run(again)
    assert len(ledger.charges()) == 1


@pytest.mark.parametrize(
    "changes", [{"steps": 5}, {"fingerprint": "e" * 64}, {"max_grad_norm": 2.0}, {"run_id": "another"}]
)
def test_a_changed_training_does_not_resume(dp, tmp_path, changes):
    first, _, _ = _training(dp, tmp_path)
    dp.run(first, stop_after=1)
    with pytest.raises(CheckpointError, match="must be the one it was written under"):
        _training(dp, tmp_path, **changes)


def test_the_error_of_a_damaged_checkpoint_is_one_of_running(dp, tmp_path):
    first, _, _ = _training(dp, tmp_path)
    dp.run(first, stop_after=1)
    path = tmp_path / "ckpt" / "training.ckpt"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TrainingError, match="damaged"):
        _training(dp, tmp_path)


KILLED = """
import sys, time
from pathlib import Path
import torch
from torch import nn
from privkt.dpsgd import PrivateTraining
from privkt.privacy import Budget, Ledger

root, slow = Path(sys.argv[1]), sys.argv[2] == "slow"
torch.manual_seed(0)
model = nn.Linear(4, 2)
data = [(torch.randn(4), i % 2) for i in range(60)]
collate = lambda rows: (torch.stack([x for x, _ in rows]), torch.tensor([y for _, y in rows]))
ledger = Ledger.open_or_create("tiny", cap_epsilon=2.0, cap_delta=1e-3, size=60, state=root / "state")
training = PrivateTraining(
    model, torch.optim.Adam(model.parameters()), data, collate_fn=collate, budget=Budget(2.0, 1e-3, ledger=ledger),
    size=60, batch_size=12, steps=12, microbatch_size=8, run_id="run", purpose="p", fingerprint="f" * 64,
    data_set_id=ledger.data_set_id, checkpoint=root / "ckpt", checkpoint_every=1,
)
print("from", training.steps_taken, flush=True)
for x, y in training:
    training.step(nn.functional.cross_entropy(model(x), y, reduction="none"))
    print("at", training.steps_taken, flush=True)
    if slow:
        time.sleep(0.02)
release = training.finish(root / "model")
print("epsilon", release.guarantee.epsilon, training.plan.epsilon, flush=True)
"""


def test_a_killed_training_resumes_with_the_same_epsilon_and_one_charge(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(KILLED))
    command = [sys.executable, str(script), str(tmp_path)]
    process = subprocess.Popen([*command, "slow"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "at 4\n":
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    done = subprocess.run([*command, "fast"], capture_output=True, text=True, check=True).stdout.split("\n")
    assert int(done[0].removeprefix("from ")) >= 4
    ledger = Ledger.open("tiny", state=tmp_path / "state")
    (charge,) = ledger.charges()
    _, promised, planned = done[-2].split()
    assert float(promised) == float(planned) == charge.planned.epsilon
    assert ledger.status(charge.id).taken == 12
    assert (tmp_path / "model" / "README.md").is_file()


def test_a_kill_between_write_and_rename_keeps_the_old_checkpoint(tmp_path):
    script = tmp_path / "save.py"
    script.write_text(
        "import os, sys, time\nfrom pathlib import Path\nimport torch\n"
        "from privkt.dpsgd import checkpoint as c\n"
        "identity = c.Identity('run', 'generator', 'a' * 64, 'f' * 64)\n"
        "folder = Path(sys.argv[1])\n"
        "c.save(folder, identity, c.State(1, {}, {}, None))\n"
        "os.replace = lambda *a: (print('writing', flush=True), time.sleep(60))\n"
        "c.save(folder, identity, c.State(2, {}, {}, None))\n"
    )
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path / "c")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert checkpoints.load(tmp_path / "c", IDENTITY).step == 1
    checkpoints.erase(tmp_path / "c")
    assert list(Path(tmp_path / "c").iterdir()) == []
