"""Vacancies, surfaces and adsorption in one place."""

from mlip.simulate.properties.adsorption import AdsorptionResult, adsorption_energies
from mlip.simulate.properties.surfaces import Surface, SurfaceResult, surface_energies
from mlip.simulate.properties.vacancies import Vacancy, VacancyResult, vacancies

__all__ = [
    "AdsorptionResult",
    "Surface",
    "SurfaceResult",
    "Vacancy",
    "VacancyResult",
    "adsorption_energies",
    "surface_energies",
    "vacancies",
]
