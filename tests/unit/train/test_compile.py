import pytest
import torch
from tiny_run import tiny_model, tiny_spec
from torch._dynamo.exc import TorchDynamoException

from formers.errors import ConfigError
from formers.tasks import Causal
from formers.train import load_model, train


def test_every_forward_pass_of_training_is_the_compiled_one(run, prepared, quiet, monkeypatch):
    calls = []

    def compile_(model):
        def forward(tokens, **named):
            calls.append(tokens.shape)
            return model(tokens, **named)

        return forward

    monkeypatch.setattr(torch, "compile", compile_)
    spec, model = tiny_spec(compile=True, accumulation=2), tiny_model()
    train(model, Causal(prepared, spec), spec, run, console=quiet)
    assert calls == [(2, 16)] * 12
    torch.testing.assert_close(load_model(run).state_dict(), model.state_dict(), rtol=0, atol=0)


def test_a_machine_that_cannot_compile_is_told_so(run, prepared, quiet, monkeypatch):
    def compile_(model):
        def forward(tokens, **named):
            raise TorchDynamoException("InvalidCxxCompiler: No working C++ compiler found\nand much more")

        return forward

    monkeypatch.setattr(torch, "compile", compile_)
    spec = tiny_spec(compile=True)
    with pytest.raises(ConfigError, match=r"No working C\+\+ compiler found; train with compile=False"):
        train(tiny_model(), Causal(prepared, spec), spec, run, console=quiet)
