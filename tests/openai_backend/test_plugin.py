"""What the plugin declares: listed without torch or the client library, and true of the class behind it."""

from __future__ import annotations

import subprocess
import sys

from privkt_openai import plugin


def test_the_declaration_is_true_of_the_backend():
    from privkt_openai.backend import OpenAIBackend

    (spec,) = plugin.privkt_backends()
    module, _, attribute = spec.factory.partition(":")
    assert getattr(sys.modules[module], attribute) is OpenAIBackend
    assert set(spec.capabilities) == OpenAIBackend.declared
    assert spec.remote is OpenAIBackend.remote is True


def test_listing_it_imports_nothing_heavy_and_using_it_no_torch():
    program = """
import sys
import privkt_openai.plugin
assert not {"torch", "openai", "transformers"} & set(sys.modules)
import privkt_openai.backend
assert not {"torch", "transformers"} & set(sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
