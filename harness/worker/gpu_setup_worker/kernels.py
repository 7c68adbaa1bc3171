"""Which attention kernels really run, whatever the config requests.

PyTorch chooses the back end of scaled_dot_product_attention by itself and falls back to plain matrix products without a
warning (unsloth#8821: 4 to 12 times slower). The profiler sees the names of the operators that ran.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.autograd import profiler

# parts of operators' names: PyTorch's own back ends, the package flash-attn, flex and xformers
WORDS = ("attention", "flash_attn", "fmha")


@contextmanager
def attention_kernels(names: set[str]) -> Iterator[None]:
    """Add the names of the attention operators that run inside; if the profiler cannot start, nothing is added."""
    watch = profiler.profile(use_cpu=True)
    try:
        watch.__enter__()
    except RuntimeError:
        # another profiler runs in this process
        yield
        return
    try:
        yield
    finally:
        watch.__exit__(None, None, None)
        seen = {event.name() for event in watch.kineto_results.events()}
        names |= {name for name in seen if any(word in name for word in WORDS) and "backward" not in name}
