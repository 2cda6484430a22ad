"""The words of ``espalier bench``, which the shell also completes: a module of its own, because that must not wait for torch."""

EXAMPLES = {
    "model": "resnet50",
    "rate": "4",
    "constraint": "block_punched",
    "threads": "2",
    "group": "32x4",
    "engines": "espalier-sparse,onnxruntime",
    "precision": "fp32",
    "tune": "true",
    "explain": "true",
    "fallback": "torch",
    "seed": "0",
    "runs": "100",
    "budget_s": "60",
    "input": "3x224x224",
}
