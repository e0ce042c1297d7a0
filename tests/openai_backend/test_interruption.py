"""Ctrl-C and kill -9 in the middle of many questions: the rest alone is asked afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time

import pytest

from privkt.contracts import Sampling

PROMPTS = [f"question {n}" for n in range(30)]
PROGRAM = textwrap.dedent("""
    import sys
    from pathlib import Path
    from privkt.contracts import BackendContext, Sampling
    from privkt_openai.backend import OpenAIBackend
    options = {"base_url": sys.argv[1], "model": "m", "concurrency": 2}
    made = OpenAIBackend(options, BackendContext(role="llm", cache=Path(sys.argv[2])))
    try:
        made.generate([f"question {n}" for n in range(30)], Sampling(seed=1))
    except KeyboardInterrupt:
        sys.exit(130)
""")


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_call_goes_on_where_it_was(faulty, backend, tmp_path, how, code):
    slow, answers = faulty("--delay", "0.2"), tmp_path / "answers.jsonl"
    run = subprocess.Popen([sys.executable, "-c", PROGRAM, slow.base_url, str(tmp_path)])
    try:
        end = time.monotonic() + 60
        while not answers.exists() or answers.read_bytes().count(b"\n") < 5:
            assert run.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        run.send_signal(how)
        assert run.wait(timeout=30) == code
    finally:
        run.kill()
        run.wait(timeout=30)
    stored = answers.read_bytes().count(b"\n")
    assert 5 <= stored < len(PROMPTS)
    fresh = faulty()
    got = backend(fresh, cache=tmp_path).generate(PROMPTS, Sampling(seed=1))
    assert [one.text for one in got] == [f"re[0]: {prompt}" for prompt in PROMPTS]
    assert sum(prompt in set(PROMPTS) for prompt in fresh.counts()["asked"]) == len(PROMPTS) - stored
