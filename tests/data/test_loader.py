"""Batches: order, normalisation, augmentation, dropped samples, and going on."""

import hashlib
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from espalier.data import Augment, ImageData, Split, TensorLoader, digits
from espalier.data.split import held_out, stratified
from espalier.steps.fit import IGNORED_WARNINGS

KNOBS: dict[str, Any] = {"mean": 0.1307, "std": 0.3081, "seed": 3, "channels_last": True}


def split(count: int = 50, channels: int = 3, side: int = 8) -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, side, side), generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(count) % 10)


def images_of(loader: TensorLoader) -> Tensor:
    return torch.cat([batch[0] for batch in loader])


def test_one_number_for_all_channels_gives_what_it_always_gave() -> None:
    part = split(channels=1)
    loader = TensorLoader(part, 16, **KNOBS)
    loader.set_epoch(2)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(3 * 100_003 + 2))
    wanted = [part.images[index].to(torch.float32).div_(255).sub_(0.1307).div_(0.3081) for index in torch.split(order, 16)]
    for (images, labels), expected, index in zip(loader, wanted, torch.split(order, 16), strict=True):
        assert torch.equal(images, expected)
        assert images.stride() == expected.contiguous(memory_format=torch.channels_last).stride()
        assert torch.equal(labels, part.labels[index])


@pytest.mark.parametrize(("count", "sizes"), [(33, [16, 17]), (32, [16, 16]), (34, [16, 16, 2]), (1, [1]), (17, [17])])
def test_a_single_sample_left_over_joins_the_batch_before_it(count: int, sizes: list[int]) -> None:
    part = split(count)
    loader = TensorLoader(part, 16, **KNOBS)
    assert len(loader) == len(sizes)
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == sizes
    order = torch.randperm(count, generator=torch.Generator().manual_seed(3 * 100_003))
    assert torch.equal(torch.cat([labels for _, labels in batches]), part.labels[order])
    if count == 33:
        unshuffled = TensorLoader(part, 16, **{**KNOBS, "seed": None})
        assert [len(labels) for _, labels in unshuffled] == [16, 16, 1], "evaluation takes them as they come"


def test_the_order_of_digits_is_that_of_existing_records() -> None:
    data = digits(batch_size=64, eval_batch_size=1000, mean=0.1307, std=0.3081, channels_last=True)
    assert data.fingerprint == "7e748e0fae38316a5344f6e216c50d35ce23ff069ea72cbac89395d508e7d087"
    loader = data.train_loader(1)
    loader.set_epoch(4)
    content = hashlib.sha256()
    for images, labels in loader:
        content.update(images.contiguous().numpy().tobytes() + labels.numpy().tobytes())
    assert content.hexdigest() == "8b5d1082b042797308250d066ca62a2b87dce322b9857dcb61bf48f1cd57e0f8"


def test_each_channel_has_its_own_mean_and_deviation() -> None:
    part = split()
    means, stds = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    images = images_of(TensorLoader(part, 50, mean=means, std=stds, seed=None, channels_last=False))
    for channel, (mean, std) in enumerate(zip(means, stds, strict=True)):
        assert torch.allclose(images[:, channel], (part.images[:, channel] / 255 - mean) / std)
    with pytest.raises(ValueError, match=r"data.mean holds 2 numbers, the images 3 channels"):
        TensorLoader(part, 50, mean=(0.1, 0.2), std=1.0, seed=None, channels_last=False)


@pytest.mark.parametrize(("pad", "mirror"), [(0, False), (0, True), (2, False), (2, True)])
def test_augmentation_is_that_of_a_loop_over_images(pad: int, mirror: bool) -> None:
    part, augment = split(), Augment(pad, mirror)
    draws = augment.draw(len(part), torch.Generator().manual_seed(1))
    index = torch.tensor([7, 3, 49, 3])
    for image, sample in zip(augment.apply(part.images[index], index, draws), index.tolist(), strict=True):
        canvas = torch.zeros(3, 8 + 2 * pad, 8 + 2 * pad, dtype=torch.uint8)
        canvas[:, pad : pad + 8, pad : pad + 8] = part.images[sample]
        row, column = int(draws.rows[sample]), int(draws.columns[sample])
        expected = canvas[:, row : row + 8, column : column + 8]
        assert torch.equal(image, expected.flip(2) if draws.mirrored[sample] else expected)


