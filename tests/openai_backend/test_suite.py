"""The shared suite of every backend, over a server that has it all and over one that lacks log-probabilities."""

from __future__ import annotations

import pytest
from privkt_openai.backend import OpenAIBackend

from privkt.contracts import Backend, BackendContext, Capability
from privkt.testing import BackendSuite


class ServerSuite(BackendSuite):
    """What both servers share."""

    name = "openai"
    batch_option = "concurrency"
    settings: dict[str, object]

    def options(self):
        return self.settings

    def bad_options(self):
        return {
            "misspelt": ({"base_ulr": "x"}, "did you mean 'base_url'?"),
            "no address": ({"base_url": "127.0.0.1"}, "base_url: must be like"),
            "plain http": ({"base_url": "http://192.0.2.1/v1"}, "must use https"),
        }

    def unreachable(self) -> Backend:
        down = {**self.settings, "base_url": "http://127.0.0.1:9/v1", "max_retries": 0}
        return OpenAIBackend(down, BackendContext())


class TestFullServer(ServerSuite):
    expected = frozenset({Capability.GENERATE, Capability.CHAT, Capability.SCORE, Capability.EMBED})

    @pytest.fixture(autouse=True, scope="class")
    def _served(self, request, full_server, model_folder):
        request.cls.settings = {"base_url": full_server.base_url, "model": str(model_folder)}


class TestTransformersServe(ServerSuite):
    expected = frozenset({Capability.GENERATE, Capability.CHAT})

    @pytest.fixture(autouse=True, scope="class")
    def _served(self, request, transformers_server, model_folder):
        # One at a time: this server has one generator for all requests, so that seeds would cross.
        options = {"base_url": transformers_server.base_url, "model": str(model_folder), "concurrency": 1}
        request.cls.settings = options
