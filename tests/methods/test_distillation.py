"""The distillation term by hand, and a teacher that stays as it was."""

import pytest
import torch
from torch import nn

from espalier.methods import Distillation


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 3)), nn.Linear(5, 3)


def test_the_term_is_the_divergence_of_softened_outputs() -> None:
    teacher, student = networks()
    inputs, expected = torch.randn(6, 5), 0.0
    with torch.no_grad():
        for wanted, given in zip(teacher.eval()(inputs).tolist(), student(inputs).tolist(), strict=True):
            p, q = (torch.tensor(logits, dtype=torch.float64).div(4).exp() for logits in (wanted, given))
            p, q = p / p.sum(), q / q.sum()
            expected += float((p * (p / q).log()).sum()) / 6
    term = Distillation(teacher, temperature=4.0, weight=0.7)
    assert term(inputs, student(inputs)).item() == pytest.approx(0.7 * 16 * expected, rel=1e-4)
    assert term(inputs, teacher(inputs)).item() == pytest.approx(0, abs=1e-6)


def test_the_teacher_is_a_copy_that_does_not_train() -> None:
    teacher, student = networks()
    term = Distillation(teacher.train(), temperature=2.0, weight=1.0)
    inputs = torch.randn(4, 5)
    assert torch.equal(term(inputs, student(inputs)), term(inputs, student(inputs)))  # no dropout
    term(inputs, student(inputs)).backward()
    assert all(parameter.grad is None for parameter in [*teacher.parameters(), *term.teacher.parameters()])
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert teacher.training
    assert all(parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize(("temperature", "weight"), [(0.0, 1.0), (1.0, -1.0)])
def test_settings_out_of_range_are_refused(temperature: float, weight: float) -> None:
    with pytest.raises(ValueError, match=rf"temperature={temperature} and weight={weight}; both should be above 0"):
        Distillation(nn.Linear(1, 1), temperature=temperature, weight=weight)
