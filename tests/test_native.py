"""What ``espalier.compile`` says of a model that is in training mode, and of what is none."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

import espalier


class StochasticDepth(nn.Module):
    """Named and written as torchvision has it."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.bernoulli(torch.ones(()) - self.p) if self.training and self.p else x


def compiled_with(layer: nn.Module, folder: Path, caplog: pytest.LogCaptureFixture, *, training: bool) -> list[str]:
    """Return what was said of a model in that mode; check that its outputs are those of evaluation mode, and its mode the same."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), layer).train(training)
    x = torch.randn(1, 3, 5, 5)
    caplog.clear()
    with caplog.at_level(logging.WARNING), espalier.compile(model, x, cache=folder) as compiled:
        found = compiled(x)
    assert {module.training for module in model.modules()} == {training}
    with torch.no_grad():
        assert torch.allclose(found, model.eval()(x), atol=1e-5)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.Dropout2d(0.1), nn.BatchNorm2d(8), StochasticDepth(0.2)], ids=str)
def test_training_mode_that_makes_a_difference_is_warned_of(layer: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = compiled_with(layer, tmp_path, caplog, training=True)
    assert said == [
        "Sequential is in training mode (1): the compiled network gives what model.eval() does. Call model.eval() first, and the two agree."
    ]
    assert compiled_with(layer, tmp_path, caplog, training=False) == []


@pytest.mark.parametrize("layer", [nn.Dropout(0.0), nn.ReLU(), nn.GroupNorm(2, 8), StochasticDepth(0.0)], ids=str)
def test_training_mode_that_makes_none_is_not(layer: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert compiled_with(layer, tmp_path, caplog, training=True) == []


@pytest.mark.parametrize(
    ("layer", "warned"),
    [
        (nn.MultiheadAttention(8, 2, dropout=0.1), True),
        (nn.MultiheadAttention(8, 2), False),
        (nn.LSTM(4, 4, num_layers=2, dropout=0.1), True),
        (nn.GRU(4, 4, num_layers=2, dropout=0.1), True),
        (nn.GRU(4, 4, num_layers=2), False),
        (nn.RReLU(), True),
        (nn.RReLU(0.25, 0.25), False),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, nn.Module) else str(one),
)
def test_layers_that_drop_or_draw_inside_are_known_by_their_type(
    layer: nn.Module, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without compiling: not all of them can be."""
    monkeypatch.setattr("espalier.native.compile_model", lambda *_, **__: None)
    model = nn.Sequential(nn.Identity(), layer)
    with caplog.at_level(logging.WARNING):
        espalier.compile(model.eval(), torch.zeros(1, 4))
        assert caplog.messages == []
        espalier.compile(model.train(), torch.zeros(1, 4))
    assert [message.startswith("Sequential is in training mode (1): ") for message in caplog.messages] == [True] * warned


@pytest.mark.filterwarnings("ignore:dropout option adds dropout after all but last recurrent layer")  # it is the case meant here
def test_dropout_behind_the_only_recurrent_layer_is_none(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("espalier.native.compile_model", lambda *_, **__: None)
    with caplog.at_level(logging.WARNING):
        espalier.compile(nn.LSTM(4, 4, dropout=0.1), torch.zeros(1, 4))
    assert caplog.messages == []


def test_what_is_no_network_is_refused_by_its_kind() -> None:
    with pytest.raises(ValueError, match=r"compile takes a network, an nn\.Module, not str"):
        espalier.compile("resnet18", torch.zeros(1, 3, 8, 8))  # type: ignore[arg-type]
