"""The contracts every component must pass, as numbers: used by the tests and by ``mlip doctor``."""
