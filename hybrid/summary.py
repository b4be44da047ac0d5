"""The table that ``net.summary(x)`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ndarray import NDArray, autograd

if TYPE_CHECKING:
    from .block import Block

__all__ = ["print_summary"]


def print_summary(net: Block, inputs: tuple) -> None:
    """Run `net` once on `inputs` in predict mode and print one line per layer, in the order in which they ran."""
    rows: list[tuple[str, str, int]] = []
    handles = []
    counted: set[int] = set()
    total = trained = shared = 0

    def note(path: str) -> Any:
        def hook(block: Block, args: tuple, out: Any) -> None:
            nonlocal total, trained, shared
            count = 0
            for parameter in block.params.values():
                size = 1
                for n in parameter.shape or ():
                    size *= n
                count += size
                if id(parameter) in counted:
                    shared += size
                else:
                    counted.add(id(parameter))
                    total += size
                    trained += size if parameter.grad_req != "null" else 0
            label = f"{path or '(whole)'}: {type(block).__name__}"
            rows.append((label, _shapes(out), count))

        return hook

    for _, block in net._walk():
        if getattr(block, "_active", False):
            raise RuntimeError("summary: the network is hybridized; call hybridize(False) first")
    try:
        for path, block in net._walk():
            handles.append(block.register_forward_hook(note(path)))
        with autograd.predict_mode(), autograd.pause():
            net(*inputs)
    finally:
        for handle in handles:
            handle.detach()
    rule = "-" * 78
    print(rule)
    print(f"{'Layer (type)':<40}{'Output Shape':>24}{'Param #':>14}")
    print("=" * 78)
    print(f"{'Input':<40}{_shapes(inputs[0] if len(inputs) == 1 else inputs):>24}{0:>14}")
    for label, shape, count in rows:
        print(f"{label:<40}{shape:>24}{count:>14}")
    print("=" * 78)
    print(
        f"Total params: {total}\nTrainable params: {trained}\nNon-trainable params: {total - trained}\nShared "
        f"params in forward: {shared}"
    )
    print(rule)


def _shapes(value: Any) -> str:
    if isinstance(value, NDArray):
        return str(tuple(value.shape))
    if isinstance(value, (tuple, list)):
        return ", ".join(map(_shapes, value))
    return "-"
