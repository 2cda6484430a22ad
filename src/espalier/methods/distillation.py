"""Distillation: a trained network's softened outputs as a second target."""

import copy
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Distillation:
    """The loss term ``weight T^2 KL(softmax(teacher / T) || softmax(student / T))``, mean over the batch.

    The factor ``T^2`` keeps its gradient at the scale of the labels' cross entropy, to which a task adds it. Source: Hinton et al.,
    arXiv 1503.02531, section 2.

    Args:
        teacher: A trained network; copied, put in evaluation mode, never trained.
        temperature: T, above 0.
        weight: Factor on the term, above 0.

    Raises:
        ValueError: ``temperature`` or ``weight`` is not above 0.
    """

    name: ClassVar[str] = "loss_distill"

    def __init__(self, teacher: nn.Module, *, temperature: float, weight: float) -> None:
        if not (temperature > 0 and weight > 0):
            raise ValueError(f"distillation has temperature={temperature} and weight={weight}; both should be above 0.")
        self.teacher = copy.deepcopy(teacher).eval().requires_grad_(False)
        self.temperature, self.weight = temperature, weight

    def __call__(self, inputs: Tensor, logits: Tensor) -> Tensor:
        """Return the term for a batch.

        Args:
            inputs: What both networks see, ``(N, ...)``.
            logits: The student's, ``(N, classes)``.
        """
        with torch.no_grad():
            targets = F.log_softmax(self.teacher.to(inputs.device)(inputs) / self.temperature, dim=1)
        student = F.log_softmax(logits / self.temperature, dim=1)
        return F.kl_div(student, targets, reduction="batchmean", log_target=True) * (self.weight * self.temperature**2)
