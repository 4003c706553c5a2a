"""Arrays that live on the device that is not there."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

API = json.loads(Path(__file__).with_name("api.json").read_text())
_SCALARS = (bool, int, float, complex, np.generic)


@functools.cache
def signature(parameters: str) -> inspect.Signature:
    """`(a, axis=-1)` as a signature."""
    space: dict[str, Any] = {}
    exec(f"def f{parameters}: pass", space)
    return inspect.signature(space["f"])


def host(x: Any) -> Any:
    """What is underneath, in tuples and lists too. Raises TypeError for a NumPy array, as CuPy does."""
    if isinstance(x, Array):
        return x._host
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}: a NumPy array among arrays of the device")
    if isinstance(x, tuple | list):
        return type(x)(host(part) for part in x)
    return x


def lifted(x: Any) -> Any:
    """NumPy's results as arrays of the device; a single number is an array without axes."""
    if isinstance(x, np.ndarray | np.generic):
        return Array(np.asarray(x))
    if isinstance(x, tuple | list):
        return [lifted(part) for part in x] if isinstance(x, list) else tuple(lifted(part) for part in x)
    return x


def index(x: Any) -> Any:
    """An index: CuPy takes lists and NumPy arrays of whole numbers there too, and copies them to the device."""
    if isinstance(x, tuple):
        return tuple(index(part) for part in x)
    return x._host if isinstance(x, Array) else x


def by_ufunc(name: str, *args: Any, **given: Any) -> Any:
    """An element-wise function, if CuPy has it for these types."""
    facts = API["ufuncs"].get(name)
    if facts is None:
        raise TypeError(f"CuPy has no function {name}")
    unknown = set(given) - {"out", "dtype", "casting"}
    if unknown:
        raise TypeError(f"Wrong arguments {unknown}: {name} of CuPy")
    plain = [host(x) for x in args]
    for x in plain:
        if not isinstance(x, (np.ndarray, *_SCALARS)):
            raise TypeError(f"Unsupported type {type(x)}")
    out = given.pop("out", None)

    def run() -> Any:
        with np.errstate(all="ignore"):
            result = getattr(np, name)(*plain, **given, **({} if out is None else {"out": host(out)}))
        check_loop(name, facts, plain[: facts["nin"]], result)
        return out if isinstance(out, Array) else lifted(result)

    return noted(run)


def other(result: Any, *given: Any) -> Any:
    """A result, and a view of it where NumPy gave back what it was given, so that it is not taken for something new."""
    return result.view() if any(result is x for x in given) and isinstance(result, np.ndarray) else result


def noted(run: Callable[[], Any]) -> Any:
    """What the device is asked to do; a stream that records has it for doing it again."""
    result = run()
    tape = Array.module.tape if Array.module is not None else None
    if tape is not None:
        tape.append((run, result))
    return result


def now(what: str) -> None:
    """Something that waits for the device, which nobody may while a stream records."""
    if Array.module is not None and Array.module.tape is not None:
        Array.module.spoilt = True
        raise Array.module.cuda.runtime.CUDARuntimeError(900, f"{what} while a stream records")


def check_loop(name: str, facts: Any, args: list[Any], result: Any) -> None:
    """Raises TypeError unless one of CuPy's loops takes these arrays to this result."""
    kinds = [x.dtype for x in args if isinstance(x, np.ndarray)]
    results = [r.dtype.char for r in (result if isinstance(result, tuple) else (result,))]
    for loop in facts["loops"]:
        ins, outs = loop.split("->")
        if list(outs) == results and all(np.can_cast(kind, letter) for kind in kinds for letter in [ins[-1], ins[0]]):
            return
        fitting = [np.can_cast(x.dtype, letter) for x, letter in zip(args, ins, strict=False) if hasattr(x, "dtype")]
        if list(outs) == results and all(fitting):
            return
    raise TypeError(f"CuPy's {name} has no loop from {[str(k) for k in kinds]} to {results}")


