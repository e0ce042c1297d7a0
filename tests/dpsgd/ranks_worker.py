"""One of several processes of a tiny training; run by test_ranks.py through torchrun.

python -m torch.distributed.run --nproc_per_node 2 ranks_worker.py MODE FOLDER
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

MODE, FOLDER = sys.argv[1], Path(sys.argv[2])


def helpers() -> Any:
    spec = importlib.util.spec_from_file_location("dpsgd_helpers", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["dpsgd_helpers"] = module
    spec.loader.exec_module(module)
    return module.Helpers


def threads() -> list[str]:
    """The names of this process's threads (Linux; elsewhere none)."""
    found = []
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it ended between the two looks
            found.append(path.read_text())
    return found


def trained_by_trainer(dp: Any, model: Any, ledger: Any) -> Any:
    """The release of transformers' Trainer, which finds its run and its folder by itself."""
    from transformers import Trainer, TrainingArguments

    from privkt.dpsgd.trainer import TrainerPrivacy, private
    from privkt.privacy import Budget

    settings = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "max_steps": 3, "save_steps": 1}
    quiet = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "learning_rate": 0.1, "optim": "sgd"}
    trainer = private(Trainer)(
        model=model,
        args=TrainingArguments(output_dir=str(FOLDER / "out"), remove_unused_columns=False, **settings, **quiet),
        train_dataset=dp.records(),
        data_collator=dp.collate,
        privacy=TrainerPrivacy(Budget(8.0, 1e-3, ledger=ledger), size=60),
    )
    trainer.train()
    return trainer.release


def main() -> None:
    from privkt.dpsgd import TrainingError
    from privkt.privacy import Budget, Ledger

    torch.set_num_threads(1)
    # Before the group exists: torch.distributed.nn, which peft and transformers import, keeps the group it finds as a
    # default argument; the group's threads then outlive destroy_process_group and may abort the ending interpreter.
    dp = helpers()
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model = dp.make("llama-lora")
    changes: dict[str, Any] = {"model": model}
    if MODE == "keys":
        changes["test_keys"] = dp.keys(3 if rank == 0 else 4)  # the second's keys must not count
    else:
        ledger = Ledger.open_or_create("tiny", cap_epsilon=8.0, cap_delta=1e-3, size=60, state=FOLDER / "state")
        changes["budget"] = Budget(9.0 if MODE == "too-much" else 8.0, 1e-3, ledger=ledger)
        changes["checkpoint"] = FOLDER / "checkpoint"
    if MODE == "different" and rank == 1:
        with torch.no_grad():
            next(p for p in model.parameters() if p.requires_grad).add_(1)
    found: dict[str, Any] = {}
    try:
        if MODE == "trainer":
            release = trained_by_trainer(dp, model, ledger)
        else:
            training = dp.training(**changes)
            dp.run(training)
            release = training.finish()
        planned = release.provenance.details["epsilon"]
        found = {"epsilon": planned, "charge": release.charge, "kind": str(release.guarantee.kind)}
        torch.save(dp.weights(model), FOLDER / f"weights-{rank}.pt")
    except (TrainingError, ValueError) as error:
        found = {"error": type(error).__name__, "message": str(error)}
    (FOLDER / f"found-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()
    left = [name for name in threads() if name.startswith("pt_gloo")]
    assert not left, f"the process group outlived its end: {left}"


if __name__ == "__main__":
    main()
