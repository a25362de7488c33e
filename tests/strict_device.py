"""A device as strict as Apple's MPS, for machines without one.

`StrictDevice` is a dispatch mode. Its tensors compute on the CPU, but claim to be elsewhere: on
torch's `meta` device, the only one beside the CPU that every build of torch has. While it is
active, all that the code makes there or moves there

- may have the types only that MPS has (`TYPES`);
- may be used by those operators only that torch has for MPS, according to the table that comes with
  torch (`mps_operators`);
- may meet tensors of the CPU only where they are moved, or are single numbers;

and `waits` names every operator for which the host waited until the device had done its work.
"""

from __future__ import annotations

import re
import traceback
from functools import cache
from pathlib import Path

import torch
import torchgen
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
CPU = torch.device("cpu")

TYPES = {
    torch.float32, torch.float16, torch.bfloat16, torch.bool,
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
}  # fmt: skip
"""Of MPS tensors: `getMPSDataType` in ATen/native/mps/OperationUtils.mm refuses float64, and
complex numbers are not supported by all operators of all versions."""

TABLE = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
"""Which backends each operator of the installed torch has a kernel for."""
MOVES = {"aten._to_copy", "aten.copy_", "aten.copy"}
READS = {"aten._local_scalar_dense", "aten.equal", "aten.is_nonzero", "aten.bincount"}
"""Operators whose outcome, or its size, the host has to know."""


@cache
def mps_operators():
    """Return the operators, with overloads, that MPS tensors can be given to.

    An entry of the table counts if it has a kernel for MPS, or one for every backend that is made
    of other operators (Composite…), or if it is the form without `out` of one that has.
    """
    entries = TABLE.read_text("utf-8").split("\n- func: ")[1:]
    dispatch, delegates, generated = {}, {}, {}
    for entry in entries:
        name = entry.split("(", 1)[0]
        keys = re.findall(r"^    ([\w, ]+): \w", entry.partition("\n  dispatch:\n")[2], re.M)
        dispatch[name] = {key for line in keys for key in line.split(", ")}
        delegate = re.search(r"^  structured_delegate: (\S+)", entry, re.M)
        delegates[name] = delegate and delegate.group(1)
        autogen = re.search(r"^  autogen: (.+)", entry, re.M)
        for other in autogen.group(1).split(", ") if autogen else ():
            generated[other] = name

    def has_kernel(name):
        if name in generated and name not in dispatch:
            return has_kernel(generated[name])
        if delegates[name]:
            return has_kernel(delegates[name])
        keys = dispatch[name]
        return not keys or "MPS" in keys or any(key.startswith("Composite") for key in keys)

    return {name for name in {**dispatch, **generated} if has_kernel(name)}


class StrictTensor(torch.Tensor):
    """A tensor that claims to be on the strict device, and has its numbers on the CPU."""

    @staticmethod
    def __new__(cls, inner):
        if inner.dtype not in TYPES:
            name = str(inner.dtype).removeprefix("torch.")
            raise TypeError(f"Cannot convert a strict Tensor to {name} dtype")
        self = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        self.inner = inner
        return self

    def __repr__(self):
        return f"StrictTensor({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return StrictDevice.current().__torch_dispatch__(operator, types, args, kwargs)


class StrictDevice(TorchDispatchMode):
    """The mode; see the top of the file. Only one is active at a time.

    `waits` has a line for every wait: the operator, and the innermost line of charrnn.
    """

    _active: StrictDevice | None = None

    def __init__(self):
        super().__init__()
        self.waits = []
        self.operators = set()
        """Names of all operators used on the device."""

    @classmethod
    def current(cls):
        assert cls._active is not None, "a tensor of the strict device is used outside of its mode"
        return cls._active

    def __enter__(self):
        assert StrictDevice._active is None
        StrictDevice._active = self
        return super().__enter__()

    def __exit__(self, *error):
        StrictDevice._active = None
        return super().__exit__(*error)

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = str(operator).removesuffix(".default")
        packet = str(operator.overloadpacket)
        given = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
        inside = [tensor for tensor in given if isinstance(tensor, StrictTensor)]
        target = kwargs.get("device")
        if target is not None:
            target = torch.device(target)
            lands = target.type == DEVICE.type
        elif packet in {"aten.copy_", "aten.copy"}:
            lands = isinstance(args[0], StrictTensor)
        else:
            lands = bool(inside)
        if inside or lands:
            self._check(name, packet, given, inside)
            self._count(name, packet, args, kwargs, inside, lands)
            if lands and kwargs.get("dtype") is not None and kwargs["dtype"] not in TYPES:
                raise TypeError(f"Cannot convert a strict Tensor to {kwargs['dtype']} dtype")
        if lands and target is not None:
            kwargs = {**kwargs, "device": CPU}
        if kwargs.get("pin_memory"):
            kwargs = {**kwargs, "pin_memory": False}
        outer = {id(tensor.inner): tensor for tensor in inside}
        args, kwargs = tree_map(
            lambda leaf: leaf.inner if isinstance(leaf, StrictTensor) else leaf, (args, kwargs)
        )
        outcome = operator(*args, **kwargs)
        if not lands:
            return outcome

        def wrapped(leaf):
            return outer[id(leaf)] if id(leaf) in outer else StrictTensor(leaf)

        return tree_map(lambda leaf: wrapped(leaf) if _is_tensor(leaf) else leaf, outcome)

    def _check(self, name, packet, given, inside):
        self.operators.add(name)
        if name.startswith("aten.") and name.removeprefix("aten.") not in mps_operators():
            operator = name.replace(".", "::", 1)
            raise NotImplementedError(
                f"The operator {operator!r} is not currently implemented for the strict device"
            )
        strangers = [t for t in given if not isinstance(t, StrictTensor) and t.ndim]
        if inside and strangers and packet not in MOVES:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")

    def _count(self, name, packet, args, kwargs, inside, lands):
        is_indexed_by_mask = packet in {"aten.index", "aten.index_put", "aten.index_put_"} and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        has_unknown_size = any("dynamic_output_shape" in str(tag) for tag in _tags(name))
        waits = packet in READS or is_indexed_by_mask or has_unknown_size
        if packet in MOVES:
            moved = bool(inside) != lands or (packet == "aten.copy_" and len(inside) == 1)
            is_free = kwargs.get("non_blocking", False) or (len(args) > 2 and args[2] is True)
            waits = moved and not (is_free and lands)
        if waits:
            frames = [f for f in traceback.extract_stack() if "/charrnn/" in f.filename]
            place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
            self.waits.append(f"{name} at {place}")


def _is_tensor(leaf):
    return isinstance(leaf, torch.Tensor)


@cache
def _tags(name):
    operator = torch.ops
    for part in name.split("."):
        operator = getattr(operator, part)
    return getattr(operator, "tags", None) or operator.default.tags


def made_strict(monkeypatch):
    """Let every trainer and every measurement of speed compute on the strict device.

    torch has no random generator for `meta`, and lets no fused optimiser work there.
    """
    from torch.optim import optimizer

    from charrnn.training import distributed, learner, probe, sizing

    fresh = learner._fresh_generator
    monkeypatch.setattr(learner, "_fresh_generator", lambda device: fresh(CPU))
    supported = [*optimizer._get_fused_kernels_supported_devices(), DEVICE.type]
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: supported)
    for module in (distributed, probe, sizing):
        monkeypatch.setattr(module, "choose_device", lambda name: DEVICE)
