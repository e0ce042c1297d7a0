"""TRL's SFTTrainer with private training: an ordinary script, and the three changes marked (1) to (3).

    pip install trl
    python examples/private_sft.py --model MODEL --data train.jsonl --name my-records --output runs/sft

train.jsonl holds one object a line, {"text": ...}, or {"prompt": ..., "completion": ...}; one line is one record.
"""

import argparse

from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from privkt.dpsgd.trainer import TrainerPrivacy, private
from privkt.privacy import Budget, Ledger

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--data", required=True)
parser.add_argument("--name", required=True, help="the data set's lasting name: its ledger is kept under it")
parser.add_argument("--output", required=True)
parser.add_argument("--epsilon", type=float, default=8.0)
parser.add_argument("--epochs", type=float, default=3.0)
options = parser.parse_args()

data = load_dataset("json", data_files=options.data, split="train")
delta = min(1e-5, 1 / (10 * len(data)))
ledger = Ledger.open_or_create(options.name, cap_epsilon=options.epsilon, cap_delta=delta, size=len(data))

trainer = private(SFTTrainer)(  # (1) private(...) around the class
    model=options.model,
    train_dataset=data,
    args=SFTConfig(
        output_dir=options.output,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=32,  # 256 records a step: large batches bear the noise
        num_train_epochs=options.epochs,
        learning_rate=2e-3,
        max_grad_norm=1.0,  # the clipping norm
        max_length=128,
        bf16=False,  # (2) no autocast, no external logger
        report_to="none",
    ),
    peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    privacy=TrainerPrivacy(Budget(options.epsilon, delta, ledger=ledger), size=len(data)),  # (3) what it may cost
)
trainer.train()
trainer.save_release(options.output)
print(trainer.release.guarantee)
