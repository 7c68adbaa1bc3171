"""Runs inside the training environment: one training step of a small Mistral under PyTorch's memory tracker.

Prints {case: {parameters, gradients, optimizer, activations, total}}: bytes at the peak of the second step; the cases
come as JSON on the command line. The tensors are fake: shapes and lifetimes are real, no memory is taken.
"""

import json
import sys
import warnings

warnings.filterwarnings("ignore")

import torch  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.distributed._tools.mem_tracker import MemTracker  # noqa: E402


class NoHandle:
    def remove(self):
        pass


def allow_frozen_parameters():
    """The tracker hooks every parameter's gradient and fails on one that has none; a frozen one needs no hook."""
    for name in ("register_hook", "register_post_accumulate_grad_hook"):
        real = getattr(torch.Tensor, name)
        setattr(
            torch.Tensor, name, lambda self, hook, real=real: real(self, hook) if self.requires_grad else NoHandle()
        )


def no_mask_for_tracing():
    """transformers takes fake tensors for a trace and then writes causal masks out, which a real run does not."""
    from transformers import masking_utils

    masking_utils._ignore_causal_mask_sdpa = lambda *_, **__: True
    masking_utils.find_packed_sequence_indices = lambda *_, **__: None


def make(case):
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(**case["config"], sliding_window=None, attn_implementation="sdpa", use_cache=False)
    torch.set_default_dtype(getattr(torch, case["dtype"]))
    model = MistralForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    if case["rank"]:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(r=case["rank"], lora_dropout=case["dropout"], target_modules=case["targets"])
        model = get_peft_model(model, lora)
    if case["checkpointing"]:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    return model.train()


def fake(model, mode):
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None:
                empty = mode.from_tensor(value.data)
                module._parameters[name] = torch.nn.Parameter(empty, requires_grad=value.requires_grad)
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = mode.from_tensor(value)
    return model


def track(case):
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model = fake(make(case), mode)
    with mode:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, foreach=True)
        tracker = MemTracker()
        tracker.track_external(model, optimizer)
        tokens = torch.randint(0, case["config"]["vocab_size"], (case["batch"], case["seq"]))
        with tracker:
            for step in range(2):
                if step:
                    tracker.reset_mod_stats()
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=case["autocast"]):
                    loss = model(input_ids=tokens, labels=tokens).loss
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        (peak,) = tracker.get_tracker_snapshot("peak").values()
    kinds = {getattr(kind, "value", kind): size for kind, size in peak.items()}
    return {
        "parameters": kinds["Parameter"],
        "gradients": kinds["Gradient"],
        "optimizer": kinds["Optstate"],
        "activations": kinds["Activation"] + kinds["Temp"],
        "total": kinds["Total"],
    }


allow_frozen_parameters()
no_mask_for_tracing()
sys.stdout.write(json.dumps({name: track(case) for name, case in json.loads(sys.argv[1]).items()}) + "\n")
