"""Networks of timm's families: each is exported, read, and computes the same before and after all passes."""

import pytest
import timm
import torch
from random_networks import relative_error, settle
from torch import nn

from espalier.compiler.front import read_model
from espalier.compiler.passes import optimised
from espalier.compiler.reference import evaluate

MODELS = (
    *("resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "seresnet50", "res2net50_26w_4s", "vgg16_bn", "densenet121"),
    *("mobilenetv2_100", "mobilenetv3_large_100", "efficientnet_b0", "efficientnetv2_rw_t", "tf_efficientnet_lite0", "mnasnet_100"),
    *("fbnetc_100", "ghostnet_100", "regnety_008", "regnetx_008", "mobileone_s0", "repvgg_a0", "hrnet_w18_small", "dla34"),
    *("inception_v3", "xception41", "cspresnet50", "darknet53", "ese_vovnet19b_dw", "convnext_atto", "convnextv2_atto"),
    *("convmixer_768_32", "poolformer_s12", "vit_tiny_patch16_224", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224"),
    *("mixer_s32_224", "resmlp_12_224", "pvt_v2_b0", "levit_128s", "mobilevit_xs", "edgenext_xx_small", "coatnet_0_rw_224"),
)


def network(name: str) -> nn.Module:
    """Return an untrained network whose norms and scales all take part in the result."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, pretrained=False).eval()
    settle(model)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_network_of_timm_is_read_and_optimised(name: str) -> None:
    model = network(name)
    x = torch.randn(1, *model.pretrained_cfg["input_size"], generator=torch.Generator().manual_seed(1))
    graph = read_model(model, x)
    with torch.no_grad():
        wanted = model(x)
    assert torch.isfinite(wanted).all()
    assert wanted.std() > 0
    for stage in (graph, optimised(graph)):
        (got,) = evaluate(stage, x)
        assert relative_error(got, wanted) < 1e-5