def test_draws_reach_every_crop_and_mirror_half() -> None:
    draws = Augment(2, True).draw(4000, torch.Generator().manual_seed(0))
    for offsets in (draws.rows, draws.columns):
        assert torch.bincount(offsets).tolist() == pytest.approx([800] * 5, abs=120)
    assert int(draws.mirrored.sum()) == pytest.approx(2000, abs=120)
    with pytest.raises(ValueError, match=r"data.crop_pad=-1"):
        Augment(-1, True)


def test_augmentation_follows_from_seed_and_epoch_and_leaves_order_and_evaluation_alone() -> None:
    chance = Augment(2, True)
    plain, augmented, again = (TensorLoader(split(), 16, **KNOBS, augment=augment) for augment in (None, chance, chance))
    assert torch.equal(images_of(augmented), images_of(again))
    assert not torch.equal(images_of(augmented), images_of(plain))
    assert [batch[1].tolist() for batch in augmented] == [batch[1].tolist() for batch in plain]
    again.set_epoch(1)
    assert not torch.equal(images_of(augmented), images_of(again))
    evaluation = TensorLoader(split(), 16, **KNOBS | {"seed": None}, augment=Augment(2, True))
    assert torch.equal(images_of(evaluation), images_of(TensorLoader(split(), 16, **KNOBS | {"seed": None})))


def indexed(loader: TensorLoader) -> dict[int, Tensor]:
    return {int(number): image for images, _, index in loader for image, number in zip(images, index, strict=True)}


def test_dropped_samples_leave_the_others_as_they_were() -> None:
    part = split()
    whole, fewer = (TensorLoader(part, 16, **KNOBS, augment=Augment(2, True), with_index=True) for _ in range(2))
    kept = torch.tensor([40, 3, 17, *range(20, 38)])
    fewer.keep(kept)
    assert len(fewer) == 2
    before, after = indexed(whole), indexed(fewer)
    assert list(after) == [number for number in before if number in set(kept.tolist())]
    assert all(torch.equal(image, before[number]) for number, image in after.items())
    fewer.keep(torch.tensor([0]))  # counts in the whole split
    assert list(indexed(fewer)) == [0]


def test_the_index_names_the_sample() -> None:
    part = split()
    for images, labels, index in TensorLoader(part, 16, **KNOBS | {"mean": 0.0, "std": 1.0}, with_index=True):
        assert torch.equal(labels, part.labels[index])
        assert torch.allclose(images * 255, part.images[index].float(), atol=1e-3)


@pytest.mark.parametrize("index", [[], [1, 1], [50], [-1]], ids=["none", "twice", "past the end", "negative"])
def test_samples_that_cannot_be_kept_are_refused(index: list[int]) -> None:
    with pytest.raises(ValueError, match=r"cannot keep .* of 50; give different indices from 0 to 49"):
        TensorLoader(split(), 16, **KNOBS).keep(torch.tensor(index, dtype=torch.int64))


@pytest.mark.parametrize("kept", [None, [1, 5, 9, 30]])
def test_a_loader_goes_on_where_another_stood(kept: list[int] | None) -> None:
    first, second = (TensorLoader(split(), 4, **KNOBS, augment=Augment(2, True)) for _ in range(2))
    if kept is not None:
        first.keep(torch.tensor(kept))
    first.set_epoch(7)
    second.keep(torch.tensor([2]))
    second.load_state_dict(first.state_dict())
    assert torch.equal(images_of(first), images_of(second))


