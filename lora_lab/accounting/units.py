"""Bytes in words. Memory is counted in powers of two, files and downloads in powers of ten; the unit says which."""

from __future__ import annotations

MIB, GIB = 2**20, 2**30
BINARY = ((GIB, "GiB"), (MIB, "MiB"), (1024, "KiB"))
DECIMAL = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def three_figures(value: float) -> str:
    """515, 61.8, 8.34, 0.12: about three figures."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def binary(count: float) -> str:
    """Bytes of memory in GiB, MiB or KiB."""
    unit, name = next((pair for pair in BINARY if count >= pair[0]), BINARY[-1])
    return f"{three_figures(count / unit)} {name}"


def decimal(count: float) -> str:
    """Bytes of a file in GB, MB or kB."""
    unit, name = next((pair for pair in DECIMAL if count >= pair[0]), (1, "bytes"))
    return f"{count / unit:,.3g} {name}" if count / unit < 999.5 else f"{count / unit:,.0f} {name}"
