"""Models as engines of programs that people run already: LAMMPS, i-PI, OpenMM, torch-sim."""