class Counting(pl.LightningModule):
    """Note how many samples each training epoch had, and that validation followed."""

    def __init__(self, loader: TensorLoader, checkpoint: Path) -> None:
        super().__init__()
        self.layer, self.loader, self.checkpoint = nn.Linear(192, 10), loader, checkpoint
        self.samples: list[int] = []
        self.validated: list[int] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        self.samples[-1] += len(batch[1])
        return nn.functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        self.validated[-1] += len(batch[1])

    def on_train_epoch_start(self) -> None:
        self.samples.append(0)
        self.validated.append(0)

    def on_train_epoch_end(self) -> None:
        self.loader.set_epoch(self.current_epoch + 1)
        if self.current_epoch == 1:
            self.loader.keep(torch.arange(20))
            self.trainer.save_checkpoint(self.checkpoint)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["loader"] = self.loader.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.loader.load_state_dict(checkpoint["loader"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(task: Counting, **arguments: Any) -> None:
    trainer = pl.Trainer(
        max_epochs=4,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        accelerator="cpu",
        reload_dataloaders_every_n_epochs=1,
    )
    trainer.fit(task, task.loader, TensorLoader(split(), 25, **KNOBS | {"seed": None}), **arguments)


@pytest.mark.filterwarnings(*(f"ignore:{message}" for message in IGNORED_WARNINGS))
def test_lightning_sees_dropped_samples_and_a_resumed_run_keeps_them(tmp_path: Path) -> None:
    task = Counting(TensorLoader(split(), 8, **KNOBS), tmp_path / "last.ckpt")
    fit(task)
    assert task.samples == [50, 50, 20, 20]
    assert task.validated == [50] * 4
    resumed = Counting(TensorLoader(split(), 8, **KNOBS), tmp_path / "last.ckpt")
    fit(resumed, ckpt_path=str(tmp_path / "last.ckpt"), weights_only=True)
    assert resumed.samples == [20, 20]
    assert torch.equal(resumed.layer.weight, task.layer.weight)


def test_a_data_set_for_evaluation_only_cannot_train() -> None:
    part = split()
    data = ImageData("shown", part.take(torch.arange(0)), part, part, 10, 8, 8, 0.5, 0.5, False)
    assert data.input_shape == (3, 8, 8)
    with pytest.raises(ValueError, match=r"data=shown holds no training images"):
        data.train_loader(0)


def test_a_config_that_tells_models_something_else_is_refused() -> None:
    part = split()
    data = ImageData("shown", part, part, part, 10, 8, 8, 0.5, 0.5, False)
    assert data.confirmed(num_classes=10, in_channels=3) is data
    with pytest.raises(ValueError, match=r"data.num_classes=100, but shown has 10"):
        data.confirmed(num_classes=100, in_channels=3)
    with pytest.raises(ValueError, match=r"data.in_channels=1, but shown has 3"):
        data.confirmed(num_classes=10, in_channels=1)


def counted(labels: Iterable[int]) -> dict[int, int]:
    return {label: len(list(group)) for label, group in itertools.groupby(sorted(labels))}


def test_held_out_samples_are_apart_and_each_class_is_in_proportion() -> None:
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    fitted_index, held = held_out(labels, num_train=50, num_val=20)
    assert not set(fitted_index.tolist()) & set(held.tolist())
    assert counted(labels[held].tolist()) == {0: 12, 1: 6, 2: 2}
    assert counted(labels[fitted_index].tolist()) == {0: 30, 1: 15, 2: 5}
    assert len(held_out(labels, num_train=None, num_val=20)[0]) == 80
    with pytest.raises(ValueError, match="cannot take 101 of 100"):
        stratified(labels, 101, 0)


def test_pooling_averages_squares_of_pixels() -> None:
    images = torch.tensor([[0, 2, 10, 20], [4, 6, 30, 41]], dtype=torch.uint8).view(1, 1, 2, 4)
    pooled = Split(images, torch.zeros(1, dtype=torch.int64)).pooled(2)
    assert pooled.images.flatten().tolist() == [3, 25]
    assert pooled.images.dtype == torch.uint8
    with pytest.raises(ValueError, match=r"data\.pool=3 does not divide images of 2x4"):
        Split(images, torch.zeros(1, dtype=torch.int64)).pooled(3)
