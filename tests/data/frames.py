"""Text of small extxyz frames, whole and broken."""


def frame_text(energy="energy=-10.5", forces="forces", extra="", rows=None, columns=None):
    """Text of one H2 frame; every part can be replaced."""
    rows = ["H 0.0 0.0 0.0 0.10 0.0 0.0", "H 0.0 0.0 0.8 -0.10 0.0 0.0"] if rows is None else rows
    columns = f"species:S:1:pos:R:3:{forces}:R:3" if columns is None else columns
    return "\n".join([f"{len(rows)}", f'Properties={columns} {energy} {extra} pbc="F F F"', *rows]) + "\n"


ISOLATED = '1\nProperties=species:S:1:pos:R:3 energy=-3.25 config_type=IsolatedAtom pbc="F F F"\nH 0 0 0\n'