class Array:
    """cupy.ndarray."""

    __hash__ = None  # type: ignore[assignment]
    __array_priority__ = 100
    module: Any = None  # the one whose memory counts; set by it

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._host = array
        if Array.module is not None:
            Array.module.pool.took(array)

    # -- what an array knows of itself ---------------------------------------------------------------------------

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: self._host.flags)
    T = property(lambda self: Array(self._host.T))

    @property
    def __cuda_array_interface__(self) -> Any:
        return {"version": 3, "shape": self.shape, "typestr": self.dtype.str, "data": (self.data.ptr, False)}

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self._host.ctypes.data)

    @property
    def device(self) -> Any:
        return SimpleNamespace(id=0)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    # -- between host and device ---------------------------------------------------------------------------------

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> Any:
        now("get")
        if out is None:
            return np.array(self._host, order=order)
        if not isinstance(out, np.ndarray) or out.dtype != self.dtype or out.shape != self.shape:
            raise ValueError("out is no NumPy array of the same shape and type")
        out[...] = self._host
        return out

    def set(self, arr: Any, stream: Any = None) -> None:
        now("set")
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if arr.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not (self.flags.c_contiguous or self.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        self._host[...] = arr

    def item(self) -> Any:
        now("item")
        return self._host.item()

    def tolist(self) -> Any:
        now("tolist")
        return self._host.tolist()

    def __bool__(self) -> bool:
        now("bool")
        return bool(self._host)

    def __int__(self) -> int:
        now("int")
        return int(self._host)

    def __float__(self) -> float:
        now("float")
        return float(self._host)

    def __str__(self) -> str:
        return str(self._host)

    def __repr__(self) -> str:
        return repr(self._host)

    def __format__(self, spec: str) -> str:
        return format(self._host, spec)

    # -- parts ---------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[Array]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __getitem__(self, at: Any) -> Array:
        return noted(lambda: Array(np.asarray(self._host[index(at)])))

    def __setitem__(self, at: Any, value: Any) -> None:
        if not isinstance(value, (Array, *_SCALARS)):
            raise TypeError(f"Unsupported type {type(value)}: CuPy refuses to copy it in unasked")

        def run() -> None:
            with np.errstate(all="ignore"):
                self._host[index(at)] = host(value)

        noted(run)

    # -- NumPy's functions ---------------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **given: Any) -> Any:
        if method != "__call__":
            return NotImplemented
        if "out" in given:
            (given["out"],) = given["out"]
        if ufunc.__name__ in API["functions"]:  # matmul
            return getattr(Array.module, ufunc.__name__)(*inputs, **given)
        return by_ufunc(ufunc.__name__, *inputs, **given)

    def __array_function__(self, func: Any, types: Any, args: Any, given: Any) -> Any:
        try:
            module = functools.reduce(getattr, func.__module__.split(".")[1:], Array.module)
            found = getattr(module, func.__name__)
        except AttributeError:
            return NotImplemented
        if not all(issubclass(t, Array | np.ndarray) for t in types):
            return NotImplemented
        return found(*args, **given)

    __matmul__: Callable[[Any, Any], Any]

    @staticmethod
    def operator(name: str, swapped: bool = False) -> Any:
        def apply(self: Array, other: Any) -> Any:
            if not isinstance(other, (Array, np.ndarray, *_SCALARS)):
                return NotImplemented
            args = (other, self) if swapped else (self, other)
            return Array.module.matmul(*args) if name == "matmul" else by_ufunc(name, *args)

        return apply

    @staticmethod
    def in_place(name: str) -> Any:
        def apply(self: Array, other: Any) -> Array:
            by_ufunc(name, self, other, out=self)
            return self

        return apply

    @staticmethod
    def method(name: str, parameters: str) -> Any:
        def apply(self: Array, *args: Any, **given: Any) -> Any:
            signature(parameters).bind(*args, **given)
            given = {key: host(value) for key, value in given.items() if value is not None}
            out = given.pop("out", None)

            def run() -> Any:
                with np.errstate(all="ignore"):
                    result = getattr(self._host, name)(*map(host, args), **given)
                if out is not None:
                    out[...] = result
                return lifted(other(result, self._host) if out is None else out)

            return noted(run)

        return apply


for _name, _dunder in {
    "add": "add", "subtract": "sub", "multiply": "mul", "true_divide": "truediv", "floor_divide": "floordiv",
    "remainder": "mod", "power": "pow", "bitwise_and": "and", "bitwise_or": "or", "bitwise_xor": "xor",
    "left_shift": "lshift", "right_shift": "rshift", "matmul": "matmul",
}.items():  # fmt: skip
    setattr(Array, f"__{_dunder}__", Array.operator(_name))
    setattr(Array, f"__r{_dunder}__", Array.operator(_name, swapped=True))
    if _name != "matmul":
        setattr(Array, f"__i{_dunder}__", Array.in_place(_name))
for _name, _dunder in {
    "less": "lt", "less_equal": "le", "equal": "eq", "not_equal": "ne", "greater": "gt", "greater_equal": "ge",
}.items():  # fmt: skip
    setattr(Array, f"__{_dunder}__", Array.operator(_name))
for _name, _dunder in {"negative": "neg", "absolute": "abs", "invert": "invert"}.items():
    setattr(Array, f"__{_dunder}__", lambda self, _name=_name: by_ufunc(_name, self))
for _name, _parameters in API["methods"].items():
    if _parameters is not None and _name not in vars(Array):
        setattr(Array, _name, Array.method(_name, _parameters))
