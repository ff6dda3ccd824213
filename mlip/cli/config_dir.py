"""Where the configuration files are."""

from pathlib import Path

from mlip.core.errors import ConfigError


def config_dir() -> Path:
    """Return the folder of the shipped configurations, installed from a wheel or in a checkout.

    Raises:
        ConfigError: the installation lacks them.
    """
    package = Path(__file__).resolve().parent.parent
    # A wheel carries the folder inside the package; an editable install leaves it next to the package.
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "model").is_dir():
            return folder
    raise ConfigError(f"The configuration files are missing next to '{package}': install mlip-kit again.")
