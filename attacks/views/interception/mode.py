"""The interception of a forward pass: values are the model's own, bit for bit; gradients go where it has none.

BPDA, Athalye, Carlini and Wagner, "Obfuscated gradients give a false sense of security", ICML 2018, section 4.1: on the backward
pass an operation is replaced by a smooth one of about the same value. Which one stands in for which is in `rules`. Here no
declaration is needed: every call of torch in the pass is seen, and where gradients end, a stand-in goes on with them.
Comparisons, counts and indices cannot carry a gradient themselves, so theirs is kept beside them, until numbers are made of
them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gauntlet.attacks.views.interception.arguments import elsewhere, in_place, mapped, tensors
from gauntlet.attacks.views.interception.call import Call
from gauntlet.attacks.views.interception.custom import join_custom, opened, trusted, while_active
from gauntlet.attacks.views.interception.moved_weights import moved_weights
from gauntlet.attacks.views.interception.numbers import hides
from gauntlet.attacks.views.interception.outside import ARRAYS, COMING_BACK, LEAVING, Outside
from gauntlet.attacks.views.interception.patches import patched
from gauntlet.attacks.views.interception.rules import RULES
from gauntlet.attacks.views.interception.soft import Soft, as_numbers, with_identity_gradient
from gauntlet.attacks.views.interception.trace import Trace

_SAME = frozenset({"detach", "data", "alias", "clone", "contiguous", "requires_grad_"})
_ERRORS = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, NotImplementedError)
"""What a stand-in may raise on arguments that it does not fit: the value then stays without gradient."""


class InterceptionMode(TorchFunctionMode):
    """Within this mode operations without a useful gradient have one, of the width `width` in units of the values' spread.

    `batch`: the number of images in the pass; spreads are of each image. `no_grad`, `detach` and `.data` do not end the gradient;
    arrays that leave torch and come back with the same shape are joined to it, and so are custom functions that keep the shape.
    `seen` names the operations that were replaced, each with file and line of the caller, if `record` is set.
    """

    def __init__(self, batch: int, width: float = 1.0, *, record: bool = False) -> None:
        super().__init__()
        self.batch = batch
        self.width = width
        self._trace = Trace() if record else None
        self._soft: dict[int, tuple[Tensor, Soft]] = {}
        self._outside = Outside()
        self._active = False
        self._kept = False
        self._undo = ExitStack()

    @property
    def seen(self) -> dict[str, str] | None:
        """Names of the operations that hide the gradient, by file and line, once `output` was called."""
        return None if self._trace is None else self._trace.seen

    def __enter__(self) -> InterceptionMode:
        """Patch what a function mode does not see."""
        super().__enter__()  # type: ignore[no-untyped-call]
        self._active = True
        entered = partial(setattr, self, "_kept", True)
        self._undo.enter_context(patched(self._back, self._custom, entered, self._ignored_later))
        self._undo.enter_context(torch.autograd.graph.saved_tensors_hooks(self._packed, lambda saved: saved))
        return self

    def __exit__(self, *details: Any) -> None:
        """Undo the patches, and let go of the tensors."""
        self._undo.close()
        super().__exit__(*details)  # type: ignore[no-untyped-call]
        self._active = False
        self._soft.clear()
        self._outside.clear()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, and give its value a gradient where it has none."""
        settings = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "_set_grad_enabled":
            self._kept = True
            return None
        if name == "__get__":
            return self._attribute(func, args[0])
        if name == "__iter__" and args[0].dim():
            return iter(self.__torch_function__(torch.unbind, types, args))
        if name == "register_hook":
            return func(args[0], self._ignored_later(args[1]))
        if isinstance(settings.get("out"), Tensor):
            made = self.__torch_function__(func, types, args, {**settings, "out": None})
            return self.__torch_function__(Tensor.copy_, types, (settings["out"].resize_(made.shape), made))
        if name in LEAVING and isinstance(args[0], Tensor):
            soft = self._get(args[0]) or Soft(args[0])
            if soft.number.requires_grad:
                self._outside.leave(soft)
                if name in ARRAYS and self._trace is not None:
                    self._trace.follow(name.strip("_"), args[:1], None)
            return func(args[0].detach(), *args[1:], **settings)
        if name in _SAME and name != "clone":
            return self._held(name, func, args, settings)
        involved = [one for one in tensors((*args, *settings.values())) if one.requires_grad or id(one) in self._soft]
        if not involved or name in ("new_tensor", "new"):
            value = func(*args, **settings)
            return self._back(value) if name in COMING_BACK and self._outside and isinstance(value, Tensor) else value
        before = args[0].clone() if args and isinstance(args[0], Tensor) and in_place(name) else None
        value = self._called(func, args, settings)
        return self._continued(name, func, args, settings, value, before)

    def _packed(self, saved: Tensor) -> Tensor:
        """What the backward pass needs: a copy where the model meant no gradient, and so may change its tensors in place."""
        return saved.clone() if self._kept else saved

    def _called(self, func: Callable[..., Any], args: Sequence[Any], settings: Mapping[str, Any]) -> Any:
        try:
            return func(*args, **settings)
        except RuntimeError:
            # In place on a leaf, which the model does under no_grad.
            with torch.no_grad():
                return func(*args, **settings)

    def _continued(
        self,
        name: str,
        func: Callable[..., Any],
        args: Sequence[Any],
        settings: Mapping[str, Any],
        value: Any,
        before: Tensor | None,
    ) -> Any:
        plain = name.strip("_")
        given = args if before is None else (before, *args[1:])
        if before is not None and id(args[0]) in self._soft:
            self._keep(before, self._soft[id(args[0])][1])
        rule = RULES.get(plain)
        found: Any = None
        hiding = ""
        try:
            if rule is not None and (plain not in ("max", "min") or isinstance(value, tuple)):
                call = Call(plain, given, settings, value, self._real, self._get, self.batch, self.width)
                found = rule(call)
                hiding = plain if found is not None and self._trace is not None and hides(call) else ""
            if found is None and self._linked((*args, *settings.values())):
                found = self._carried(plain, func if before is None else elsewhere(name), given, settings, value)
            if found is not None and self._trace is not None:
                self._trace.follow(hiding, tensors((*args, *settings.values())), value)
            if found is not None and before is not None:
                self._changed(args[0], found)
                return value
        except _ERRORS:
            return value
        return value if found is None else self._joined(value, found)

    def _changed(self, x: Tensor, found: Any) -> None:
        """What was changed in place goes on with a stand-in."""
        number = found.number if isinstance(found, Soft) else found
        if isinstance(number, Tensor) and number.shape == x.shape and number.requires_grad:
            self._keep(x, Soft(with_identity_gradient(number, x.detach().to(number.dtype))))

    def _carried(
        self, name: str, func: Callable[..., Any], args: Sequence[Any], settings: Mapping[str, Any], value: Any
    ) -> Soft | Tensor | None:
        """An ordinary operation on the stand-ins of its arguments."""
        if not isinstance(value, Tensor):
            return None
        reals = mapped(args, self._real)
        number = func(*reals, **mapped(settings, self._real))
        if not isinstance(number, Tensor) or number.shape != value.shape:
            return None
        first = args[0][0] if args and isinstance(args[0], list | tuple) and args[0] else args[0] if args else None
        soft, classes = self._get(first), None
        if soft is not None and soft.classes is not None and not value.is_floating_point():
            classes = moved_weights(name, func, args, settings, value, soft.classes, self._get)
        if value.is_floating_point():
            return number
        number = number if number.is_floating_point() else number.to(torch.float32)
        return Soft(with_identity_gradient(number, as_numbers(value, number.dtype)), classes)

    def _joined(self, value: Any, found: Any) -> Any:
        """The value with what was found for it."""
        if isinstance(value, tuple):
            parts = [
                self._joined(one, other) if other is not None else one for one, other in zip(value, found, strict=True)
            ]
            # Named tuples of torch take one sequence.
            return type(value)(parts)
        if isinstance(found, tuple):
            return value
        if isinstance(found, Tensor):
            if found.shape != value.shape or not found.requires_grad:
                return value
            if value.is_floating_point():
                return found if found is value else with_identity_gradient(found.to(value.dtype), value.detach())
            found = Soft(with_identity_gradient(found, as_numbers(value, found.dtype)))
        if found.number.shape == value.shape and found.number.requires_grad:
            self._keep(value, found)
        return value

    def output(self, value: Any) -> Any:
        """What the pass returned, with its gradient; call it before the mode ends."""
        found = self._real(value)
        if self._trace is not None:
            self._trace.finish(value, lost=not isinstance(found, Tensor) or not found.requires_grad)
        if isinstance(found, Tensor):
            for name in join_custom(found):
                self._note(name)
        return found

    def _attribute(self, func: Callable[..., Any], x: Tensor) -> Any:
        value = func(x)
        if isinstance(value, Tensor) and value.shape == x.shape and not value.requires_grad:
            if x.requires_grad and value.data_ptr() == x.data_ptr():
                self._note("data")
                return x.view_as(x)
            if id(x) in self._soft:
                self._keep(value, self._soft[id(x)][1])
        return value

    def _held(self, name: str, func: Callable[..., Any], args: Sequence[Any], settings: Mapping[str, Any]) -> Any:
        x: Tensor = args[0]
        if x.requires_grad and name == "detach":
            self._note(name)
            return x.view_as(x)
        if x.requires_grad and name == "requires_grad_":
            x.retain_grad()  # As a leaf does, which optimisers ask for.
            return x
        value = func(*args, **settings)
        if isinstance(value, Tensor) and id(x) in self._soft:
            self._keep(value, self._soft[id(x)][1])
        return value

    def _custom(self, kind: Any, apply: Callable[..., Any], args: Sequence[Any], settings: Mapping[str, Any]) -> Any:
        """A function with a backward pass of its own: that of its forward pass, else the identity where it keeps a shape."""
        reals = [one for one in args if isinstance(one, Tensor) and (one.requires_grad or id(one) in self._soft)]
        if not reals or trusted(kind):
            return apply(*args, **settings)
        self._note(kind.__name__)
        try:
            with torch.enable_grad():
                value = opened(kind, args, settings)
        except _ERRORS:
            value = apply(*args, **settings)
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.grad_fn is not None:
            return value
        x = self._real(next((one for one in reals if one.shape == value.shape), reals[0]))
        return value if x.shape != value.shape else with_identity_gradient(x.to(value.dtype), value.detach())

    def _ignored_later(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """A hook on gradients, which may falsify those that an attack takes after the pass."""
        self._note("a hook on gradients")
        return while_active(hook, lambda: self._active)

    def _back(self, value: Tensor) -> Tensor:
        """A tensor made of what left torch, with its gradient."""
        try:
            soft = self._outside.continued(value)
        except _ERRORS:
            return value
        if soft is None:
            return value
        if value.is_floating_point() and soft.classes is None:
            return soft.number
        self._keep(value, soft)
        return value

    def _get(self, one: Any) -> Soft | None:
        held = self._soft.get(id(one))
        return None if held is None else held[1]

    def _keep(self, value: Tensor, soft: Soft) -> None:
        # The tensor is kept too, so that no other one gets its identity during the pass.
        self._soft[id(value)] = value, soft

    def _real(self, one: Any) -> Any:
        if isinstance(one, list | tuple):
            return type(one)(self._real(part) for part in one)
        soft = self._get(one) if isinstance(one, Tensor) else None
        return one if soft is None else soft.number

    def _linked(self, given: Sequence[Any]) -> bool:
        return any(id(one) in self._soft for one in tensors(given))

    def _note(self, name: str) -> None:
        self._kept = True
        if self._trace is not None:
            self._trace.note(name)
