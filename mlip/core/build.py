"""Build objects from plain configuration: ``{_target_: mlip.module.Class, option: value, ...}``.

Only targets inside an allow-list of packages are built, so a model file from a stranger can name nothing
but this toolkit's own classes (and those of installed plug-ins, entry-point group ``mlip.plugins``).
Option names are checked against the signature before anything runs.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from mlip.core.errors import ConfigError, did_you_mean

TARGET = "_target_"
PARTIAL = "_partial_"


@functools.cache
def allowed_packages() -> tuple[str, ...]:
    """Return the packages whose classes may be built: ``mlip`` and the installed plug-ins, looked up once."""
    return ("mlip", *sorted(point.value.split(":")[0] for point in entry_points(group="mlip.plugins")))


def locate(target: str) -> Callable[..., Any]:
    """Import the class or function behind a dotted path.

    Raises:
        ConfigError: the path is outside the allowed packages, or nothing is there.
    """
    if not isinstance(target, str) or "." not in target:
        raise ConfigError(f"_target_ must be a dotted path such as 'mlip.models.mace.MACE', got {target!r}.")
    packages = allowed_packages()
    if not any(target.startswith(f"{package}.") for package in packages):
        raise ConfigError(
            f"_target_ '{target}' is not allowed here: only classes inside {', '.join(packages)} are built. "
            "Install a plug-in (entry-point group 'mlip.plugins') to add a package."
        )
    module_name, _, attribute = target.rpartition(".")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"_target_ '{target}' does not exist: {error}.") from error
    found = getattr(module, attribute, None)
    if (
        found is None
        or not callable(found)
        or getattr(found, "__module__", "").split(".")[0] not in {package.split(".")[0] for package in packages}
    ):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise ConfigError(f"'{module_name}' has no '{attribute}'.{did_you_mean(attribute, public)}")
    return found


def check_options(builder: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse option names that the builder does not take, and what is not true or false where it takes one of these.

    Raises:
        ConfigError: names the option, the builder and the nearest known name.
    """
    parameters = inspect.signature(builder).parameters
    for name, value in options.items():
        # Hydra reads 'no' and 'off' on the command line as words, which Python counts as true.
        if name in parameters and parameters[name].annotation in (bool, "bool") and not isinstance(value, bool):
            raise ConfigError(f"{builder.__name__} needs {name} to be true or false, got {value!r}.")
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    for name in options:
        if name not in parameters:
            raise ConfigError(
                f"{builder.__name__} has no option '{name}'.{did_you_mean(name, parameters)} "
                f"It takes: {', '.join(parameters)}."
            )


def build(config: Any, **extra: Any) -> Any:
    """Build the object that a configuration describes, inner ones first.

    A mapping with ``_target_`` becomes an object; with ``_partial_: true`` it becomes a factory that takes
    the remaining arguments later. Other mappings, lists and values are passed through.

    Args:
        config: plain containers (no OmegaConf).
        extra: further keyword arguments of the outermost target.

    Raises:
        ConfigError: unknown target or option, a missing option, or a value that the target refuses.
    """
    if isinstance(config, Mapping):
        if TARGET not in config:
            return {key: build(value) for key, value in config.items()}
        options = {key: build(value) for key, value in config.items() if key not in (TARGET, PARTIAL)}
        options.update(extra)
        builder = locate(config[TARGET])
        check_options(builder, options)
        if config.get(PARTIAL, False):
            return functools.partial(builder, **options)
        missing = [
            name
            for name, p in inspect.signature(builder).parameters.items()
            if p.default is inspect.Parameter.empty
            and p.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
            and name not in options
        ]
        if missing:
            raise ConfigError(f"{builder.__name__} needs the option(s) {', '.join(missing)}, which are not set.")
        try:
            return builder(**options)
        except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
            raise ConfigError(f"{builder.__name__} cannot be built from these options: {error}") from error
    if isinstance(config, list | tuple):
        return [build(item) for item in config]
    return config
